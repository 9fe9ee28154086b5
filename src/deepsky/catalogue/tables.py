"""Read object catalogues and label tables from CSV, and refuse what would silently go wrong later."""

import csv
import re
from pathlib import Path
from typing import cast

import pandas as pd

from deepsky.errors import DataError

# The columns of the reference query, in its order (SkyServer SQL, SDSS DR12 to DR18).
REFERENCE_COLUMNS = (
    "objid", "ra", "dec", "u", "g", "r", "i", "z", "run", "rerun", "camcol", "field",
    "specobjid", "class", "redshift", "plate", "mjd", "fiberid",
)  # fmt: skip
_RUINED_ID = re.compile(r"^\d(\.\d+)?[eE]\+?\d+$")


def read_objects(path: Path, *, id_column: str, label_column: str, classes: tuple[str, ...]) -> pd.DataFrame:
    """Read a catalogue or label table.

    Args:
        path: CSV with a header line.
        id_column: column that names each object once; kept as text, digit for digit.
        label_column: column with the class name.
        classes: the classes that may occur.

    Returns:
        One row per object: ``id`` (str), ``label`` (str) and every other column as pandas reads it.

    Raises:
        DataError: unreadable file, missing column, id written as 1.2E+18, duplicate id, unknown class.
    """
    table = read_table(path, required=(id_column, label_column))
    table = table.rename(columns={id_column: "id", label_column: "label"})
    table["id"] = table["id"].str.strip()
    table["label"] = table["label"].str.strip()
    _check_ids(table["id"], path, id_column)
    unknown = table.loc[~table["label"].isin(classes)]
    if len(unknown):
        row = unknown.iloc[0]
        raise DataError(
            path,
            f"object {row['id']} has the unknown class {row['label']!r} in column {label_column!r}",
            f"known classes are {', '.join(classes)}: mend the table or the classes in params.yaml",
        )
    for column in table.columns.difference(["id", "label"]):
        table[column] = _numbers_if_numeric(table[column])
    return table


def read_table(path: Path, *, required: tuple[str, ...]) -> pd.DataFrame:
    """Read a CSV as text columns.

    Raises:
        DataError: unreadable file, no rows, or a missing column.
    """
    try:
        with path.open(encoding="utf-8") as file:
            skip = 1 if file.readline().startswith("#Table") else 0
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skiprows=skip)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            path, f"cannot be read as CSV ({reason})", "give a comma-separated table with a header line"
        ) from error
    for column in required:
        if column not in table.columns:
            raise DataError(path, f"column {column!r} is missing", f"its columns are {', '.join(table.columns)}")
    if table.empty:
        raise DataError(path, "holds no rows", "give at least one object of each class")
    return table


def _check_ids(ids: pd.Series, path: Path, column: str) -> None:
    ruined = ids[ids.str.match(_RUINED_ID)]
    if len(ruined):
        raise DataError(
            path,
            f"column {column!r} holds the rounded id {ruined.iloc[0]}",
            "a spreadsheet ruined it: export the table again with ids as text, or name another id column",
        )
    empty = ids[ids == ""]
    if len(empty):
        raise DataError(path, f"row {empty.index[0] + 2} has no id in column {column!r}", "fill it or drop the row")
    repeated = ids[ids.duplicated()]
    if len(repeated):
        raise DataError(
            path, f"id {repeated.iloc[0]} occurs more than once in column {column!r}", "keep one row per object"
        )


def _numbers_if_numeric(column: pd.Series) -> pd.Series:
    """Turn a text column into numbers when every filled cell is one; int64 stays exact."""
    try:
        return cast(pd.Series, pd.to_numeric(column.replace("", None)))
    except (ValueError, TypeError):
        return column
