"""The real objects to work on: a table of the reference query's columns, from wherever, checked and named."""

import hashlib
import json
import re
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.catalogue.objid import unpack_objid
from deepsky.catalogue.tables import REFERENCE_COLUMNS, RERUN, are_rounded, check_numbers, read_table
from deepsky.errors import DataError

FIELD = ["run", "camcol", "field"]
FRAME_MB = 3
_NUMBERS = ("ra", "dec", "run", "rerun", "camcol", "field")
_SAME_PLACE_DEG = 1 / 3600
_OBJID = re.compile(r"\d{18}|[1-8]\d{18}")  # fits int64
BoolArray = npt.NDArray[np.bool_]


def read_real_objects(path: Path, release: str) -> pd.DataFrame:
    """Read and check a catalogue of SDSS objects.

    Every object gets a name, ``id``: its objid; where a spreadsheet has rounded objids, its specobjid; where it has
    rounded those as well, plate-mjd-fiberid, the survey's name of the spectrum. Rounded cells come back empty, lest
    somebody reads them as ids.

    Args:
        path: CSV with the columns of the reference query, upper or lower case, others beside them; a ``query.json`` of
            `deepsky query` may lie next to it.
        release: the data release that objects are to be of.

    Returns:
        One row per object: id, then REFERENCE_COLUMNS; run, rerun, camcol and field as int64, the rest as text.

    Raises:
        DataError: the table cannot be read or lacks a column; a cell is out of range; ids belong to other rows or to
            another release; an object occurs twice and differs.
    """
    table = read_table(path, required=())
    table = table.rename(columns=reference_names(table))
    require_reference_columns(table, path)
    table = table[list(REFERENCE_COLUMNS)].apply(lambda column: column.str.strip())
    _check_cells(table, path)
    _check_release(path, release)
    _check_rerun(table, path)
    table = _name(table, path)
    return _drop_repeated(table, path)


def reference_names(table: pd.DataFrame) -> dict[str, str]:
    """Map a table's columns to those of the reference query that differ by case alone (objID)."""
    lower = {column.lower(): column for column in reversed(table.columns)}
    return {lower[name]: name for name in REFERENCE_COLUMNS if name in lower and name not in table}


def require_reference_columns(table: pd.DataFrame, where: object) -> None:
    """Refuse a table without all columns of the reference query.

    Raises:
        DataError: names the missing ones.
    """
    missing = [column for column in REFERENCE_COLUMNS if column not in table]
    if missing:
        raise DataError(
            where,
            f"has no column {', '.join(missing)}",
            "select the columns of the reference query (docs/archives.md), or rename yours",
        )


def describe(objects: pd.DataFrame) -> list[str]:
    """Say how many objects of each class there are and, where their fields are known, what sharing frames saves.

    Args:
        objects: class, and run, camcol and field.

    Returns:
        A line, or two.
    """
    counts = objects["class"].value_counts().sort_index()
    line = ", ".join(f"{count} {name}" for name, count in counts.items())
    if not set(FIELD) <= set(objects.columns):
        return [line]
    n_fields = len(objects[FIELD].drop_duplicates())
    fields = "field" if n_fields == 1 else "fields"
    return [
        line,
        f"{len(objects)} objects in {n_fields} {fields}; frames a band: {n_fields} (about "
        f"{_size(n_fields * FRAME_MB)}) instead of {len(objects)} ({_size(len(objects) * FRAME_MB)})",
    ]


def _size(megabytes: int) -> str:
    return f"{megabytes} MB" if megabytes < 1000 else f"{megabytes / 1000:.0f} GB"


def _label(row: pd.Series) -> str:
    """Name a row: the n-th object of the table, with its objid as it stands."""
    return f"object {int(str(row.name)) + 1} (objid {row['objid']!r})"


def _refuse(table: pd.DataFrame, bad: BoolArray | pd.Series, path: Path, columns: list[str], remedy: str) -> None:
    """Refuse the first row, if any, whose cells in some columns are bad."""
    rows = table[np.asarray(bad)]
    if len(rows):
        row = rows.iloc[0]
        cells = ", ".join(f"{column} {str(row[column])!r}" for column in columns)
        raise DataError(path, f"{_label(row)} has {cells}", remedy)


def _check_cells(table: pd.DataFrame, path: Path) -> None:
    labels = [f"{number} (objid {objid!r})" for number, objid in enumerate(table["objid"], start=1)]
    check_numbers(table.assign(id=labels), path, _NUMBERS)
    numbers = {name: table[name].astype(float) for name in _NUMBERS}
    remedy = "mend it or drop the row"
    _refuse(table, ~numbers["ra"].between(0, 360), path, ["ra"], f"right ascension is 0 to 360 degrees: {remedy}")
    _refuse(table, ~numbers["dec"].between(-90, 90), path, ["dec"], f"declination is -90 to 90 degrees: {remedy}")
    for name in ("run", "rerun", "camcol", "field"):
        most, allowed = (6, "from 1 to 6") if name == "camcol" else (65535, "> 0")
        whole = (numbers[name] % 1 == 0) & numbers[name].between(1, most)
        _refuse(table, ~whole, path, [name], f"{name} is an integer {allowed}: {remedy}")
        table[name] = numbers[name].astype(np.int64)
    _refuse(table, table["class"] == "", path, ["class"], remedy)


