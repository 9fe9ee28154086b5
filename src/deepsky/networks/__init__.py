"""One file per architecture, heads and pretrained weights; one literal registry of each kind."""

from deepsky.networks import cnn_small, mobilenet, resnet50, vgg16, xception
from deepsky.networks.backbone import Backbone
from deepsky.networks.scratch import ScratchNetwork

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
