"""What a format is to the pipeline: a reader of its own layout, and what the reader hands over."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.datasets.params import Change
from deepsky.errors import DataError
from deepsky.formats.params import PicturesParams
from deepsky.imaging.pictures import Picture
from deepsky.imaging.preparation import Preparation

# Reasons of Objects.n_dropped.
UNNAMED = "images that no row names"
UNLABELLED = "objects without a label"
OTHER_CLASSES = "objects of other classes"


@dataclass(frozen=True)
class Objects:
    """What a reader found in its source.

    Attributes:
        rows: one row per object: id and label, and what of ra_deg, dec_deg, run, camcol, field and group the source
            knows.
        classes: class names; their order is the label encoding. For fractions ``(packed.GALAXY,)``.
        decode: (places in the rows, ascending) -> the picture of each, prepared, uint8 (size_px, size_px, channel); or
            the error that says why there is none. Decoded while they are asked for, within a bounded memory; to be
            closed.
        fractions: float32, (n_rows, 37), where they are the target; else None.
        absent: where the source should hold the pictures (FOLDER/ID) of objects that it lists; they are no rows.
        lacking: (file, reason) of objects whose file the archive does not have; they are no rows, and no error.
        n_dropped: what the source holds beside the rows, by reason, counted: "images that no row names" and so on.
        picture_px: (height, width) of the pictures as they come, where a few that were looked at have one size.
    """

    rows: pd.DataFrame
    classes: tuple[str, ...]
    decode: Callable[[Sequence[int]], Generator[Picture | DataError, None, None]]
    fractions: npt.NDArray[np.float32] | None = None
    absent: Sequence[Path] = ()
    lacking: Sequence[tuple[str, str]] = ()
    n_dropped: Mapping[str, int] = field(default_factory=dict)
    picture_px: tuple[int, int] | None = None

    def pictures(self) -> Generator[Picture | DataError, None, None]:
        """Decode the pictures of all rows, in their order; to be closed."""
        return self.decode(range(len(self.rows)))

    def take(self, places: Sequence[int], reason: str) -> "Objects":
        """Keep some rows only; the others' pictures are never decoded.

        Args:
            places: of the rows to keep, ascending.
            reason: by which the others are counted in ``n_dropped``.
        """
        return replace(
            self,
            rows=self.rows.iloc[places].reset_index(drop=True),
            decode=partial(_decode_taken, self.decode, places),
            fractions=None if self.fractions is None else self.fractions[places],
            n_dropped={**self.n_dropped, reason: len(self.rows) - len(places)},
        )


@dataclass(frozen=True)
class Format:
    """One layout of a dataset of pictures; ``registry.FormatFacts`` has what is to be known before it is imported.

    Attributes:
        read: (source, params) -> what it holds. Raises DataError for a source that cannot be used.
        mirrored: pairs of classes that a mirror image turns into each other.
        refused: what must not be done to its images, because they would no longer show what their labels say.
        gray: its pictures have one channel, whatever ``params.gray`` says.
    """

    read: Callable[[Path, PicturesParams], Objects]
    mirrored: tuple[tuple[str, str], ...] = ()
    refused: tuple[Change, ...] = ()
    gray: bool = False


def preparation_of(params: PicturesParams) -> Preparation:
    """Tell how each picture of a dataset is prepared."""
    shape_px = (params.size_px, params.size_px)
    return Preparation(shape_px, params.crop_px, params.denoise, params.denoise_strength, params.gray)


def _decode_taken(
    decode: Callable[[Sequence[int]], Generator[Picture | DataError, None, None]],
    taken: Sequence[int],
    places: Sequence[int],
) -> Generator[Picture | DataError, None, None]:
    return decode([taken[place] for place in places])
