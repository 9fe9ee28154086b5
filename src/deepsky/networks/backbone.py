"""A pretrained network without its top, frozen, between its own preprocessing and global average pooling."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras
from keras import KerasTensor

from deepsky.errors import ConfigError, WeightsError
from deepsky.networks.folding import fold_normalisation
from deepsky.networks.inputs import CaffeScaling, ImageSpec, colour_pixels, image_input


@dataclass(frozen=True)
class BackboneParams:
    """Section ``backbones.NETWORK``.

    Attributes:
        input_size_px: side of the square the images are resized to.
    """

    input_size_px: int

    def __post_init__(self) -> None:
        """Refuse a side that no memory holds; the smallest one depends on the architecture."""
        if not 0 < self.input_size_px <= 1024:
            raise ValueError(f"input_size_px must lie between 1 and 1024, not {self.input_size_px}")


@dataclass(frozen=True)
class Backbone:
    """One architecture of keras.applications.

    Attributes:
        build: side in px -> network without top and without weights; every layer has a fixed name.
        scale: RGB in 0..255 -> what the architecture was trained on.
        min_size_px: smallest side it accepts.
        weights_file: name of Keras' own no-top weights.
        weights_folder: where that file stands below Keras' download address.
        weights_digest: hexadecimal hash of that file.
        weights_algorithm: of the hash; md5 where Keras publishes one, else sha256 of the file it serves.
    """

    build: Callable[[int], keras.Model]
    scale: Callable[[KerasTensor], KerasTensor]
    min_size_px: int
    weights_file: str
    weights_folder: str
    weights_digest: str
    weights_algorithm: Literal["md5", "sha256"] = "md5"


def application(kind: Callable[..., keras.Model], size_px: int, name: str) -> keras.Model:
    """Build one of keras.applications without top and weights; the input layer gets a fixed name too."""
    pixels = keras.Input((size_px, size_px, 3), name="pixels")
    model = kind(include_top=False, weights=None, input_tensor=pixels)
    return keras.Model(pixels, model.output, name=name)


def tf_scaling(rgb: KerasTensor) -> KerasTensor:
    """RGB in 0..255 -> -1..1."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scaling")(rgb)


def caffe_scaling(rgb: KerasTensor) -> KerasTensor:
    """RGB in 0..255 -> BGR around 0."""
    return CaffeScaling(name="scaling")(rgb)


def build_features(
    backbone: Backbone, spec: ImageSpec, params: BackboneParams, weights_file: Path | None, *, fast: bool = False
) -> keras.Model:
    """Build image -> features: preprocessing, the frozen backbone, global average pooling.

    Args:
        backbone: the architecture.
        spec: the images it will see.
        params: its input size.
        weights_file: weights without top as ``.h5``; None leaves Keras' untrained ones.
        fast: fold batch normalisation into the convolutions: for computing features, not for saving.

    Returns:
        Model from (n, height, width, channel) to (n, n_features), float32; nothing in it trains.

    Raises:
        ConfigError: the input size is too small for the architecture.
        WeightsError: the weights cannot be read or do not fit.
    """
    size_px = params.input_size_px
    if size_px < backbone.min_size_px:
        raise ConfigError(
            "params.yaml: backbones", f"input_size_px {size_px} is too small", f"use {backbone.min_size_px} or more"
        )
    base = backbone.build(size_px)
    if weights_file is not None:
        load_weights(base, weights_file)
    if fast:
        base = fold_normalisation(base)
    base.trainable = False
    image = image_input(spec)
    maps = base(backbone.scale(colour_pixels(image, spec, size_px)), training=False)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D(name="average")(maps), name="features")


def load_weights(base: keras.Model, path: Path) -> None:
    """Load weights by path, never by Keras' own name: Keras deletes a cached file whose hash is not its own.

    Raises:
        WeightsError: the file is missing, is not HDF5 or belongs to another architecture.
    """
    try:
        base.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            path, f"holds no weights of {base.name} without top ({problem})", "give Keras' no-top .h5 file"
        ) from error
