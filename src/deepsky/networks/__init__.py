"""One file per architecture, heads and pretrained weights; one literal registry of each kind."""

from collections.abc import Mapping
from typing import TypeVar

from deepsky.errors import ConfigError
from deepsky.networks import cnn_small, mobilenet, resnet50, vgg16, xception
from deepsky.networks.backbone import Backbone
from deepsky.networks.scratch import ScratchNetwork

T = TypeVar("T")

# Frozen, with a head that learns on their cached features.
BACKBONES: dict[str, Backbone] = {
    "mobilenet": mobilenet.BACKBONE,
    "resnet50": resnet50.BACKBONE,
    "vgg16": vgg16.BACKBONE,
    "xception": xception.BACKBONE,
}
# Trained from the images.
SCRATCH: dict[str, ScratchNetwork] = {
    "cnn_small": ScratchNetwork(cnn_small.build_front, cnn_small.build_tail),
}


def choose(registry: Mapping[str, T], network: str) -> T:
    """Return one entry.

    Raises:
        ConfigError: there is no such network.
    """
    if network not in registry:
        raise ConfigError(f"network {network}", "is unknown", f"choose one of: {', '.join(registry)}")
    return registry[network]
