"""ResNet (He et al. 2015, arXiv:1512.03385): 50, 101 and 152 layers pretrained, 18 and 34 layers from the images."""

from collections.abc import Callable, Sequence

import keras
from keras import KerasTensor

from deepsky.networks.backbone import Backbone, application, caffe_scaling
from deepsky.networks.convolutions import MOMENTUM, named_maps, standardised
from deepsky.networks.heads import Answer

N_FILTERS = (64, 128, 256, 512)


def _backbone(kind: Callable[..., keras.Model], name: str, weights_digest: str) -> Backbone:
    """Describe one of Keras' networks of bottleneck units; each unit is a block."""
    return Backbone(
        build=lambda size_px: application(kind, size_px, name),
        scale=caffe_scaling,
        min_size_px=32,
        block_pattern=r"(conv\d_block\d+)_",
        weights_file=f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5",
        weights_folder="resnet",
        weights_digest=weights_digest,
    )


RESNET50 = _backbone(keras.applications.ResNet50, "resnet50", "4d473c1dd8becc155b73f8504c6f6626")
RESNET101 = _backbone(keras.applications.ResNet101, "resnet101", "88cf7a10940856eca736dc7b7e228a21")
RESNET152 = _backbone(keras.applications.ResNet152, "resnet152", "ee4c566cf9a93f14d82f913c2dc6dd0c")


def build_tail18(shape: tuple[int, int, int], answer: Answer) -> keras.Model:
    """Build pixels -> answer with 18 layers; 11,689,512 parameters train with three channels and 1000 classes."""
    return _build_tail("resnet18", (2, 2, 2, 2), shape, answer)


def build_tail34(shape: tuple[int, int, int], answer: Answer) -> keras.Model:
    """Build pixels -> answer with 34 layers; 21,797,672 parameters train with three channels and 1000 classes."""
    return _build_tail("resnet34", (3, 4, 6, 3), shape, answer)


def _build_tail(name: str, n_units: Sequence[int], shape: tuple[int, int, int], answer: Answer) -> keras.Model:
    """Stack basic units of two convolutions; the first unit of each stage but the first halves the maps."""
    pixels = keras.Input(shape, name="pixels")
    maps = _convolved(standardised(pixels), N_FILTERS[0], 7, 2, "conv1")
    maps = keras.layers.ReLU(name="conv1_relu")(maps)
    maps = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="pool1")(maps)
    for stage, (n, n_filters) in enumerate(zip(n_units, N_FILTERS, strict=True), start=2):
        for unit in range(1, n + 1):
            stride = 2 if unit == 1 and stage > 2 else 1
            maps = _basic_unit(maps, n_filters, stride, f"conv{stage}_block{unit}")
    pooled = keras.layers.GlobalAveragePooling2D(name="average")(named_maps(maps))
    return keras.Model(pixels, answer(pooled), name=name)


def _basic_unit(maps: KerasTensor, n_filters: int, stride: int, name: str) -> KerasTensor:
    shortcut = maps
    if stride > 1 or maps.shape[-1] != n_filters:
        shortcut = _convolved(maps, n_filters, 1, stride, f"{name}_0")
    maps = keras.layers.ReLU(name=f"{name}_1_relu")(_convolved(maps, n_filters, 3, stride, f"{name}_1"))
    maps = keras.layers.Add(name=f"{name}_add")([shortcut, _convolved(maps, n_filters, 3, 1, f"{name}_2")])
    return keras.layers.ReLU(name=f"{name}_out")(maps)


def _convolved(maps: KerasTensor, n_filters: int, kernel_px: int, stride: int, name: str) -> KerasTensor:
    """Convolve and normalise."""
    convolution = keras.layers.Conv2D(
        n_filters,
        kernel_px,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )
    return keras.layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_bn")(convolution(maps))
