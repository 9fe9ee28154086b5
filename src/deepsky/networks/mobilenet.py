"""MobileNet v1, alpha 1.0 (Howard et al. 2017, arXiv:1704.04861)."""

import keras

from deepsky.networks.backbone import Backbone, application, tf_scaling


def build(size_px: int) -> keras.Model:
    """Build MobileNet without top for square images."""
    return application(keras.applications.MobileNet, size_px, "mobilenet")


BACKBONE = Backbone(
    build=build,
    scale=tf_scaling,
    min_size_px=32,
    weights_file="mobilenet_1_0_224_tf_no_top.h5",
    weights_folder="mobilenet",
    weights_md5=None,
)
