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
    block_pattern=r"conv_(?:pad|dw|pw)_(\d+)",
    weights_file="mobilenet_1_0_224_tf_no_top.h5",
    weights_folder="mobilenet",
    weights_digest="7dee85589794aa9f80808ffa5c319135f5b3107a10c63c0c9e60e3e6560ee937",
    weights_algorithm="sha256",
)
