"""A dataset on disk: distinct images in one memory-mapped array, and one row per object that points into it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.errors import DataError

ROW_COLUMNS = ("id", "label", "image", "run", "camcol", "field", "ra_deg", "dec_deg", "edge", "group")


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
    """

    kind: Literal["uint8", "flux"]
    bands: tuple[str, ...]
    colour_bands: tuple[str, ...]
    classes: tuple[str, ...]
    pixel_scale_arcsec: float | None
    n_skipped: int
    crop_px: int | None = None


@dataclass(frozen=True)
class Packed:
    """An opened dataset; images stay on disk until they are sliced.

    Attributes:
        images: (n, height, width, channel), uint8 or float32, read-only memory map.
        rows: one row per object with ROW_COLUMNS; ``image`` indexes ``images``.
        card: what the numbers mean.
    """

    images: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    rows: pd.DataFrame
    card: DatasetCard

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class index of each row, (n_rows,), int64."""
        order = {name: code for code, name in enumerate(self.card.classes)}
        return self.rows["label"].map(order).to_numpy(np.int64)


def create_images(folder: Path, shape: tuple[int, int, int, int], dtype: npt.DTypeLike) -> np.memmap:
    """Create ``folder/images.npy`` as a writable memory map, filled with zeros."""
    return np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=dtype, shape=shape)


def write_rows(folder: Path, rows: pd.DataFrame, card: DatasetCard, skipped: Sequence[tuple[str, str]]) -> None:
    """Write what stands beside images.npy: rows.csv, dataset.json and skipped.csv.

    Args:
        folder: the dataset's (temporary) folder.
        rows: one row per object; columns of ROW_COLUMNS that are missing are written empty.
        card: what the numbers mean.
        skipped: (file, reason) of everything left out.
    """
    rows.reindex(columns=list(ROW_COLUMNS)).to_csv(folder / "rows.csv", index=False, lineterminator="\n")
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
            na_values={column: [""] for column in ROW_COLUMNS[3:]},
        )
        text: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
        entries: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in text.items()}
        card = DatasetCard(**entries)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(folder, f"is not a packed dataset ({error})", "run dvc repro to write it again") from error
    return Packed(images, rows, card)
