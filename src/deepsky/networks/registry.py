"""The literal registries of networks: a name -> the module that holds it, imported on demand.

So the code of a network concerns only the runs that use it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deepsky.errors import ConfigError

if TYPE_CHECKING:
    from deepsky.networks.backbone import Backbone
    from deepsky.networks.heads import BuildTail

# With weights from ImageNet: under a head that learns on their cached features, fine-tuned, or from scratch.
BACKBONES = {
    "efficientnet_lite0": "deepsky.networks.efficientnet_lite0:BACKBONE",
    "mobilenet": "deepsky.networks.mobilenet:BACKBONE",
    "resnet50": "deepsky.networks.resnet:RESNET50",
    "resnet101": "deepsky.networks.resnet:RESNET101",
    "resnet152": "deepsky.networks.resnet:RESNET152",
    "densenet121": "deepsky.networks.densenet:DENSENET121",
    "densenet169": "deepsky.networks.densenet:DENSENET169",
    "densenet201": "deepsky.networks.densenet:DENSENET201",
    "vgg16": "deepsky.networks.vgg16:BACKBONE",
    "xception": "deepsky.networks.xception:BACKBONE",
}
# From random weights, with a head of their own.
SCRATCH = {
    "cnn_small": "deepsky.networks.cnn_small:build_tail",
    "alexnet": "deepsky.networks.alexnet:build_tail",
    "resnet18": "deepsky.networks.resnet:build_tail18",
    "resnet34": "deepsky.networks.resnet:build_tail34",
    "regression_512": "deepsky.networks.study_cnns:REGRESSION_512",
    "regression_96_64": "deepsky.networks.study_cnns:REGRESSION_96_64",
    "cnn_mnist": "deepsky.networks.study_cnns:MNIST",
    "cnn_cifar10": "deepsky.networks.study_cnns:CIFAR10",
    "galaxy10_model_1": "deepsky.networks.study_cnns:GALAXY10_1",
    "galaxy10_model_2": "deepsky.networks.study_cnns:GALAXY10_2",
}


def known_networks() -> tuple[str, ...]:
    """Return the names of all networks."""
    return (*BACKBONES, *SCRATCH)


def place_of(network: str) -> str:
    """Return MODULE:NAME of a network.

    Raises:
        ConfigError: there is no such network.
    """
    place = {**BACKBONES, **SCRATCH}.get(network)
    if place is None:
        raise ConfigError(f"network {network}", "is unknown", f"choose one of: {', '.join(known_networks())}")
    return place


def find_backbone(network: str) -> "Backbone":
    """Return a network that has pretrained weights.

    Raises:
        ConfigError: there is no such network, or it has none.
    """
    if network in SCRATCH:
        problem = "has no pretrained weights"
        raise ConfigError(f"network {network}", problem, f"choose one of: {', '.join(BACKBONES)}; or start: scratch")
    found: Backbone = _load(network)
    return found


def find_scratch(network: str) -> "BuildTail":
    """Return what builds a network that has no pretrained weights.

    Raises:
        ConfigError: there is no such network.
    """
    found: BuildTail = _load(network)
    return found


def _load(network: str) -> Any:
    module, _, name = place_of(network).partition(":")
    return getattr(import_module(module), name)
