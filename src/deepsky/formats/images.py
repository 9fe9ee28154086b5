"""A folder of pictures with a table of labels: what a person brings himself, and what stage fetch brings."""

from pathlib import Path

import pandas as pd

from deepsky.catalogue.tables import read_objects
from deepsky.errors import ConfigError, DataError
from deepsky.formats.format import UNNAMED, Format, Objects, preparation_of
from deepsky.formats.packing import objects_of
from deepsky.formats.params import PicturesParams
from deepsky.imaging.badfiles import read_missing
from deepsky.imaging.picture_files import PictureFiles

_CARRIED = {"run": "run", "camcol": "camcol", "field": "field", "ra": "ra_deg", "dec": "dec_deg"}


def read(source: Path, params: PicturesParams) -> Objects:
    """Read the pictures that the table names, in its order; others are left alone.

    Args:
        source: a folder of ID.jpg, .jpeg, .png, .tif or .tiff, at any depth, and of the table. Pictures that its
            missing.csv lists are left out: the archive has none.
        params: which columns, and how to prepare the pictures.

    Raises:
        DataError: no such folder, a bad table or missing.csv, or two pictures of one id.
        ConfigError: ``group_column`` is not in the table.
    """
    if not source.is_dir():
        raise DataError(source, "is no folder", f"name the folder that holds the pictures and {params.labels}")
    table, files = source / str(params.labels), PictureFiles(source)
    rows = read_objects(table, id_column=params.id_column, label_column=params.label_column, classes=params.classes)
    rows = _carry_over(rows, params, table)
    found = files.by_stem(rows["id"])
    rows["picture"] = rows["id"].map(found)
    known = {path.stem: (str(path), reason) for path, reason in read_missing(source).items()}
    lost = rows["picture"].isna() & rows["id"].isin(known)
    return objects_of(
        rows[~lost],
        params.classes,
        files,
        preparation_of(params),
        lacking=[known[identity] for identity in rows.loc[lost, "id"]],
        n_dropped={UNNAMED: len(files.names) - len(found)},
    )


def _carry_over(rows: pd.DataFrame, params: PicturesParams, table: Path) -> pd.DataFrame:
    """Keep id, label and whatever the splits can use."""
    known = [column for column in _CARRIED if column in rows.columns]
    carried = rows[["id", "label", *known]].rename(columns=_CARRIED)
    if params.group_column is not None:
        if params.group_column not in rows.columns:
            problem = f"is not a column of {table}"
            raise ConfigError(f"group_column {params.group_column!r}", problem, f"it has {', '.join(rows.columns)}")
        carried["group"] = rows[params.group_column]
    return carried


FORMAT = Format(read)
