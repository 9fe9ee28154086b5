"""What a published dataset is to the pipeline: a reader of its own layout, and what the reader hands over."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.datasets.packed import Change, Target
from deepsky.datasets.splits import GroupBy
from deepsky.errors import ConfigError, DataError
from deepsky.imaging.pictures import Picture
from deepsky.imaging.preparation import Denoise, Preparation, check_denoise, check_side

UNNAMED = "images that no row names"  # a reason of Objects.n_dropped


@dataclass(frozen=True)
class CollectionParams:
    """One entry of ``collections`` in params.yaml: a dataset in the layout in which it was published.

    Attributes:
        format: a key of ``datasets.registry.COLLECTIONS``.
        source: the file or folder; reaches ``stages.pack_collection`` through dvc.yaml.
        target: what there is to learn: ``class``, or the 37 vote ``fractions``.
        group_by: what must stay together in a split.
        size_px: side of the packed images; a picture that is not square is squeezed.
        crop_px: side of the middle square that is kept before resizing; None keeps all.
        denoise: how the noise is smoothed; denoise_strength: how much (see ``imaging.preparation``).
        gray: one channel of luminance instead of three of colour.
        sha256: of the source, where the format is one file with a published digest: None takes that one, ``any``
            takes every file.
    """

    format: str
    source: str
    target: Target
    group_by: GroupBy
    size_px: int
    crop_px: int | None = None
    denoise: Denoise = "none"
    denoise_strength: float = 0.0
    gray: bool = False
    sha256: str | None = None

    def __post_init__(self) -> None:
        check_side("size_px", self.size_px)
        check_side("crop_px", self.crop_px)
        check_denoise(self.denoise, self.denoise_strength)

    @property
    def preparation(self) -> Preparation:
        """How each picture is prepared."""
        return Preparation((self.size_px, self.size_px), self.crop_px, self.denoise, self.denoise_strength, self.gray)

    def check_crop(self, source: Path, side_px: int) -> None:
        """Refuse a middle square that no image has, where all are of one size.

        Args:
            source: names them in the error.
            side_px: of each image.

        Raises:
            ConfigError: ``crop_px`` is larger.
        """
        if self.crop_px is not None and self.crop_px > side_px:
            problem = f"is larger than the images of {source}, {side_px} x {side_px} px"
            raise ConfigError(f"crop_px {self.crop_px}", problem, f"lower it to {side_px} or less")


@dataclass(frozen=True)
class Objects:
    """What a reader found in its source.

    Attributes:
        rows: one row per object: id and label, and what of ra_deg, dec_deg and group the source knows.
        classes: class names; their order is the label encoding. For fractions ``(packed.GALAXY,)``.
        pictures: of each row, in the rows' order and prepared, uint8 (size_px, size_px, channel); or the error that
            says why there is none. Decoded while they are asked for, within a bounded memory.
        fractions: float32, (n_rows, 37), where they are the target; else None.
        absent: where the source should hold the pictures (FOLDER/ID) of objects that it lists; they are no rows.
        n_dropped: what the source holds beside the rows, by reason, counted: "images that no row names" and so on.
    """

    rows: pd.DataFrame
    classes: tuple[str, ...]
    pictures: Iterable[Picture | DataError]
    fractions: npt.NDArray[np.float32] | None = None
    absent: Sequence[Path] = ()
    n_dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Collection:
    """One published layout.

    Attributes:
        read: (source, params) -> what it holds. Raises DataError for a source that cannot be used.
        targets: what can be learned from it.
        mirrored: pairs of classes that a mirror image turns into each other.
        refused: what must not be done to its images, because they would no longer show what their labels say.
        gray: its pictures have one channel, whatever ``params.gray`` says.
        sha256: of the published file, where it is one file with a published digest.
        group_by: what ``deepsky add collection`` enters unless it is told.
    """

    read: Callable[[Path, CollectionParams], Objects]
    targets: tuple[Target, ...] = ("class",)
    mirrored: tuple[tuple[str, str], ...] = ()
    refused: tuple[Change, ...] = ()
    gray: bool = False
    sha256: str | None = None
    group_by: GroupBy = "image"
