"""VGG16 (Simonyan & Zisserman 2014, arXiv:1409.1556)."""

import keras
from keras import KerasTensor

from deepsky.networks.backbone import Backbone, application
from deepsky.networks.inputs import CaffeScaling


def build(size_px: int) -> keras.Model:
    """Build VGG16 without top for square images."""
    return application(keras.applications.VGG16, size_px, "vgg16")


def scale(rgb: KerasTensor) -> KerasTensor:
    """RGB in 0..255 -> BGR around 0."""
    return CaffeScaling(name="scaling")(rgb)


BACKBONE = Backbone(
    build=build,
    scale=scale,
    min_size_px=32,
    weights_file="vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    weights_folder="vgg16",
    weights_digest="6d6bbae143d832006294945121d1f1fc",
)
