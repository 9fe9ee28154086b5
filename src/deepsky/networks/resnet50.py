"""ResNet50 (He et al. 2015, arXiv:1512.03385)."""

import keras

from deepsky.networks.backbone import Backbone, application, caffe_scaling


def build(size_px: int) -> keras.Model:
    """Build ResNet50 without top for square images."""
    return application(keras.applications.ResNet50, size_px, "resnet50")


BACKBONE = Backbone(
    build=build,
    scale=caffe_scaling,
    min_size_px=32,
    weights_file="resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    weights_folder="resnet",
    weights_digest="4d473c1dd8becc155b73f8504c6f6626",
)
