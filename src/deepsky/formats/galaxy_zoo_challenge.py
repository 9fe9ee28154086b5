"""The Galaxy Zoo challenge: 61,578 galaxies with 37 vote fractions, or the five clean classes among them.

Source:
    The challenge "Galaxy Zoo" (2013), files ``images_training_rev1.zip`` and ``training_solutions_rev1.csv``.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.datasets.packed import GALAXY
from deepsky.errors import DataError
from deepsky.formats.format import UNNAMED, Format, Objects, preparation_of
from deepsky.formats.packing import objects_of
from deepsky.formats.params import PicturesParams
from deepsky.formats.solutions import read_solutions
from deepsky.imaging.picture_files import PictureFiles

_SOLUTIONS = ("training_solutions_rev1.csv", "training_solutions_rev1.parquet")
_IMAGES = ("images_training_rev1", "images_training_rev1.zip")

# The least fractions that a galaxy of each class has. As fractions of a question sum to that of the way to it, no
# galaxy has those of two classes, but for one of exactly half round and half in-between votes, which is neither.
# Source: Zhu et al. 2019, Ap&SS 364, 55, table 1.
THRESHOLDS = {
    "round": {"Class1.1": 0.469, "Class7.1": 0.50},
    "in-between": {"Class1.1": 0.469, "Class7.2": 0.50},
    "cigar": {"Class1.1": 0.469, "Class7.3": 0.50},
    "edge-on": {"Class1.2": 0.430, "Class2.1": 0.602},
    "spiral": {"Class1.2": 0.430, "Class2.2": 0.715, "Class4.1": 0.619},
}
CLASSES = tuple(THRESHOLDS)


def clean_classes(fractions: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Tell the clean class of each galaxy.

    Args:
        fractions: (n, 37), in the order of ``catalogue.decision_tree.COLUMNS``.

    Returns:
        Indices of CLASSES, (n,), int64; -1 for a galaxy of none.
    """
    meets = np.array(
        [
            np.all([fractions[:, COLUMNS.index(column)] >= least for column, least in wanted.items()], axis=0)
            for wanted in THRESHOLDS.values()
        ]
    )
    return np.where(meets.sum(axis=0) == 1, meets.argmax(axis=0), -1)


def read(source: Path, params: PicturesParams) -> Objects:
    """Read the challenge's folder.

    Args:
        source: the folder, with the solutions as ``.csv`` or ``.parquet`` (a file, or a folder of parts as Spark
            writes it), and the images as a folder or a zip of ``GALAXYID.jpg``.
        params: what to learn and how to prepare the images.

    Returns:
        The galaxies in the order of the solutions; for classes without those of no class, whose images are not
        decoded.

    Raises:
        DataError: the solutions cannot be used, or a file is missing.
    """
    solutions = read_solutions(_one_of(source, _SOLUTIONS))
    files = PictureFiles(_one_of(source, _IMAGES))
    found = files.by_stem(solutions.ids.astype(str))
    n_dropped = {UNNAMED: len(files.names) - len(found)}
    preparation = preparation_of(params)
    if params.target == "class":
        code = clean_classes(solutions.fractions)
        n_dropped["galaxies of no clean class"] = int((code < 0).sum())
        kept = code >= 0
        rows = pd.DataFrame({"id": solutions.ids[kept].astype(str), "label": np.array(CLASSES)[code[kept]]})
        rows["picture"] = rows["id"].map(found)
        return objects_of(rows, CLASSES, files, preparation, n_dropped=n_dropped)
    rows = pd.DataFrame({"id": solutions.ids.astype(str), "label": GALAXY})
    rows["picture"] = rows["id"].map(found)
    return objects_of(rows, (GALAXY,), files, preparation, fractions=solutions.fractions, n_dropped=n_dropped)


def _one_of(source: Path, names: tuple[str, str]) -> Path:
    """Find the one form in which a part of the challenge is there."""
    present = [source / name for name in names if (source / name).exists()]
    if len(present) == 1:
        return present[0]
    if present:
        raise DataError(source, f"holds both {names[0]} and {names[1]}", "keep one of them")
    archive = f"{Path(names[0]).stem}.zip"
    remedy = f"unpack {archive} there" if (source / archive).exists() else "put the challenge's files there"
    raise DataError(source, f"holds neither {names[0]} nor {names[1]}", remedy)


FORMAT = Format(read)
