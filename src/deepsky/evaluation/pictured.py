"""What pictures of a run are chosen from: its answers beside the dataset that they are about."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.datasets.packed import Packed, open_packed
from deepsky.datasets.shown import shown
from deepsky.errors import DataError
from deepsky.evaluation.tiles import Picture
from deepsky.evaluation.trained import REMEDY, Trained

Rows = npt.NDArray[np.int64]  # places among a dataset's rows


@dataclass(frozen=True)
class Pictured:
    """One run.

    Attributes:
        packed: the dataset it learned from.
        predictions: its answers, one row per row of the dataset in its order.
        seed: of the choice of examples.
        tested_on: the split whose rows test: val where there is no test part.
    """

    packed: Packed
    predictions: pd.DataFrame
    seed: int
    tested_on: str = "test"

    @property
    def classes(self) -> tuple[str, ...]:
        """Return their names, in the order of the answers."""
        return self.packed.card.classes

    @cached_property
    def labels(self) -> Rows:
        """Return the true class of each row, as its place among the classes."""
        order = {name: code for code, name in enumerate(self.classes)}
        return self.predictions["label"].map(order).to_numpy(np.int64)

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
        rows = np.flatnonzero(self.predictions["split"] == (self.tested_on if split == "test" else split))
        return np.random.default_rng([self.seed, len(rows)]).permutation(rows)

    def place(self, row: int) -> int:
        """Return which of the dataset's images shows a row."""
        return int(self.packed.rows["image"].iat[row])

    def images(self, rows: Sequence[int] | Rows) -> npt.NDArray[Any]:
        """Return the image of each row."""
        return np.stack([self.packed.images[self.place(row)] for row in rows])

    def picture(self, row: int) -> Picture:
        """Return a row's image as a person wants to see it."""
        picture = shown(self.packed.images[self.place(row)], self.packed.card)
        return np.repeat(picture[..., np.newaxis], 3, axis=2) if picture.ndim == 2 else np.asarray(picture)


def open_pictured(one: Trained, packed: Path) -> Pictured:
    """Open the dataset that a run learned from beside its answers.

    Args:
        one: the run; its own seed chooses the examples.
        packed: the dataset.

    Raises:
        DataError: the dataset is not whole, or not the run's.
    """
    opened = open_packed(packed)
    if opened.rows["id"].tolist() != one.predictions["id"].tolist():
        raise DataError(one.folder / "predictions.csv", f"has other objects than {packed}", REMEDY)
    return Pictured(opened, one.predictions, one.facts["params"]["seed"], one.facts["tested_on"])
