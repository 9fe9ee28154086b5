"""How many images a frozen network sees at once."""

import math

import keras

from deepsky.cards import memory_bytes
from deepsky.networks.finetune import base_of
from deepsky.networks.params import BatchSize
from deepsky.networks.precision import on_cpu

# More at once is slower on a CPU; and no faster on a card, but for a moment's wait behind each batch.
ON_CPU, LEAST, MOST = 32, 32, 512
# Half of a card is left to another stage on it. Of what a batch may take, its largest map needs a part: beside it stand
# what it is made from, what is made of it, and the scratch memory of a convolution.
_SHARE, _MAPS = 0.25, 4


def images_per_step(wanted: BatchSize, front: keras.Model) -> int:
    """Return how many images make a batch.

    Args:
        wanted: that many; or ``auto``: 32 on a CPU, and on a card what its memory allows.
        front: image -> features, with the network in it.
    """
    if wanted != "auto":
        return wanted
    return ON_CPU if on_cpu() else fitting(memory_bytes(), front)


def fitting(memory: int | None, front: keras.Model) -> int:
    """Return the largest power of two, from LEAST to MOST, whose images a card's memory holds.

    Args:
        memory: of the card, bytes; None: unknown, which gives LEAST.
        front: as for ``images_per_step``.
    """
    maps = [layer.output for model in (front, base_of(front)) for layer in model.layers]
    largest = max(4 * math.prod(one.shape[1:]) for one in maps)  # float32; 16 bits have room to spare
    n_images = int(_SHARE * (memory or 0) / (_MAPS * largest))
    return min(MOST, max(LEAST, 1 << max(0, n_images.bit_length() - 1)))
