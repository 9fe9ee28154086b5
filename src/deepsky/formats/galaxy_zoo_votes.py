"""A data release of Galaxy Zoo: one table of votes, or flags, for hundreds of thousands of galaxies, and pictures.

Source:
    Lintott et al. 2011, MNRAS 410, 166 (table 2: OBJID, P_EL, P_CS, ..., SPIRAL, ELLIPTICAL, UNCERTAIN); Hart et al.
    2016, MNRAS 461, 3663 (Galaxy Zoo 2); Walmsley et al. 2022, MNRAS 509, 3966 (Galaxy Zoo DECaLS).
"""

from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from deepsky.catalogue.tables import are_rounded
from deepsky.errors import DataError
from deepsky.formats.format import UNNAMED, Format, Objects, preparation_of
from deepsky.formats.packing import objects_of
from deepsky.formats.params import PicturesParams
from deepsky.formats.votes import read_batches
from deepsky.imaging.picture_files import PictureFiles


def read(source: Path, params: PicturesParams) -> Objects:
    """Read the pictures of a folder that the release's table gives a class.

    Args:
        source: a folder of ID.jpg (or .png, ...), at any depth, and of the table.
        params: its columns, and how to prepare the pictures.

    Raises:
        DataError: no such folder, a bad table, or two pictures of one id.
    """
    if not source.is_dir():
        problem = "is no folder" if source.exists() else "does not exist"
        raise DataError(source, problem, f"name the folder that holds the pictures and {params.labels}")
    return read_voted(PictureFiles(source), source / str(params.labels), params)


def read_voted(files: PictureFiles, table: Path, params: PicturesParams) -> Objects:
    """Read as ``read`` does, wherever pictures and table lie.

    A galaxy has the class whose column holds at least ``least_vote``, if there is one such column and no second. Most
    rows of a release have no picture here; of them nothing is kept but their number.

    Args:
        files: the pictures.
        table: CSV, Parquet or FITS.
        params: as for ``read``.
    """
    stems = frozenset(PurePosixPath(name).stem for name in files.names)
    ids, codes, n_rows, first = [np.empty(0, object)], [np.empty(0, np.int64)], 0, ""
    for names, votes in read_batches(table, str(params.id_column), params.class_columns):
        first = first or names[0]
        n_rows += len(names)
        here = np.fromiter((name in stems for name in names), bool, len(names))
        meets = votes[here] >= params.least_vote
        ids.append(names[here])
        codes.append(np.where(meets.sum(axis=1) == 1, meets.argmax(axis=1), -1))
    rows = pd.DataFrame({"id": np.concatenate(ids), "code": np.concatenate(codes)})
    _check_ids(rows["id"], table, files, n_rows, first)
    found = files.by_stem(rows["id"])
    kept = rows[rows["code"] >= 0]
    labels = np.array(params.classes, object)[kept["code"].to_numpy(int)]
    kept = pd.DataFrame({"id": kept["id"], "label": labels, "picture": kept["id"].map(found)})
    n_dropped = {
        UNNAMED: len(files.names) - len(found),
        "rows without a picture": n_rows - len(rows),
        "galaxies of no class, or of several": len(rows) - len(kept),
    }
    return objects_of(kept, params.classes, files, preparation_of(params), n_dropped=n_dropped)


def _check_ids(ids: pd.Series, table: Path, files: PictureFiles, n_rows: int, first: str) -> None:
    if n_rows and ids.empty:
        problem = f"none of its {n_rows:,} rows (the first: {first}) names one of {len(files.names):,} pictures"
        picture = f" (the first: {files.names[0]})" if files.names else ""
        ruined = are_rounded(pd.Series([first])).any()
        remedy = (
            "its ids were rounded by a spreadsheet: take the table as published" if ruined else "name the id column"
        )
        raise DataError(table, problem + picture, remedy)
    repeated = ids[ids.duplicated()]
    if len(repeated):
        raise DataError(table, f"galaxy {repeated.iloc[0]} occurs more than once", "keep one row per galaxy")


FORMAT = Format(read)
