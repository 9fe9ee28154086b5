"""From the pixels of a packed dataset to what a network wants, as layers inside the network.

Only layers: calls of ``keras.ops`` on symbolic tensors do not load again from ``.h5``, and Lambda is unsafe to load.
Every layer has a fixed name, because automatic names count up and would change the bytes of a saved network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras import KerasTensor, ops

from deepsky.errors import DataError

# Where the stretch of all bands turns from linear to logarithmic: a few sigma of the sky in g and r (0.02 nanomaggies).
# At one sigma, the noise fills the range of the stretch and a network learns less from the same images.
SOFTENING_NMGY = 0.1
# Keras' name for where these layers come from: where they are missing, it stands in the one line that Keras says.
NEEDS = f"this .h5 needs deepsky: import {__name__} first"


@dataclass(frozen=True)
class ImageSpec:
    """The pixels a network is built for.

    Attributes:
        shape: (height, width, channel) of one image.
        kind: ``uint8`` pictures, or ``flux`` in nanomaggies.
        bands: name of each channel.
        colour_bands: the bands shown as red, green and blue; only used for flux.
    """

    shape: tuple[int, int, int]
    kind: Literal["uint8", "flux"]
    bands: tuple[str, ...]
    colour_bands: tuple[str, ...] = ()


def image_input(spec: ImageSpec) -> KerasTensor:
    """Return the symbolic image batch, (n, height, width, channel), in the dtype of images.npy.

    Raises:
        DataError: the number of channels does not fit the kind or the bands.
    """
    n_channels = spec.shape[2]
    if spec.kind == "uint8" and n_channels not in (1, 3):
        raise DataError("images.npy", f"has {n_channels} channels of uint8", "pack gray (1) or RGB (3) pictures")
    if spec.kind == "flux" and n_channels != len(spec.bands):
        raise DataError("images.npy", f"has {n_channels} channels for the bands {spec.bands}", "pack it again")
    return keras.Input(spec.shape, dtype="uint8" if spec.kind == "uint8" else "float32", name="image")


def colour_pixels(image: KerasTensor, spec: ImageSpec, size_px: int) -> KerasTensor:
    """Return RGB in 0..255, float32, (n, size_px, size_px, 3): what the pretrained backbones start from.

    Gray is repeated to three channels; flux is composed from ``spec.colour_bands`` by Lupton's method.

    Raises:
        DataError: flux without three colour bands among its bands.
    """
    if spec.kind == "flux":
        missing = [band for band in spec.colour_bands if band not in spec.bands]
        if len(spec.colour_bands) != 3 or missing:
            raise DataError(
                "dataset.json: colour_bands", f"{spec.colour_bands} are not three of {spec.bands}", "name three bands"
            )
        channels = [spec.bands.index(band) for band in spec.colour_bands]
        return resized(LuptonColour(channels, name="lupton_colour")(image), size_px)
    # Resizing keeps integers as integers on some backends: make floats first.
    pixels = resized(keras.layers.Rescaling(1.0, name="to_float")(image), size_px)
    if spec.shape[2] == 1:
        pixels = keras.layers.Concatenate(name="gray_to_rgb")([pixels, pixels, pixels])
    return pixels


def stretched_pixels(image: KerasTensor, spec: ImageSpec, size_px: int) -> KerasTensor:
    """Return all channels of an image, near 0..1 for uint8 and asinh-stretched for flux.

    The result is float32, (n, size_px, size_px, channel).
    """
    if spec.kind == "flux":
        return resized(AsinhStretch(SOFTENING_NMGY, name="asinh_stretch")(image), size_px)
    return resized(keras.layers.Rescaling(1 / 255, name="to_unit_range")(image), size_px)


def stretched_front(spec: ImageSpec, size_px: int) -> keras.Model:
    """Build image -> (n, size_px, size_px, channel), float32: what a network from scratch sees; it has no weights."""
    image = image_input(spec)
    return keras.Model(image, stretched_pixels(image, spec, size_px), name="stretched")


def colour_front(spec: ImageSpec, size_px: int) -> keras.Model:
    """Build image -> RGB pixels in 0..255, (n, size_px, size_px, 3): what a backbone sees; it has no weights."""
    image = image_input(spec)
    return keras.Model(image, colour_pixels(image, spec, size_px), name="colour")


def resized(pixels: KerasTensor, size_px: int) -> KerasTensor:
    """Squash or enlarge to a square of ``size_px``; antialiased, or stars vanish between the samples of a frame."""
    if tuple(pixels.shape[1:3]) == (size_px, size_px):
        return pixels
    return keras.layers.Resizing(size_px, size_px, interpolation="bilinear", antialias=True, name="resize")(pixels)


@keras.saving.register_keras_serializable(NEEDS)
class LuptonColour(keras.layers.Layer):
    """Flux -> RGB that keeps colour at every brightness.

    Args:
        channels: which channels of the flux are red, green and blue.
        stretch_nmgy: nanomaggies where the curve is still linear, > 0.
        q: how strongly bright pixels are compressed, > 0.

    Source:
        Lupton et al. 2004, PASP 116, 133; the same formula as ``deepsky.imaging.lupton``.
    """

    def __init__(self, channels: Sequence[int], stretch_nmgy: float = 0.5, q: float = 8.0, **kwargs: Any) -> None:
        super().__init__(trainable=False, **_without_trainable(kwargs))
        self.channels, self.stretch_nmgy, self.q = [int(c) for c in channels], stretch_nmgy, q

    def call(self, flux: Any) -> Any:
        """Turn (n, height, width, band) nanomaggies into (n, height, width, 3) in 0..255."""
        rgb = ops.take(flux, self.channels, axis=-1)
        intensity = ops.abs(ops.mean(rgb, axis=-1, keepdims=True)) * (self.q / self.stretch_nmgy)
        intensity = ops.maximum(intensity, 1e-6)  # asinh(x) / x is even, and 1 at 0
        gain = _asinh(intensity) / intensity / self.stretch_nmgy
        rgb = ops.maximum(rgb * gain, 0.0)
        return 255.0 * rgb / ops.maximum(ops.max(rgb, axis=-1, keepdims=True), 1.0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Three channels, whatever came in."""
        return (*input_shape[:-1], 3)

    def get_config(self) -> dict[str, Any]:
        """Return what is needed to build the layer again."""
        own = {"channels": self.channels, "stretch_nmgy": self.stretch_nmgy, "q": self.q}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(NEEDS)
class AsinhStretch(keras.layers.Layer):
    """Compress flux band by band: linear below the softening, logarithmic above; ratios of bands become differences.

    Args:
        softening_nmgy: nanomaggies per pixel where the curve turns, > 0.

    Source:
        Lupton, Gunn & Szalay 1999, AJ 118, 1406.
    """

    def __init__(self, softening_nmgy: float, **kwargs: Any) -> None:
        super().__init__(trainable=False, **_without_trainable(kwargs))
        self.softening_nmgy = softening_nmgy

    def call(self, flux: Any) -> Any:
        """Return the same shape."""
        return _asinh(flux / self.softening_nmgy)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return what is needed to build the layer again."""
        return {**super().get_config(), "softening_nmgy": self.softening_nmgy}


def _asinh(value: Any) -> Any:
    """Return asinh, also where the value is small or negative: TensorFlow's own is off by 5 % at 1e-6 in float32."""
    size = ops.abs(value)
    return ops.sign(value) * ops.log1p(size + size * size / (1.0 + ops.sqrt(size * size + 1.0)))


def _without_trainable(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Drop a key that a saved configuration repeats; these layers have nothing to train."""
    return {key: value for key, value in kwargs.items() if key != "trainable"}
