"""Datasets as ``keras.datasets`` hands them out: x_train, y_train, x_test and y_test in one ``.npz``."""

import zipfile
import zlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.errors import DataError
from deepsky.formats.format import Objects, preparation_of
from deepsky.formats.packing import AHEAD
from deepsky.formats.params import PicturesParams
from deepsky.imaging.pictures import Picture
from deepsky.parallel import in_threads

Arrays = dict[str, npt.NDArray[Any]]
PARTS = ("train", "test")
_UNREADABLE = (
    OSError, ValueError, TypeError, AttributeError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip


def read_arrays(source: Path, params: PicturesParams, shape: tuple[int, ...], classes: tuple[str, ...]) -> Objects:
    """Read both parts, the train part first.

    Args:
        source: ``.npz`` with x_train and x_test (n, *shape) uint8, and y_train and y_test (n,) or (n, 1), the places
            of the labels in ``classes``.
        params: how to prepare the images.
        shape: (height, width) of gray images, (height, width, 3) of coloured ones.
        classes: their names.

    Returns:
        The group of a row is its part (``group_by: given`` keeps the published test part); its id is the part and
        the place in it, from 0.

    Raises:
        DataError: not such a file.
        ConfigError: ``crop_px`` is larger than the images.
    """
    params.check_crop(source, min(shape[:2]))
    arrays, tables = _load(source), []
    for part in PARTS:
        labels = _check_part(source, arrays, part, shape, len(classes))
        ids = [f"{part}-{place:06d}" for place in range(len(labels))]
        tables.append(pd.DataFrame({"id": ids, "label": np.array(classes, object)[labels], "group": part}))
    rows, preparation = pd.concat(tables, ignore_index=True), preparation_of(params)
    images = [arrays[f"x_{part}"].reshape(-1, *shape[:2], *shape[2:] or (1,)) for part in PARTS]

    def decode(places: Sequence[int]) -> Generator[Picture | DataError, None, None]:
        n_train = len(images[0])
        pictures = (images[0][place] if place < n_train else images[1][place - n_train] for place in places)
        tasks = zip((f"{rows['id'].iat[place]} of {source}" for place in places), pictures, strict=True)
        return in_threads(lambda task: preparation.apply(*task), tasks, n_ahead=AHEAD)

    return Objects(rows, classes, decode)


def _load(source: Path) -> Arrays:
    remedy = "write it again as keras.datasets gives it (np.savez with x_train, y_train, x_test, y_test)"
    wanted = [f"{kind}_{part}" for part in PARTS for kind in "xy"]
    try:
        with source.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            absent = [key for key in wanted if key not in archive]
            if absent:
                keys = ", ".join(archive) or "none"
                raise DataError(source, f"has no array {absent[0]!r}; its keys are {keys}", remedy)
            return {key: archive[key] for key in wanted}
    except _UNREADABLE as error:
        raise DataError(source, f"is not a whole .npz of arrays ({error})", remedy) from error


def _check_part(
    source: Path, arrays: Arrays, part: str, shape: tuple[int, ...], n_classes: int
) -> npt.NDArray[np.int64]:
    """Check one part; return its labels, (n,)."""
    images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    remedy = "give images of uint8, and one whole number for each as its label"
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        problem = (
            f"x_{part} has the shape {images.shape} and type {images.dtype}, not (n, {', '.join(map(str, shape))})"
        )
        raise DataError(source, f"{problem} of uint8", remedy)
    if labels.shape not in (images.shape[:1], (len(images), 1)) or labels.dtype.kind not in "iu":
        problem = f"y_{part} has the shape {labels.shape} and type {labels.dtype}, not ({len(images)},) of integers"
        raise DataError(source, problem, remedy)
    flat = labels.reshape(-1).astype(np.int64)
    strange = np.flatnonzero((flat < 0) | (flat >= n_classes))
    if len(strange):
        problem = f"y_{part}[{strange[0]}] is {flat[strange[0]]}, not within 0..{n_classes - 1}"
        raise DataError(source, problem, remedy)
    return flat
