"""Galaxy Zoo 1 in folders: SDSS images of galaxies in one folder per class, named by objID.

Source:
    Lintott et al. 2011, MNRAS 410, 166: the six classes that the volunteers chose from.
"""

from pathlib import Path, PurePosixPath

import pandas as pd

from deepsky.errors import DataError
from deepsky.formats.format import Format, Objects, preparation_of
from deepsky.formats.packing import objects_of
from deepsky.formats.params import PicturesParams
from deepsky.imaging.picture_files import PictureFiles

CLASSES = ("elliptical", "spiral clockwise", "spiral anticlockwise", "edge-on", "don't know", "merger")
_LARGEST_ID = 2**63 - 1


def read(source: Path, params: PicturesParams) -> Objects:
    """Read the folders.

    Args:
        source: a folder (or zip) of ``CLASS/OBJID.jpg``; a class' folder may write _ or a space for what is between
            its words, and leave out the apostrophe: ``edge-on``, ``edge_on``, ``dont_know``.
        params: how to prepare the images.

    Returns:
        The galaxies in the order of their objIDs; group_by: objid keeps those of one SDSS field together.

    Raises:
        DataError: no images, a folder of another name, an image whose name is no objID, or two of one.
    """
    files = PictureFiles(source)
    if not files.names:
        raise DataError(source, "holds no images", "put CLASS/OBJID.jpg there")
    known = {_plain(name): name for name in CLASSES}
    ids, labels = [], []
    for name in files.names:
        path = PurePosixPath(name)
        if _plain(path.parent.name) not in known:
            problem = f"stands in the folder {path.parent.name!r}, which names no class"
            raise DataError(source / name, problem, f"known classes are {', '.join(CLASSES)}")
        if not (path.stem.isascii() and path.stem.isdigit() and int(path.stem) <= _LARGEST_ID):
            raise DataError(source / name, "is not named by an SDSS objID", "name it OBJID.jpg")
        ids.append(path.stem)
        labels.append(known[_plain(path.parent.name)])
    files.by_stem(ids)  # refuses two images of one id
    rows = pd.DataFrame({"id": ids, "label": labels, "picture": files.names})
    rows = rows.sort_values("id", key=lambda column: column.astype("int64"), ignore_index=True)
    return objects_of(rows, CLASSES, files, preparation_of(params))


def _plain(name: str) -> str:
    """Reduce a folder's name to what tells the classes apart."""
    return "".join(letter for letter in name.lower() if letter.isalpha())


FORMAT = Format(read, mirrored=(("spiral clockwise", "spiral anticlockwise"),))
