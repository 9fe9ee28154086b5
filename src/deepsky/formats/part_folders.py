"""Datasets as pictures in folders, or in a zip of them, by published part and class."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pandas as pd

from deepsky.errors import DataError
from deepsky.formats.format import Objects, preparation_of
from deepsky.formats.keras_arrays import PARTS
from deepsky.formats.packing import objects_of
from deepsky.formats.params import PicturesParams
from deepsky.imaging.picture_files import PictureFiles

_LAYOUT = "name pictures train/CLASS/NAME.png or test/CLASS/NAME.png"


def may_hold_pictures(source: Path) -> bool:
    """Tell a folder or zip of pictures from a file of arrays; what is not there goes by its name."""
    return source.suffix != ".npz" and (source.suffix == ".zip" or not source.is_file())


def read_pictures(source: Path, params: PicturesParams, classes: tuple[str, ...], *, gray: bool = False) -> Objects:
    """Read both parts.

    Args:
        source: folder or zip of train/CLASS/NAME.jpg and test/CLASS/NAME.jpg (or .png).
        params: how to prepare the images.
        classes: their names.
        gray: keep luminance only, whatever ``params.gray`` says.

    Returns:
        The group of a row is its part (``group_by: given`` keeps the published test part); its id says where in that
        part it comes from.

    Raises:
        DataError: no pictures; one of an unknown part or class; two of one name.
    """
    files = PictureFiles(source)
    if not files.names:
        raise DataError(source, "holds no pictures", _LAYOUT)
    found = [_row(source, name, classes) for name in files.names]
    rows = pd.DataFrame(found, columns=["id", "label", "group", "picture"])
    repeated = rows["id"].duplicated()
    if repeated.any():
        _, label, part, name = rows[repeated].iloc[0]
        problem = f"holds two pictures {part}/{label}/{PurePosixPath(name).stem}"
        raise DataError(source, problem, "keep one of each name in a class")
    return objects_of(rows, classes, files, replace(preparation_of(params), gray=gray or params.gray))


def _row(source: Path, name: str, classes: tuple[str, ...]) -> tuple[str, str, str, str]:
    """Read id, label and part out of a picture's path, and keep that; the folders around the parts do not matter."""
    path = PurePosixPath(name)
    part, label = path.parts[-3:-1] if len(path.parts) >= 3 else ("", "")
    if part not in PARTS or label not in classes:
        what = f"class {label!r}" if part in PARTS else f"part {part!r}"
        known = ", ".join(classes) if part in PARTS else "train and test"
        raise DataError(source / name, f"is of the unknown {what}; known are {known}", _LAYOUT)
    return f"{part}-{label}-{path.stem}", label, part, name
