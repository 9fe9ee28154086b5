"""What a network trained from scratch consists of."""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from deepsky.networks.inputs import ImageSpec


@dataclass(frozen=True)
class ScratchNetwork:
    """One architecture trained from the images.

    Attributes:
        build_front: images and side in px -> preprocessing without weights, run once per image.
        build_tail: shape of the front's output and number of classes -> what learns.
    """

    build_front: Callable[[ImageSpec, int], keras.Model]
    build_tail: Callable[[tuple[int, int, int], int], keras.Model]
