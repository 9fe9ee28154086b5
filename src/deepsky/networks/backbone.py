"""A pretrained network without its top, frozen, between its own preprocessing and global average pooling."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import KerasTensor

from deepsky.errors import ConfigError, WeightsError
from deepsky.networks.folding import fold_normalisation
from deepsky.networks.inputs import ImageSpec, colour_pixels, image_input
from deepsky.networks.params import Precision
from deepsky.networks.precision import computing_in


@dataclass(frozen=True)
class Backbone:
    """One architecture with pretrained weights.

    Attributes:
        build: side in px -> network without top and without weights; every layer has a fixed name.
        scale: RGB in 0..255 -> what the architecture was trained on.
        min_size_px: smallest side it accepts.
        block_pattern: regular expression at the start of a layer's name; its group names the block of the layer.
            A layer that does not match belongs to the block of the layer before it, and before all blocks to the stem.
        weights_file: name of the published weights: Keras' own no-top ``.h5``, or the file of a package.
        weights_folder: where Keras' file stands below its download address; of a package, below that.
        weights_digest: hexadecimal hash of that file.
        weights_algorithm: of the hash; md5 where Keras publishes one, else sha256 of the file it serves.
        package: distribution and package that carry the file; None where it is Keras'.
        set_published: gives a network of ``build`` the weights of a package's file: the network, the file's content,
            and what to call it in an error.
    """

    build: Callable[[int], keras.Model]
    scale: Callable[[KerasTensor], KerasTensor]
    min_size_px: int
    block_pattern: str
    weights_file: str
    weights_folder: str
    weights_digest: str
    weights_algorithm: Literal["md5", "sha256"] = "md5"
    package: tuple[str, str] | None = None
    set_published: Callable[[keras.Model, bytes, object], None] | None = None


def application(kind: Callable[..., keras.Model], size_px: int, name: str) -> keras.Model:
    """Build one of keras.applications without top and weights; the input layer gets a fixed name too."""
    pixels = keras.Input((size_px, size_px, 3), name="pixels")
    model = kind(include_top=False, weights=None, input_tensor=pixels)
    return keras.Model(pixels, model.output, name=name)


def tf_scaling(rgb: KerasTensor) -> KerasTensor:
    """RGB in 0..255 -> -1..1."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scaling")(rgb)


def caffe_scaling(rgb: KerasTensor) -> KerasTensor:
    """RGB in 0..255 -> BGR minus the ImageNet mean: what resnet50 and vgg16 were trained on.

    Source:
        keras.applications.imagenet_utils.preprocess_input, mode "caffe".
    """
    centred = keras.layers.Rescaling(1.0, offset=[-123.68, -116.779, -103.939], name="scaling")(rgb)
    # Keras has no layer that reorders channels; a convolution of ones and zeros does it exactly.
    reverse = keras.initializers.Constant([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    to_bgr = keras.layers.Conv2D(3, 1, use_bias=False, kernel_initializer=reverse, trainable=False, name="rgb_to_bgr")
    return to_bgr(centred)


def torch_scaling(rgb: KerasTensor) -> KerasTensor:
    """RGB in 0..255 -> ImageNet's mean at 0 and its standard deviation at 1, channel by channel."""
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    scale = [1 / (255 * one) for one in deviation]
    offset = [-centre / one for centre, one in zip(mean, deviation, strict=True)]
    return keras.layers.Rescaling(scale, offset=offset, name="scaling")(rgb)


def build_base(backbone: Backbone, size_px: int) -> keras.Model:
    """Build a network without top and without trained weights.

    Raises:
        ConfigError: the input size is too small for the architecture.
    """
    if size_px < backbone.min_size_px:
        raise ConfigError("params.yaml", f"input_size_px {size_px} is too small", f"use {backbone.min_size_px} or more")
    return backbone.build(size_px)


@keras.saving.register_keras_serializable(package="deepsky")
class FrozenNormalization(keras.layers.BatchNormalization):
    """Batch normalisation that neither uses nor learns the statistics of a batch, while scale and offset may train.

    Calling a network with ``training=False`` is not enough: within a model that trains, Keras calls each of its layers
    with ``training=True`` nevertheless.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return the same shape, by the moving statistics."""
        return super().call(inputs, training=False, mask=mask)

    def stock(self) -> keras.layers.Layer:
        """Return Keras' own layer that does the same; it does so as long as it is not told to train."""
        same = keras.layers.BatchNormalization.from_config({**self.get_config(), "trainable": False})
        same.build(self.input.shape)
        same.set_weights(self.get_weights())
        return same


def freeze_statistics(base: keras.Model) -> keras.Model:
    """Copy a network, without its weights, so that its moving statistics stay as they will be loaded."""

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        return (FrozenNormalization if is_norm else type(layer)).from_config(layer.get_config())

    return keras.models.clone_model(base, clone_function=copied)


def build_features(
    backbone: Backbone,
    spec: ImageSpec,
    size_px: int,
    weights_file: Path | None,
    *,
    fast: bool = False,
    precision: Precision = "float32",
) -> keras.Model:
    """Build image -> features: preprocessing, the frozen backbone, global average pooling.

    Args:
        backbone: the architecture.
        spec: the images it will see.
        size_px: side of the square the images are resized to.
        weights_file: weights without top as ``.h5``; None leaves Keras' untrained ones.
        fast: fold batch normalisation into the convolutions: for computing features, not for saving.
        precision: of what stands between the preprocessing and the pooling, which count in float32.

    Returns:
        Model from (n, height, width, channel) to (n, n_features), float32; nothing in it trains.

    Raises:
        ConfigError: the input size is too small for the architecture.
        WeightsError: the weights cannot be read or do not fit.
    """
    with computing_in(precision):
        base = build_base(backbone, size_px)
        if weights_file is not None:
            load_weights(base, weights_file)
        if fast:
            base = fold_normalisation(base)
    base.trainable = False
    image = image_input(spec)
    maps = base(backbone.scale(colour_pixels(image, spec, size_px)), training=False)
    return keras.Model(image, average(maps), name="features")


def average(maps: KerasTensor) -> KerasTensor:
    """Average maps, (n, height, width, channel), over their places: a sum of 16 bits would not hold all digits."""
    return keras.layers.GlobalAveragePooling2D(name="average", dtype="float32")(maps)


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


def draw_kernels(base: keras.Model, rng: np.random.Generator) -> None:
    """Draw every kernel of a network anew, the same numbers under every backend and whatever was built before.

    Source:
        He et al. 2015, arXiv:1502.01852: normal, with a variance that ReLU leaves as it is.
    """
    for variable in base.trainable_variables:
        if variable.name.endswith("kernel"):
            shape = tuple(variable.shape)
            deviation = np.sqrt(2.0 / _n_inputs(variable.path, shape))
            variable.assign(rng.normal(0.0, deviation, shape).astype(np.float32))


def is_depthwise(path: str) -> bool:
    """Tell from the path of a kernel whether it sees one channel at a time."""
    return "depthwise" in path or "conv_dw" in path


def _n_inputs(path: str, shape: tuple[int, ...]) -> int:
    """Count the inputs of one output; a depthwise kernel (height, width, channel, multiplier) sees one channel."""
    n_taps = shape[0] * shape[1]
    return n_taps if is_depthwise(path) else n_taps * shape[2]
