"""What a network trained from scratch consists of."""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from deepsky.networks.heads import Answer
from deepsky.networks.inputs import ImageSpec


@dataclass(frozen=True)
class ScratchNetwork:
    """One architecture trained from the images.

    Attributes:
        build_front: images and side in px -> preprocessing without weights, run once per image.
        build_tail: shape of the front's output and what the network answers -> what learns; its last convolutional
            maps are the output of a layer named "maps".
    """

    build_front: Callable[[ImageSpec, int], keras.Model]
    build_tail: Callable[[tuple[int, int, int], Answer], keras.Model]
