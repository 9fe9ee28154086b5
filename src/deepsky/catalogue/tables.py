"""Read object catalogues and label tables, and refuse what would silently go wrong later."""

import re
from pathlib import Path
from typing import cast

import click
import numpy as np
import pandas as pd

from deepsky.catalogue.table_files import read_texts
from deepsky.errors import ConfigError, DataError

# The columns of the reference query, in its order (SkyServer SQL, SDSS DR12 to DR18).
REFERENCE_COLUMNS = (
    "objid", "ra", "dec", "u", "g", "r", "i", "z", "run", "rerun", "camcol", "field",
    "specobjid", "class", "redshift", "plate", "mjd", "fiberid",
)  # fmt: skip
RERUN = 301  # the processing of all imaging since DR8
_UNSAFE_ID = re.compile(r"^\.|[/\\\x00-\x1f]")  # ids name picture files
_RUINED_ID = re.compile(r"^\d(\.\d*)?[eE]\+?\d+$|^\d{16,}\.\d*$")  # 1.2E+18, or 1237648704577142784.0
_SHORT_FLOAT_ID = re.compile(r"(\d{1,15})\.0+")
_LONG_ID = re.compile(r"\d{16,}")


def read_objects(
    path: Path, *, id_column: str | None, label_column: str | None, classes: tuple[str, ...]
) -> pd.DataFrame:
    """Read a catalogue or label table.

    Args:
        path: a table of any form that ``read_table`` reads.
        id_column: column that names each object once; kept as text, digit for digit. None numbers the rows from 1.
        label_column: column with the class name; None where the classes are not known yet.
        classes: the classes that may occur.

    Returns:
        One row per object: ``id`` (str), with a label column ``label`` (str), and every other column as pandas reads
        it. Ids that are all written like 101756.0 are read as 101756, and stderr says so.

    Raises:
        DataError: unreadable file, missing column, ids that a spreadsheet has rounded, duplicate id, an id that cannot
            be part of a file name, unknown class.
        ConfigError: one column is to be both id and class.
    """
    if id_column is not None and id_column == label_column:
        raise ConfigError(path, f"column {id_column!r} is to be both id and class", "name two columns")
    own = {name: column for name, column in {"id": id_column, "label": label_column}.items() if column is not None}
    table = read_table(path, required=tuple(own.values()))
    # A column that only happens to be called id or label gives way to the one that params.yaml names.
    table = table.drop(columns=table.columns.intersection(["id", "label"]).difference(list(own.values())))
    table = table.rename(columns={column: name for name, column in own.items()})
    if id_column is None:
        table["id"] = (pd.RangeIndex(len(table)) + 1).astype(str)
    table["id"] = _without_decimals(table["id"], path)
    _check_ids(table["id"], path, id_column or "id")
    if label_column is not None:
        _check_labels(table, path, label_column, classes)
    for column in table.columns.difference(["id", "label"]):
        table[column] = _numbers_if_numeric(table[column])
    return table


def read_table(path: Path, *, required: tuple[str, ...]) -> pd.DataFrame:
    """Read a table of any form that ``table_files.read_texts`` knows as text columns.

    Args:
        path: of the table.
        required: columns that it must have. One whose name differs by upper and lower case alone is taken, and comes
            back under the name asked for.

    Raises:
        DataError: unreadable file, no rows, or a missing column.
    """
    table = read_texts(path)
    table = table.rename(columns={find_column(table, name, path): name for name in required})
    if table.empty:
        raise DataError(path, "holds no rows", "give at least one object of each class")
    return table


def find_column(table: pd.DataFrame, name: str, path: Path) -> str:
    """Return the column of this name, else the only one whose name differs by upper and lower case alone.

    Raises:
        DataError: there is none, or several; ``path`` only names the table.
    """
    if name in table.columns:
        return name
    alike = [column for column in table.columns if column.lower() == name.lower()]
    if len(alike) > 1:
        raise DataError(path, f"column {name!r} may be {' or '.join(alike)}", "name one of them")
    if not alike:
        raise DataError(path, f"column {name!r} is missing", f"its columns are {', '.join(table.columns)}")
    return alike[0]


