"""DenseNet (Huang et al. 2016, arXiv:1608.06993) of 121, 169 and 201 layers."""

from collections.abc import Callable

import keras

from deepsky.networks.backbone import Backbone, application, torch_scaling


def _backbone(kind: Callable[..., keras.Model], name: str, weights_digest: str) -> Backbone:
    """Describe one of Keras' networks; a block is a dense block with the transition behind it."""

    def build(size_px: int) -> keras.Model:
        model = application(kind, size_px, name)
        # Keras leaves these two to automatic names, which count up with every network built; they hold no weights.
        pads = [layer for layer in model.layers if isinstance(layer, keras.layers.ZeroPadding2D)]
        for number, pad in enumerate(pads, start=1):
            pad.name = f"pad{number}"
        return model

    return Backbone(
        build=build,
        scale=torch_scaling,
        min_size_px=32,
        block_pattern=r"(conv\d)_block",
        weights_file=f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5",
        weights_folder="densenet",
        weights_digest=weights_digest,
    )


DENSENET121 = _backbone(keras.applications.DenseNet121, "densenet121", "30ee3e1110167f948a6b9946edeeb738")
DENSENET169 = _backbone(keras.applications.DenseNet169, "densenet169", "b8c4d4c20dd625c148057b9ff1c1176b")
DENSENET201 = _backbone(keras.applications.DenseNet201, "densenet201", "c13680b51ded0fb44dff2d8f86ac8bb1")
