"""A dataset on disk: distinct images in one memory-mapped array, and one row per object that points into it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.datasets.params import Change, Target
from deepsky.errors import DataError
from deepsky.imaging.params import Denoise

GALAXY = "galaxy"  # the one label of every row whose target is fractions
PROPERTIES = ("r_mag", "snr", "half_light_arcsec")  # of objects: what is known of how hard they are
ROW_COLUMNS = ("id", "label", "image", "run", "camcol", "field", "ra_deg", "dec_deg", "edge", "group", *PROPERTIES)
# What else may be known of an object beside its picture; rows.csv has a column for what is. Nothing learns from it but
# the audit: the catalogue's magnitudes (u_mag ...); x_px, y_px in the frame of the position band; sky_BAND and
# noise_BAND, the level of the sky of that frame and its spread, nanomaggies per pixel; psf_BAND, the width of a star
# there, arcsec; file_bytes.
_BESIDE = re.compile(r"\w_mag|(sky|noise|psf)_\w+|x_px|y_px|file_bytes")


@dataclass(frozen=True)
class DatasetCard:
    """What the numbers of a packed dataset mean.

    Attributes:
        kind: ``uint8`` pictures, or ``flux`` in nanomaggies (float32).
        bands: name of each channel of images.npy, in order.
        colour_bands: the bands shown as red, green and blue (for flux), else empty.
        classes: class names; their order is the label encoding.
        pixel_scale_arcsec: arcsec per pixel of images.npy; None where unknown.
        n_skipped: files left out: bad ones under ``on_bad_file: skip``, and those that the archive does not have.
        crop_px: side of the middle square that was kept of each picture before resizing; None kept all.
        target: what there is to learn of a row: its ``class``, or the 37 vote ``fractions`` of targets.npy; then GALAXY
            is the one class.
        mirrored: pairs of classes that a mirror image turns into each other.
        refused: what must not be done to an image, because it would no longer show what its label says.
        denoise: how the pictures were smoothed, and how much (see ``imaging.params``).
        n_dropped: what the source holds beside the rows, by reason, counted.
        picture_px: (height, width) of the pictures before they were prepared; None where unknown or of many sizes.
    """

    kind: Literal["uint8", "flux"]
    bands: tuple[str, ...]
    colour_bands: tuple[str, ...]
    classes: tuple[str, ...]
    pixel_scale_arcsec: float | None
    n_skipped: int
    crop_px: int | None = None
    target: Target = "class"
    mirrored: tuple[tuple[str, str], ...] = ()
    denoise: Denoise = "none"
    denoise_strength: float = 0.0
    n_dropped: Mapping[str, int] = field(default_factory=dict)
    refused: tuple[Change, ...] = ()
    picture_px: tuple[int, int] | None = None


@dataclass(frozen=True)
class Packed:
    """An opened dataset; images stay on disk until they are sliced.

    Attributes:
        images: (n, height, width, channel), uint8 or float32, read-only memory map.
        rows: one row per object with ROW_COLUMNS, and what is known beside the picture; ``image`` indexes ``images``.
        card: what the numbers mean.
        fractions: what to learn where the card's target is ``fractions``: (n_rows, 37) float32 in the order of
            ``catalogue.decision_tree.COLUMNS``, read-only memory map; else None.
    """

    images: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    rows: pd.DataFrame
    card: DatasetCard
    fractions: npt.NDArray[np.float32] | None = None

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class index of each row, (n_rows,), int64."""
        order = {name: code for code, name in enumerate(self.card.classes)}
        return self.rows["label"].map(order).to_numpy(np.int64)


def create_images(folder: Path, shape: tuple[int, int, int, int], dtype: npt.DTypeLike) -> np.memmap:
    """Create ``folder/images.npy`` as a writable memory map, filled with zeros."""
    return np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=dtype, shape=shape)


def write_rows(
    folder: Path,
    rows: pd.DataFrame,
    card: DatasetCard,
    skipped: Sequence[tuple[str, str]],
    fractions: npt.NDArray[np.float32] | None = None,
) -> None:
    """Write what stands beside images.npy: rows.csv, dataset.json, skipped.csv and, for fractions, targets.npy.

    Args:
        folder: the dataset's (temporary) folder.
        rows: one row per object; columns of ROW_COLUMNS that are missing are written empty, and of others those that
            tell what is known beside the picture.
        card: what the numbers mean.
        skipped: (file, reason) of everything left out.
        fractions: (n_rows, 37), where they are the target.
    """
    if fractions is not None:
        np.save(folder / "targets.npy", fractions.astype(np.float32, copy=False), allow_pickle=False)
    beside = [name for name in rows.columns if _BESIDE.fullmatch(name) and name not in ROW_COLUMNS]
    rows.reindex(columns=[*ROW_COLUMNS, *beside]).to_csv(folder / "rows.csv", index=False, lineterminator="\n")
    (folder / "dataset.json").write_text(json.dumps(asdict(card), indent=2) + "\n")
    pd.DataFrame(skipped, columns=["file", "reason"]).to_csv(folder / "skipped.csv", index=False, lineterminator="\n")


def open_packed(folder: Path) -> Packed:
    """Open a packed dataset.

    Raises:
        DataError: the folder is not a whole packed dataset.
    """
    try:
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        # A class may be called NA or None: only empty cells are missing, and only where a column may be empty.
        rows = pd.read_csv(
            folder / "rows.csv",
            dtype={"id": str, "label": str, "group": str},
            keep_default_na=False,
            na_values={column: [""] for column in pd.read_csv(folder / "rows.csv", nrows=0).columns[3:]},
        )
        text: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
        card = DatasetCard(**{key: tuples_of(value) for key, value in text.items()})
        fractions = np.load(folder / "targets.npy", mmap_mode="r") if card.target == "fractions" else None
        if fractions is not None and (fractions.shape, fractions.dtype) != ((len(rows), len(COLUMNS)), np.float32):
            raise ValueError(f"targets.npy is {fractions.dtype} {fractions.shape}")
    except (OSError, ValueError, TypeError) as error:
        raise DataError(folder, f"is not a packed dataset ({error})", "run dvc repro to write it again") from error
    return Packed(images, rows, card, fractions)


def tuples_of(value: Any) -> Any:
    """Turn the lists that JSON knows back into the tuples of a card."""
    return tuple(tuples_of(item) for item in value) if isinstance(value, list) else value
