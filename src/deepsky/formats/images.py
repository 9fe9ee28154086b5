"""A folder of pictures with a table of labels: what a person brings himself, and what stage fetch brings."""

from pathlib import Path, PurePath

import pandas as pd

from deepsky.catalogue.magnitudes import MAGNITUDES, with_magnitudes
from deepsky.catalogue.tables import read_objects
from deepsky.errors import ConfigError, DataError
from deepsky.formats.format import OTHER_CLASSES, UNLABELLED, UNNAMED, Format, Objects, preparation_of
from deepsky.formats.packing import objects_of
from deepsky.formats.params import PicturesParams
from deepsky.imaging.badfiles import read_missing
from deepsky.imaging.picture_files import PictureFiles
from deepsky.imaging.pictures import PICTURE_SUFFIXES

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
        problem = "is no folder" if source.exists() else "does not exist"
        raise DataError(source, problem, f"name the folder that holds the pictures and {params.labels}")
    return read_labelled(PictureFiles(source), source / str(params.labels), params)


def read_labelled(files: PictureFiles, table: Path, params: PicturesParams) -> Objects:
    """Read as ``read`` does, wherever pictures and table lie.

    Args:
        files: the pictures.
        table: names each by its file name, with or without the suffix, and its class.
        params: as for ``read``.
    """
    known = (*params.classes, *params.other_classes, "")
    rows = read_objects(table, id_column=params.id_column, label_column=params.label_column, classes=known)
    rows["id"] = _without_suffix(rows["id"], table)
    kept = _carry_over(rows[rows["label"].isin(params.classes)], params, table)
    found = files.by_stem(rows["id"])
    kept["picture"] = kept["id"].map(found)
    missing = read_missing(files.place) if files.place.is_dir() else {}
    lacked = {path.stem: (str(path), reason) for path, reason in missing.items()}
    lost = kept["picture"].isna() & kept["id"].isin(lacked)
    return objects_of(
        kept[~lost],
        params.classes,
        files,
        preparation_of(params),
        lacking=[lacked[identity] for identity in kept.loc[lost, "id"]],
        n_dropped={
            UNNAMED: len(files.names) - len(found),
            UNLABELLED: int((rows["label"] == "").sum()),
            OTHER_CLASSES: int(rows["label"].isin(params.other_classes).sum()),
        },
    )


def _without_suffix(ids: pd.Series, table: Path) -> pd.Series:
    """Read 101756.jpg as 101756."""
    stems = ids.map(lambda one: PurePath(one).stem if PurePath(one).suffix.lower() in PICTURE_SUFFIXES else one)
    repeated = stems[stems.duplicated()]
    if len(repeated):
        raise DataError(table, f"names the picture {repeated.iloc[0]} more than once", "keep one row per picture")
    return stems


def _carry_over(rows: pd.DataFrame, params: PicturesParams, table: Path) -> pd.DataFrame:
    """Keep id, label, the magnitudes and whatever the splits can use."""
    rows = with_magnitudes(rows)
    known = [column for column in (*_CARRIED, *MAGNITUDES) if column in rows.columns]
    carried = rows[["id", "label", *known]].rename(columns=_CARRIED)
    if params.group_column is not None:
        if params.group_column not in rows.columns:
            problem = f"is not a column of {table}"
            raise ConfigError(f"group_column {params.group_column!r}", problem, f"it has {', '.join(rows.columns)}")
        carried["group"] = rows[params.group_column]
    return carried


FORMAT = Format(read)
