"""VGG16 (Simonyan & Zisserman 2014, arXiv:1409.1556)."""

import keras

from deepsky.networks.backbone import Backbone, application, caffe_scaling


def build(size_px: int) -> keras.Model:
    """Build VGG16 without top for square images."""
    return application(keras.applications.VGG16, size_px, "vgg16")


BACKBONE = Backbone(
    build=build,
    scale=caffe_scaling,
    min_size_px=32,
    block_pattern=r"(block\d+)_",
    weights_file="vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    weights_folder="vgg16",
    weights_digest="6d6bbae143d832006294945121d1f1fc",
)
