"""Xception (Chollet 2016, arXiv:1610.02357)."""

from collections import Counter

import keras

from deepsky.networks.backbone import Backbone, application, tf_scaling


def build(size_px: int) -> keras.Model:
    """Build Xception without top for square images."""
    return _with_fixed_names(application(keras.applications.Xception, size_px, "xception"))


def _with_fixed_names(model: keras.Model) -> keras.Model:
    """Keras leaves the residual paths of Xception to automatic names, which count up with every network built."""
    seen: Counter[str] = Counter()

    def named(layer: keras.layers.Layer) -> keras.layers.Layer:
        config, kind = layer.get_config(), type(layer).__name__.lower()
        if not layer.name.startswith("block"):
            seen[kind] += 1
            config["name"] = f"residual_{kind}_{seen[kind]}"
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=named)


BACKBONE = Backbone(
    build=build,
    scale=tf_scaling,
    min_size_px=71,
    block_pattern=r"(block\d+)_",
    weights_file="xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
    weights_folder="xception",
    weights_digest="b0042744bf5b25fce3cb969f33bebb97",
)
