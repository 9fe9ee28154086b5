"""One file per architecture, heads and pretrained weights; one literal registry of each kind."""

from collections.abc import Mapping
from typing import TypeVar

from deepsky.errors import ConfigError
from deepsky.networks import (
    alexnet,
    cnn_small,
    densenet,
    galaxy10_cnns,
    mobilenet,
    regression_cnns,
    resnet,
    vgg16,
    xception,
)
from deepsky.networks.backbone import Backbone
from deepsky.networks.cnn_small import build_front
from deepsky.networks.scratch import ScratchNetwork

T = TypeVar("T")

# With weights from ImageNet: frozen under a head that learns on their cached features, or fine-tuned.
BACKBONES: dict[str, Backbone] = {
    "mobilenet": mobilenet.BACKBONE,
    "resnet50": resnet.RESNET50,
    "resnet101": resnet.RESNET101,
    "resnet152": resnet.RESNET152,
    "densenet121": densenet.DENSENET121,
    "densenet169": densenet.DENSENET169,
    "densenet201": densenet.DENSENET201,
    "vgg16": vgg16.BACKBONE,
    "xception": xception.BACKBONE,
}
# Trained from the images.
SCRATCH: dict[str, ScratchNetwork] = {
    "cnn_small": ScratchNetwork(build_front, cnn_small.build_tail),
    "alexnet": ScratchNetwork(build_front, alexnet.build_tail),
    "resnet18": ScratchNetwork(build_front, resnet.build_tail18),
    "resnet34": ScratchNetwork(build_front, resnet.build_tail34),
    "regression_512": ScratchNetwork(build_front, regression_cnns.build_tail_512),
    "regression_96_64": ScratchNetwork(build_front, regression_cnns.build_tail_96_64),
    "galaxy10_model_1": ScratchNetwork(build_front, galaxy10_cnns.build_tail_1),
    "galaxy10_model_2": ScratchNetwork(build_front, galaxy10_cnns.build_tail_2),
}


def choose(registry: Mapping[str, T], network: str) -> T:
    """Return one entry.

    Raises:
        ConfigError: there is no such network.
    """
    if network not in registry:
        raise ConfigError(f"network {network}", "is unknown", f"choose one of: {', '.join(registry)}")
    return registry[network]
