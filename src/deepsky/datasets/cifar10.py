"""CIFAR-10, small photographs of ten kinds of things: a warm-up that shows that a set-up works. It has no stand-in."""

from pathlib import Path, PurePosixPath

import pandas as pd

from deepsky.datasets.collection import Collection, CollectionParams, Objects
from deepsky.datasets.keras_arrays import PARTS, read_arrays
from deepsky.datasets.packing import objects_of
from deepsky.errors import DataError
from deepsky.imaging.picture_files import PictureFiles

# In the order of the published labels.
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_LAYOUT = "name pictures train/CLASS/NAME.png or test/CLASS/NAME.png"


def read(source: Path, params: CollectionParams) -> Objects:
    """Read the arrays of ``keras.datasets.cifar10``, or pictures.

    Args:
        source: ``.npz`` with x_train, y_train, x_test and y_test; or a folder or zip of train/CLASS/NAME.jpg and
            test/CLASS/NAME.jpg (or .png).
        params: how to prepare the images.

    Returns:
        The group of a row is its part (``group_by: given`` keeps the published test part); its id says where in that
        part it comes from.

    Raises:
        DataError: not such a source; a picture of an unknown part or class; two pictures of one name.

    Source:
        Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
    """
    if source.suffix == ".npz":
        return read_arrays(source, params, (32, 32, 3), CLASSES)
    files = PictureFiles(source)
    if not files.names:
        raise DataError(source, "holds no pictures", _LAYOUT)
    rows = pd.DataFrame([_row(source, name) for name in files.names], columns=["id", "label", "group", "picture"])
    repeated = rows["id"].duplicated()
    if repeated.any():
        _, label, part, name = rows[repeated].iloc[0]
        problem = f"holds two pictures {part}/{label}/{PurePosixPath(name).stem}"
        raise DataError(source, problem, "keep one of each name in a class")
    return objects_of(rows, CLASSES, files, params.preparation)


def _row(source: Path, name: str) -> tuple[str, str, str, str]:
    """Read id, label and part out of a picture's path, and keep that; the folders around the parts do not matter."""
    path = PurePosixPath(name)
    part, label = path.parts[-3:-1] if len(path.parts) >= 3 else ("", "")
    if path.is_absolute() or ".." in path.parts:
        raise DataError(source, f"holds {name}, which leads out of it", "pack the pictures again")
    if part not in PARTS or label not in CLASSES:
        what = f"class {label!r}" if part in PARTS else f"part {part!r}"
        known = ", ".join(CLASSES) if part in PARTS else "train and test"
        raise DataError(source / name, f"is of the unknown {what}; known are {known}", _LAYOUT)
    return f"{part}-{label}-{path.stem}", label, part, name


COLLECTION = Collection(read, group_by="given", refused=("turn",))
