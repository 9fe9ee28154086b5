"""A trained network cut in two, to look into it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy.typing as npt

from deepsky.evaluation.pictured import Pictured, Rows
from deepsky.training.explain import call_once


@dataclass(frozen=True)
class Insight:
    """A run with its network.

    Attributes:
        run: its answers and its dataset.
        front: image -> pixels; None: the tail takes images.
        tail: pixels -> answer to one view, with a layer "maps".
    """

    run: Pictured
    front: keras.Model | None
    tail: keras.Model

    def inputs(self, rows: Sequence[int] | Rows) -> npt.NDArray[Any]:
        """Return what the tail takes for each row."""
        images = self.run.images(rows)
        return images if self.front is None else call_once(self.front, images)