def are_rounded(ids: pd.Series) -> pd.Series:
    """Say of each id, given as text, whether a spreadsheet or a float has taken its last digits (1.2E+18)."""
    return ids.str.match(_RUINED_ID)


def check_numbers(table: pd.DataFrame, path: Path, columns: tuple[str, ...]) -> None:
    """Refuse objects without the numbers that a stage needs.

    Args:
        table: as ``read_objects`` gives it.
        path: names the table in errors.
        columns: columns that must exist and hold a finite number in every row.

    Raises:
        DataError: a missing column, or the first object whose cell is empty or no number.
    """
    for column in columns:
        if column not in table.columns:
            raise DataError(path, f"column {column!r} is missing", f"its columns are {', '.join(table.columns)}")
        numbers = pd.to_numeric(table[column], errors="coerce")
        bad = table[~np.isfinite(numbers.to_numpy(float))]
        if len(bad):
            raise DataError(
                path,
                f"object {bad['id'].iloc[0]} has {bad[column].iloc[0]!r} in column {column!r}, which is no number",
                "fill it or drop the row",
            )


def _check_labels(table: pd.DataFrame, path: Path, column: str, classes: tuple[str, ...]) -> None:
    unknown = table.loc[~table["label"].isin(classes)]
    if len(unknown):
        row = unknown.iloc[0]
        raise DataError(
            path,
            f"object {row['id']} has the unknown class {row['label']!r} in column {column!r}",
            f"known classes are {', '.join(classes)}: mend the table or the classes in params.yaml",
        )


def _check_ids(ids: pd.Series, path: Path, column: str) -> None:
    ruined = ids[are_rounded(ids)]
    if len(ruined) or _are_floats(ids):
        first = [*ruined, *ids][0]
        problem = f"column {column!r} holds the rounded id {first}"
        if not len(ruined):
            problem += ": of all its ids only the first 15 digits can be right, the rest are what a float left"
        raise DataError(
            path, problem, "a spreadsheet ruined it: export the table again with ids as text, or name another id column"
        )
    empty = ids[ids == ""]
    if len(empty):
        raise DataError(path, f"row {empty.index[0] + 2} has no id in column {column!r}", "fill it or drop the row")
    unsafe = ids[ids.str.contains(_UNSAFE_ID)]
    if len(unsafe):
        raise DataError(
            path,
            f"id {unsafe.iloc[0]!r} in column {column!r} cannot be part of a file name",
            "use ids without slashes and control characters that do not begin with a dot",
        )
    repeated = ids[ids.duplicated()]
    if len(repeated):
        raise DataError(
            path, f"id {repeated.iloc[0]} occurs more than once in column {column!r}", "keep one row per object"
        )


def _are_floats(ids: pd.Series) -> bool:
    """Say whether ids of 16 digits and more have all been through a float, or lost all but Excel's 15 digits.

    By chance one true id in a hundred looks like that.
    """
    if len(ids) < 3 or not ids.str.fullmatch(_LONG_ID).all():
        return False
    return all(int(float(each)) == int(each) for each in ids) or all(set(each[15:]) == {"0"} for each in ids)


def _without_decimals(ids: pd.Series, path: Path) -> pd.Series:
    """Read 101756.0 as 101756 where all ids are like that, and say so."""
    if not ids.str.fullmatch(_SHORT_FLOAT_ID).all():
        return ids
    whole = ids.str.partition(".")[0]
    click.echo(f"{path}: ids are written like {ids.iloc[0]}, and read as {whole.iloc[0]}", err=True)
    return whole


def _numbers_if_numeric(column: pd.Series) -> pd.Series:
    """Turn a text column into numbers when every filled cell is one; int64 stays exact."""
    try:
        return cast(pd.Series, pd.to_numeric(column.replace("", None)))
    except (ValueError, TypeError):
        return column
