"""What pictures of a trained network are drawn from: its answers, the dataset, and the network cut in two."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.datasets.packed import Packed
from deepsky.datasets.shown import shown
from deepsky.evaluation.tiles import Picture
from deepsky.training.explain import call_once

Rows = npt.NDArray[np.int64]  # places among a dataset's rows


@dataclass(frozen=True)
class Pictured:
    """One run.

    Attributes:
        packed: the dataset it learned from.
        predictions: its answers, one row per row of the dataset in its order.
        front: image -> pixels; None: the tail takes images.
        tail: pixels -> answer to one view, with a layer "maps".
        seed: of the choice of examples.
    """

    packed: Packed
    predictions: pd.DataFrame
    front: keras.Model | None
    tail: keras.Model
    seed: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Return their names, in the order of the answers."""
        return self.packed.card.classes

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Return (row, class)."""
        return self.predictions[[f"p_{name}" for name in self.classes]].to_numpy(np.float64)

    @cached_property
    def answers(self) -> Rows:
        """Return the most probable class of each row."""
        return self.probabilities.argmax(axis=1)

    def rows(self, split: str) -> Rows:
        """Return the rows of a split in an order of their own, the same for equal seeds."""
        rows = np.flatnonzero(self.predictions["split"] == split)
        return np.random.default_rng([self.seed, len(rows)]).permutation(rows)

    def images(self, rows: Sequence[int] | Rows) -> npt.NDArray[Any]:
        """Return the image of each row."""
        return np.stack([self.packed.images[place] for place in self.packed.rows["image"].to_numpy()[rows]])

    def picture(self, row: int) -> Picture:
        """Return a row's image as a person wants to see it."""
        picture = shown(self.images([row])[0], self.packed.card)
        return np.repeat(picture[..., np.newaxis], 3, axis=2) if picture.ndim == 2 else picture

    def inputs(self, rows: Sequence[int] | Rows) -> npt.NDArray[Any]:
        """Return what the tail takes for each row."""
        images = self.images(rows)
        return images if self.front is None else call_once(self.front, images)