def _check_release(path: Path, release: str) -> None:
    """Compare with the query that the table came from, if it is this one."""
    origin = path.parent / "query.json"
    if not origin.exists():
        return
    try:
        query = json.loads(origin.read_text())
        asked, digest = str(query["release"]), query["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(origin, "is not what deepsky query writes", "delete it, or run deepsky query again") from error
    if digest == hashlib.sha256(path.read_bytes()).hexdigest() and asked != release:
        raise DataError(
            path,
            f"mixed releases: its objects are of {asked}, but params.yaml says {release}",
            f"set archive.query_release: {asked} there (archive.release: for frames and cutouts as well), or run "
            f"deepsky query --release {release}",
        )


def _check_rerun(table: pd.DataFrame, path: Path) -> None:
    reruns = sorted(set(table["rerun"]))
    if reruns == [RERUN]:
        return
    problem = f"holds reruns {', '.join(map(str, reruns))}: mixed releases" if len(reruns) > 1 else f"has {reruns[0]}"
    raise DataError(
        path,
        f"column 'rerun' {problem}",
        f"DR8 and all later releases have rerun {RERUN}: select the objects from dr9 or later",
    )


def _name(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Give every object its id, and empty the cells that rounding has ruined."""
    ruined = _ruined_objids(table)
    if not ruined.any():
        _check_objids(table, np.ones(len(table), bool), path)
        return table.assign(id=table["objid"])[["id", *REFERENCE_COLUMNS]]
    _check_objids(table, ~ruined, path)
    ruined_spectra = _ruined_specobjids(table["specobjid"])
    columns = ["plate", "mjd", "fiberid"] if ruined_spectra.any() else ["specobjid"]
    remedy = "export the table again with ids as text: rounded objids leave only these to name objects by"
    for column in columns:
        _refuse(table, ~table[column].str.fullmatch(r"0*[1-9]\d*"), path, [column], remedy)
    widths = {"plate": 4, "fiberid": 4}  # as in the names of the survey's spectra, spec-0323-51615-0541
    names = table[columns].apply(lambda column: column.str.lstrip("0").str.zfill(widths.get(str(column.name), 0)))
    click.echo(
        f"{path}: {ruined.sum()} of {len(table)} objids have been rounded, by a spreadsheet or a float; "
        f"objects are named by {'-'.join(columns)}",
        err=True,
    )
    table = table.assign(
        id=names.agg("-".join, axis=1),
        objid=table["objid"].mask(ruined, ""),
        specobjid=table["specobjid"].mask(ruined_spectra, ""),
    )
    return table[["id", *REFERENCE_COLUMNS]]


def _ruined_objids(table: pd.DataFrame) -> BoolArray:
    """Say which objids have lost their last digits."""
    ids = table["objid"]
    ruined = are_rounded(ids).to_numpy(bool, copy=True)
    digits = ids.str.fullmatch(_OBJID).to_numpy(bool)
    zeros = ids.str.endswith("000").to_numpy(bool) & digits
    ruined[zeros] = ~_fits_row(table[zeros])
    return ruined | _many_share_a_factor(ids, digits)


def _many_share_a_factor(ids: pd.Series, digits: BoolArray) -> BoolArray:
    """Find rounding that leaves the field's bits as they are: to 15 or 17 digits, or to a float's multiples of 256."""
    numbers = ids.where(digits, "1").to_numpy(np.int64)
    rounded = np.zeros(len(ids), bool)
    for factor in (100, 256):
        multiples, by_chance = numbers % factor == 0, digits.sum() / factor
        if multiples.sum() > 2 + by_chance + 6 * by_chance**0.5:
            rounded |= multiples
    return rounded


def _ruined_specobjids(ids: pd.Series) -> BoolArray:
    """Say which specobjids have lost their last digits: true ones are multiples of 1024."""
    ruined = are_rounded(ids).to_numpy(bool, copy=True)
    zeros = ids.str.fullmatch(r"\d{15,17}000").to_numpy(bool)
    ruined[zeros] = [int(number) % 1024 != 0 for number in ids[zeros]]
    return ruined


def _fits_row(table: pd.DataFrame) -> BoolArray:
    """Say of which rows the objid's bits name the row's own field."""
    parts = unpack_objid(table["objid"].to_numpy(np.int64))
    return np.asarray((parts[["rerun", *FIELD]].to_numpy() == table[["rerun", *FIELD]].to_numpy()).all(axis=1))


def _check_objids(table: pd.DataFrame, sound: BoolArray, path: Path) -> None:
    """Refuse objids that are none, or name another field than their row."""
    table = table[sound]
    digits = table["objid"].str.fullmatch(_OBJID)
    _refuse(table, ~digits, path, ["objid"], "an objid has 18 or 19 digits: mend it or drop the row")
    _refuse(
        table,
        ~_fits_row(table),
        path,
        ["run", "camcol", "field"],
        "its objid names another field: the row is shifted, or of another release; export the table again",
    )


def _drop_repeated(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Keep one row of an object that occurs again; refuse one that differs."""
    repeated = table["id"].duplicated()
    if not repeated.any():
        return table
    again = table[repeated]
    first = table[~repeated].set_index("id").loc[again["id"]]
    same = (again[["class", *FIELD]].to_numpy() == first[["class", *FIELD]].to_numpy()).all(axis=1)
    apart_deg = np.abs(again[["ra", "dec"]].to_numpy(float) - first[["ra", "dec"]].to_numpy(float)).max(axis=1)
    different = np.flatnonzero(~same | (apart_deg > _SAME_PLACE_DEG))
    if len(different):
        one, other = first.iloc[different[0]], again.iloc[different[0]]
        raise DataError(
            path,
            f"object {other['id']} occurs more than once, as {one['class']} at ra {one['ra']}, dec {one['dec']} and "
            f"as {other['class']} at ra {other['ra']}, dec {other['dec']}",
            "keep one row per object",
        )
    click.echo(f"{path}: {repeated.sum()} rows repeat an object and are left out", err=True)
    return table[~repeated].reset_index(drop=True)
