"""What is learned from: inputs, what each row shows and what there is to learn of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.datasets.packed import Packed
from deepsky.errors import DataError

SPLITS = ("train", "val", "test")
_REMEDY = "run dvc repro to write it again"
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Examples:
    """Rows with their inputs; several rows may share one input.

    Attributes:
        inputs: (n_images, height, width, channel), uint8 or float32, usually a memory map; or features of the images,
            (n_images, n_features).
        image: which input each row shows, (n_rows,), int64.
        targets: one-hot class or vote fractions of each row, (n_rows, n_outputs), float32.
        split: ``train``, ``val`` or ``test`` of each row, (n_rows,).
    """

    inputs: Array
    image: npt.NDArray[np.int64]
    targets: npt.NDArray[np.float32]
    split: npt.NDArray[np.str_]

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Return the rows of one split."""
        return np.flatnonzero(self.split == split)

    def inputs_of(self, rows: npt.NDArray[np.int64]) -> Array:
        """Return a copy of the inputs of some rows."""
        return np.asarray(self.inputs[self.image[rows]])

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Return the class index of each row, (n_rows,)."""
        return self.targets.argmax(axis=1)

    def check(self, *, needs_val: bool) -> None:
        """Refuse what nothing can be learned from.

        Args:
            needs_val: whether something is chosen by the val rows; else there may be none.

        Raises:
            DataError: a split holds no rows that the fit needs.
        """
        for split in ("train", "val") if needs_val else ("train",):
            if not len(self.rows(split)):
                raise DataError(
                    f"split {split}", "holds no rows", "give more objects, or other fractions in params.yaml: split"
                )

    def check_finite(self) -> None:
        """Refuse inputs that are no numbers; it reads all of them.

        Raises:
            DataError: names the first one.
        """
        for image, one in enumerate(self.inputs):
            if not np.isfinite(one).all():
                raise DataError(f"image {image}", "is not finite", "look for NaN pixels in that image")


def examples_of(packed: Packed, split: npt.NDArray[np.str_], features: Array | None = None) -> Examples:
    """Return the rows of a dataset with what there is to learn of each.

    Args:
        packed: the dataset.
        split: ``train``, ``val`` or ``test`` of each row.
        features: what is learned from in place of the images, n_images first.
    """
    if packed.fractions is not None:
        targets = np.asarray(packed.fractions)
    else:
        targets = np.eye(len(packed.card.classes), dtype=np.float32)[packed.labels]
    inputs = packed.images if features is None else features
    return Examples(inputs, packed.rows["image"].to_numpy(np.int64), targets, split)


def read_split(path: Path, packed: Packed) -> npt.NDArray[np.str_]:
    """Return the split of each row of a dataset.

    Raises:
        DataError: not a split file, or one of other objects.
    """
    split = _of_rows(path, packed, "split")
    unknown = np.flatnonzero(~np.isin(split, SPLITS))
    if len(unknown):
        where = packed.rows["id"].iloc[unknown[0]]
        raise DataError(path, f"object {where} has the split {str(split[unknown[0]])!r}", _REMEDY)
    return split


def read_groups(path: Path, packed: Packed) -> npt.NDArray[np.str_]:
    """Return what of a split's groups each row of a dataset belongs to.

    Raises:
        DataError: not a split file, or one of other objects.
    """
    group = _of_rows(path, packed, "group")
    if not np.char.str_len(group).all():
        where = packed.rows["id"].iloc[int(np.flatnonzero(np.char.str_len(group) == 0)[0])]
        raise DataError(path, f"object {where} has no group", _REMEDY)
    return group


def _of_rows(path: Path, packed: Packed, column: str) -> npt.NDArray[np.str_]:
    """Return a column of a split file for each row of a dataset; empty where it has no such row."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("id")[column]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(path, f"is not a split ({error})", _REMEDY) from error
    if table.empty:
        raise DataError(
            path, "is empty: no run learns from its dataset", "enter one below runs in params.yaml, then dvc repro"
        )
    return packed.rows["id"].map(table).fillna("").to_numpy(str)
