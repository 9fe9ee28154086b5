"""Batches of packed images: read from the memory map some steps ahead of the network, never all at once."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from deepsky.datasets.packed import Packed
from deepsky.errors import DataError
from deepsky.training.recipes import RecipeParams

Array = npt.NDArray[Any]
STEPS_AHEAD = 2


@dataclass(frozen=True)
class ImageExamples:
    """What is learned from; several rows may share one image.

    Attributes:
        images: (n_images, height, width, channel), uint8 or float32, usually a memory map; or features of them,
            (n_images, n_features).
        image: which image each row shows, (n_rows,), int64.
        targets: one-hot class or vote fractions of each row, (n_rows, n_outputs), float32.
        split: ``train``, ``val`` or ``test`` of each row, (n_rows,).
    """

    images: Array
    image: npt.NDArray[np.int64]
    targets: npt.NDArray[np.float32]
    split: npt.NDArray[np.str_]

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Return the rows of one split."""
        return np.flatnonzero(self.split == split)

    def check(self, params: RecipeParams) -> None:
        """Refuse what nothing can be learned from; val may be empty where nothing is chosen by it.

        Raises:
            DataError: a split holds no rows that the fit needs.
        """
        chosen_by_val = params.keep == "best" or params.patience is not None
        for split in ("train", "val") if chosen_by_val else ("train",):
            if not len(self.rows(split)):
                raise DataError(
                    f"split {split}", "holds no rows", "give more objects, or other fractions in params.yaml: split"
                )


def examples_of(packed: Packed, split: npt.NDArray[np.str_]) -> ImageExamples:
    """Return the rows of a dataset with what there is to learn of each.

    Args:
        packed: the dataset.
        split: ``train``, ``val`` or ``test`` of each row.
    """
    if packed.fractions is not None:
        targets = np.asarray(packed.fractions)
    else:
        targets = np.eye(len(packed.card.classes), dtype=np.float32)[packed.labels]
    return ImageExamples(packed.images, packed.rows["image"].to_numpy(np.int64), targets, split)


class ImageBatches(keras.utils.PyDataset):
    """The rows of one split in steps; Keras reads the next ones while the network works on this one.

    Attributes:
        ready_s: when each step of this epoch was read, by ``time.perf_counter``.
    """

    def __init__(self, examples: ImageExamples, split: str, batch_size: int) -> None:
        """Take the rows in their order."""
        # Under TensorFlow one worker means tf.data, whose tuner (2.21) sleeps 10, 20, 40, ... ms: an epoch's end may
        # wait until it wakes, for up to as long as the epoch took. Two mean threads of Keras' own, which need 0.1 s to
        # end an epoch: more than the tuner costs where rows are features. Under JAX, which has no tuner, they would
        # give the steps of one epoch to the next. See docs/decisions/0011.
        is_slow = examples.images.ndim == 4 and keras.backend.backend() == "tensorflow"
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
        return self._examples.images[self._examples.image[rows]], self._examples.targets[rows]


class TrainBatches(ImageBatches):
    """The train rows: an order of its own for each epoch, blended and weighted as the recipe says."""

    def __init__(self, examples: ImageExamples, params: RecipeParams, first_epoch: int = 0) -> None:
        """Start with the order of epoch ``first_epoch``, which counts from 0."""
        super().__init__(examples, "train", params.batch_size)
        self._rows, self._params, self._epoch = self._order, params, first_epoch - 1
        self._weights = balance(examples.targets[self._rows]) if params.class_weights == "balanced" else None
        self.on_epoch_end()

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's order."""
        self._epoch += 1
        self._order = np.random.default_rng([self._params.seed, self._epoch]).permutation(self._rows)

    def _read(self, step: int, order: npt.NDArray[np.int64]) -> tuple[Array, ...]:
        epoch = self._epoch
        images, targets = super()._read(step, order)
        if self._params.mixup:
            random = np.random.default_rng([self._params.seed, epoch, step])
            images, targets = blend(images, targets, self._params.mixup, random)
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


class InputWait(keras.callbacks.Callback):
    """Add ``input_wait_share`` to each epoch's logs: the share of its time in which no step had its images.

    What passes before, between and behind the steps counts; what the backend does to bring a batch to the device, once
    it was read, is the step's own. The very first step, in which the network is compiled, is left out.
    """

    def __init__(self, batches: ImageBatches) -> None:
        super().__init__()
        self._batches = batches
        self._compiled = False
        self._started_s, self._begun_s, self._ended_s, self._busy_s = 0.0, 0.0, 0.0, 0.0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Start the clock."""
        self._started_s, self._ended_s, self._busy_s = time.perf_counter(), 0.0, 0.0

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Note when the network could have begun."""
        self._begun_s = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Add up how long it was at work."""
        now_s = time.perf_counter()
        if self._compiled:
            self._busy_s += now_s - max(self._begun_s, self._batches.ready_s[batch])
        else:
            self._compiled, self._started_s = True, now_s

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Stop the clock where the validation begins."""
        self._ended_s = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Put the share into the logs: 0 where the only step was the one that compiles."""
        assert logs is not None
        whole_s = (self._ended_s or time.perf_counter()) - self._started_s
        logs["input_wait_share"] = 1 - self._busy_s / whole_s if self._busy_s else 0.0
