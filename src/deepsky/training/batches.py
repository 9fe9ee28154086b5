"""Batches of rows: read from the memory map some steps ahead of the network, never all at once."""

import math
import time

import keras
import numpy as np
import numpy.typing as npt

from deepsky.training.examples import Array, Examples
from deepsky.training.recipe import Recipe

STEPS_AHEAD = 2


class SplitBatches(keras.utils.PyDataset):
    """The rows of one split in steps; Keras reads the next ones while the network works on this one.

    Attributes:
        ready_s: when each step of this epoch was read, by ``time.perf_counter``.
    """

    def __init__(self, examples: Examples, split: str, batch_size: int) -> None:
        """Take the rows in their order."""
        # Under TensorFlow one worker means tf.data, whose tuner (2.21) sleeps 10, 20, 40, ... ms: an epoch's end may
        # wait until it wakes, for up to as long as the epoch took. Two mean threads of Keras' own, which need 0.1 s to
        # end an epoch: more than the tuner costs where rows are features. Under JAX, which has no tuner, they would
        # give the steps of one epoch to the next. See docs/decisions/0011.
        is_slow = examples.inputs.ndim == 4 and keras.backend.backend() == "tensorflow"
        super().__init__(workers=2 if is_slow else 1, max_queue_size=STEPS_AHEAD)
        self._examples, self._batch_size = examples, batch_size
        self._order = examples.rows(split)
        self.ready_s: dict[int, float] = {}

    def __len__(self) -> int:
        """Return the steps of an epoch."""
        return math.ceil(len(self._order) / self._batch_size)

    def __getitem__(self, step: int) -> tuple[Array, ...]:
        """Return images and targets of one step."""
        batch = self._read(step, self._order)
        self.ready_s[step] = time.perf_counter()
        return batch

    def _read(self, step: int, order: npt.NDArray[np.int64]) -> tuple[Array, ...]:
        rows = order[step * self._batch_size : (step + 1) * self._batch_size]
        return self._examples.inputs[self._examples.image[rows]], self._examples.targets[rows]


class TrainBatches(SplitBatches):
    """The train rows: an order of its own for each epoch, blended and weighted as the recipe says."""

    def __init__(self, examples: Examples, recipe: Recipe, first_epoch: int = 0) -> None:
        """Start with the order of epoch ``first_epoch``, which counts from 0."""
        super().__init__(examples, "train", recipe.batch_size)
        self._rows, self._recipe, self._epoch = self._order, recipe, first_epoch - 1
        self._weights = balance(examples.targets[self._rows]) if recipe.class_weights == "balanced" else None
        self.on_epoch_end()

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's order."""
        self._epoch += 1
        self._order = np.random.default_rng([self._recipe.seed, self._epoch]).permutation(self._rows)

    def _read(self, step: int, order: npt.NDArray[np.int64]) -> tuple[Array, ...]:
        epoch = self._epoch
        images, targets = super()._read(step, order)
        if self._recipe.mixup:
            random = np.random.default_rng([self._recipe.seed, epoch, step])
            images, targets = blend(images, targets, self._recipe.mixup, random)
        return (images, targets) if self._weights is None else (images, targets, targets @ self._weights)


def balance(targets: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a weight for each class, (n_classes,), under which all weigh the same and the mean row weighs 1."""
    counts = targets.sum(axis=0)
    return (len(targets) / np.maximum(counts, 1) / max(1, np.count_nonzero(counts))).astype(np.float32)


def blend(
    images: Array, targets: npt.NDArray[np.float32], alpha: float, random: np.random.Generator
) -> tuple[Array, npt.NDArray[np.float32]]:
    """Blend each image, and its target, with another one of the batch.

    Args:
        images: (n, height, width, channel); what comes back has their dtype, uint8 rounded.
        targets: (n, n_outputs).
        alpha: of the symmetric Beta distribution of the shares.
        random: draws shares and partners.

    Source:
        mixup: Zhang et al. 2017, arXiv:1710.09412.
    """
    share = random.beta(alpha, alpha, len(images)).astype(np.float32)[:, None]
    other = random.permutation(len(images))
    wide = share[:, :, None, None]
    blended = wide * images + (1 - wide) * images[other]
    if images.dtype == np.uint8:
        blended = np.rint(blended, out=blended)
    return blended.astype(images.dtype), share * targets + (1 - share) * targets[other]
