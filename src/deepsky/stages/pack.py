"""Stage pack: a folder of images and a label table become one packed dataset."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from deepsky.catalogue.tables import read_objects
from deepsky.datasets.packed import DatasetCard, create_images, write_rows
from deepsky.errors import ConfigError, DataError
from deepsky.files import whole_folder
from deepsky.imaging.badfiles import BadFiles, OnBadFile, keep_images, read_missing, reserve_space
from deepsky.imaging.pictures import PICTURE_SUFFIXES, Picture, fit_picture, read_picture

_CARRIED = {"run": "run", "camcol": "camcol", "field": "field", "ra": "ra_deg", "dec": "dec_deg"}


@dataclass(frozen=True)
class ImagesParams:
    """One entry of ``images`` in params.yaml: a folder of images and its label table.

    Attributes:
        folder: where the images lie, at any depth; labels: their CSV. Both reach ``run`` through dvc.yaml.
        id_column: names each image: the file's name without its suffix.
        label_column: holds the class; classes: those that may occur, in the order of the label encoding.
        size_px: side of the packed images; a picture that is not square is squeezed.
        crop_px: side of the middle square that is kept before resizing; None keeps all.
        group_column: what must stay together in a split (``group_by: group``); None where there is none.
    """

    folder: str
    labels: str
    id_column: str
    label_column: str
    classes: tuple[str, ...]
    size_px: int
    crop_px: int | None = None
    group_column: str | None = None

    def __post_init__(self) -> None:
        for key in ("size_px", "crop_px"):
            side_px = getattr(self, key)
            if side_px is not None and not 8 <= side_px <= 4096:
                raise ValueError(f"{key} must lie between 8 and 4096, not {side_px}")


def run(name: str, params: ImagesParams, on_bad_file: OnBadFile, *, folder: Path, labels: Path, out: Path) -> None:
    """Pack the images that a label table names, in its order; images that it does not name are left alone.

    Images that the folder's missing.csv lists are left out: the archive has none.

    Args:
        name: of the dataset, for the progress bar.
        params: which columns and what size.
        on_bad_file: ``stop`` at the first absent or bad image, or ``skip`` and list them.
        folder: ID.jpg, .jpeg, .png, .tif or .tiff, at any depth.
        labels: CSV.
        out: the packed dataset to write.

    Raises:
        DataError: a bad label table or missing.csv; an absent or bad image under ``stop``; nothing left under ``skip``.
        ConfigError: ``group_column`` is not in the table.
    """
    bad = BadFiles(on_bad_file)
    rows = read_objects(labels, id_column=params.id_column, label_column=params.label_column, classes=params.classes)
    rows = _carry_over(rows, params, labels)
    rows["path"] = _find_images(rows["id"], folder)
    rows = _without_missing(rows, name, bad, folder)
    bad.refuse_if_nothing_left(len(rows), labels)
    _meet_absent(rows, bad, folder, labels)
    rows = rows[rows["path"].notna()].reset_index(drop=True)
    bad.refuse_if_nothing_left(len(rows), labels)
    with whole_folder(out) as packed:
        kept = _pack(name, rows, params, bad, packed)
        bad.refuse_if_nothing_left(len(kept), labels)
        card = DatasetCard(
            "uint8", ("red", "green", "blue"), (), params.classes, None, len(bad.skipped), params.crop_px
        )
        write_rows(packed, rows.loc[kept].assign(image=np.arange(len(kept))), card, bad.skipped)


def _carry_over(rows: pd.DataFrame, params: ImagesParams, labels: Path) -> pd.DataFrame:
    """Keep id, label and whatever the splits can use."""
    known = [column for column in _CARRIED if column in rows.columns]
    carried = rows[["id", "label", *known]].rename(columns=_CARRIED)
    if params.group_column is not None:
        if params.group_column not in rows.columns:
            problem = f"group_column {params.group_column!r} is not a column of {labels}"
            raise ConfigError("params.yaml: images", problem, f"its columns are {', '.join(rows.columns)}")
        carried["group"] = rows[params.group_column]
    return carried


def _find_images(ids: pd.Series, folder: Path) -> list[Path | None]:
    """Find each id's image by its stem; None where there is none.

    Raises:
        DataError: two images for one id.
    """
    found: dict[str, Path] = {}
    wanted = set(ids)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICTURE_SUFFIXES and path.stem in wanted:
            if path.stem in found:
                raise DataError(path, f"is a second image of id {path.stem}, beside {found[path.stem]}", "keep one")
            found[path.stem] = path
    return [found.get(identity) for identity in ids]


def _without_missing(rows: pd.DataFrame, name: str, bad: BadFiles, folder: Path) -> pd.DataFrame:
    missing = {path.stem: (str(path), reason) for path, reason in read_missing(folder).items()}
    lost = rows["path"].isna() & rows["id"].isin(missing)
    bad.leave_out([missing[identity] for identity in rows.loc[lost, "id"]], name)
    return rows[~lost]


def _meet_absent(rows: pd.DataFrame, bad: BadFiles, folder: Path, labels: Path) -> None:
    absent = rows.loc[rows["path"].isna(), "id"]
    if not len(absent):
        return
    if bad.policy == "stop":
        problem = f"{len(absent)} of its {len(rows)} images are absent from {folder}, the first is {absent.iloc[0]}"
        raise DataError(labels, problem, "add them, or set on_bad_file: skip in params.yaml")
    for identity in absent:
        bad.meet(DataError(folder / identity, "image is absent", "add it"))


def _pack(name: str, rows: pd.DataFrame, params: ImagesParams, bad: BadFiles, packed: Path) -> list[int]:
    """Fill images.npy; return the places in ``rows`` of the images it holds, in its order."""
    side_px = params.size_px
    images = create_images(packed, (len(rows), side_px, side_px, 3), np.uint8)
    reserve_space(packed / "images.npy")
    kept: list[int] = []
    pictures = track(_decoded(rows["path"], params), f"packing {name}", len(rows), console=Console(stderr=True))
    for place, picture in enumerate(pictures):
        if isinstance(picture, DataError):
            bad.meet(picture)
        else:
            images[len(kept)] = picture
            kept.append(place)
    if kept:
        images.flush()
        keep_images(packed / "images.npy", range(len(kept)))
    return kept


def _decoded(paths: pd.Series, params: ImagesParams) -> Iterator[Picture | DataError]:
    """Decode in threads (OpenCV frees the interpreter meanwhile), in order, a bounded number ahead."""
    shape_px = (params.size_px, params.size_px)

    def decode(path: Path) -> Picture | DataError:
        try:
            return fit_picture(path, read_picture(path), shape_px=shape_px, crop_px=params.crop_px)
        except DataError as error:
            return error

    n_threads = joblib.cpu_count()
    with ThreadPoolExecutor(n_threads) as pool:
        for start in range(0, len(paths), 64 * n_threads):
            yield from pool.map(decode, paths.iloc[start : start + 64 * n_threads])
