"""A folder (or zip) of pictures with a folder for each class, below train, val and test where these are given."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from deepsky.errors import DataError
from deepsky.formats.format import OTHER_CLASSES, Format, Objects, preparation_of
from deepsky.formats.packing import objects_of
from deepsky.formats.params import PicturesParams
from deepsky.imaging.picture_files import PictureFiles

UNSORTED = "pictures in no class folder"  # a reason of Objects.n_dropped
# What people call the parts, in lower case.
_PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
          "test": "test", "testing": "test"}  # fmt: skip


def read(source: Path, params: PicturesParams) -> Objects:
    """Read the folders.

    Args:
        source: folder or zip of CLASS/NAME.jpg or PART/CLASS/NAME.jpg (see ``sorted_pictures``).
        params: which classes, and how to prepare the pictures.

    Returns:
        The pictures by path. The id of each is its name without the suffix where no two pictures share one, else its
        path; its group is its part, where parts are given.

    Raises:
        DataError: no such source, or a folder of an unknown class.
    """
    files = PictureFiles(source)
    rows = sorted_pictures(files.names)
    known = (*params.classes, *params.other_classes)
    unknown = rows[~rows["label"].isin(known)]
    if len(unknown):
        problem = f"stands in the folder {unknown['label'].iloc[0]!r}, which is no known class"
        remedy = f"known classes are {', '.join(known)}: mend the folder or the classes in params.yaml"
        raise DataError(source / unknown["picture"].iloc[0], problem, remedy)
    kept = rows[rows["label"].isin(params.classes)]
    n_dropped = {UNSORTED: len(files.names) - len(rows), OTHER_CLASSES: len(rows) - len(kept)}
    return objects_of(kept, params.classes, files, preparation_of(params), n_dropped=n_dropped)


def sorted_pictures(names: Sequence[str]) -> pd.DataFrame:
    """Tell the class, part and id of each picture by its folders.

    A folder that holds all of them is no class, but what somebody packed them in. If there is a folder train, and one
    for val or test, these are parts. The class is the name of the folder below.

    Args:
        names: paths of pictures, with ``/``.

    Returns:
        picture, label, id and group (``train``, ``val``, ``test``; missing where there are no parts); pictures in no
        class folder are left out.
    """
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    while folders and folders[0] and all(one[:1] == folders[0][:1] for one in folders):
        folders = [one[1:] for one in folders]
    found = {_PARTS.get(one[0].lower()) for one in folders if one}
    has_parts = "train" in found and len(found - {None}) > 1
    parts = [_PARTS.get(one[0].lower()) if has_parts and one else None for one in folders]
    depth = 1 if has_parts else 0
    is_in_part = [part is not None or not has_parts for part in parts]
    labels = [
        one[depth] if len(one) > depth and inside else None for one, inside in zip(folders, is_in_part, strict=True)
    ]
    rows = pd.DataFrame({"picture": names, "label": labels, "group": parts}, dtype=object).dropna(subset="label")
    return rows.assign(id=_ids(rows["picture"])).reset_index(drop=True)


def _ids(names: Sequence[str]) -> list[str]:
    paths = [PurePosixPath(name) for name in names]
    stems = Counter(path.stem for path in paths)
    is_enough = all(number == 1 for number in stems.values())
    return [path.stem if is_enough else path.as_posix() for path in paths]


FORMAT = Format(read)
