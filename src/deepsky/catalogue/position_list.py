"""A list of positions and classes, of which nothing else is known: enough for cutouts, not for frames."""

import csv
from pathlib import Path

import click
import numpy as np
import pandas as pd

from deepsky.catalogue.tables import check_numbers
from deepsky.errors import DataError

COLUMNS = ("ra", "dec", "class")
_REMEDY = "begin the list with a line of the names ra, dec and class, or hold just these three cells in every line"


def read_positions(path: Path, classes: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read and check a list of positions.

    Every object is named after its place, so that it keeps its name, and its files, in another order of the list.

    Args:
        path: text; ra and dec (degrees) and the class, with tabs or commas between them. Its first line may name the
            columns, upper or lower case, in any order and beside others; without names they are ra, dec and class.
        classes: those that may occur; none: any.

    Returns:
        One row per object: id, ra, dec, class; text, cell for cell.

    Raises:
        DataError: the file cannot be read or has no rows, a column is missing, a cell is out of range or unknown, or
            one place has two classes.
    """
    table = _read_table(path)
    _check_cells(table, path, classes)
    ra_deg, dec_deg = (table[name].astype(float) for name in ("ra", "dec"))
    table["id"] = [designation(*place) for place in zip(ra_deg, dec_deg, strict=True)]
    return _drop_repeated(table, path)[["id", *COLUMNS]]


def designation(ra_deg: float, dec_deg: float) -> str:
    """Name a place as the IAU wants it and SDSS does: JHHMMSS.ss+DDMMSS.s, cut off and not rounded."""
    hundredths_s = int(round(ra_deg % 360 * 24_000, 6))  # 24 h are 360 degrees; what floats lack is no digit less
    tenths_arcsec = int(round(abs(dec_deg) * 36_000, 6))
    sign = "-" if dec_deg < 0 else "+"
    return f"J{_sexagesimal(hundredths_s, 2)}{sign}{_sexagesimal(tenths_arcsec, 1)}"


def _sexagesimal(parts: int, n_digits: int) -> str:
    """Write hours or degrees, minutes and seconds, given in parts of a second."""
    seconds, fraction = divmod(parts, 10**n_digits)
    return f"{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}.{fraction:0{n_digits}d}"


def _read_table(path: Path) -> pd.DataFrame:
    """Return ra, dec and class as text, and the line that each row stands in."""
    rows = _read_lines(path)
    first = rows[0][1] if rows else []
    places = list(range(len(COLUMNS)))
    if rows and not any(map(_is_number, first)):  # names, then: an object has numbers
        places = _find_columns([name.lstrip("# ").lower() for name in first], path)
        del rows[0]
    elif rows and len(first) != len(COLUMNS):
        raise DataError(path, f"has {len(first)} cells in its first line, and no names of columns", _REMEDY)
    if not rows:
        raise DataError(path, "holds no positions", "give at least one object of each class")
    for line, cells in rows:
        if len(cells) != len(first):
            problem = f"line {line} has {len(cells)} cells instead of {len(first)}"
            raise DataError(path, problem, "mend it, and put tabs or commas between all of them")
    table = pd.DataFrame([[cells[place] for place in places] for _, cells in rows], columns=list(COLUMNS))
    return table.assign(line=[line for line, _ in rows])


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the cells of every line that is not blank, and its number."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        if lines and lines[0].startswith("#Table"):  # of SDSS' SQL service
            lines[0] = ""
        first = next(filter(str.strip, lines), "")
        reader = csv.reader(lines, delimiter="\t" if "\t" in first else ",")
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(path, f"cannot be read ({reason})", "give a text file of ra, dec and class") from error
    return [(line, cells) for line, cells in rows if any(cells)]


def _find_columns(names: list[str], path: Path) -> list[int]:
    """Return where ra, dec and class stand among the names in the first line."""
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise DataError(path, f"has no column {', '.join(missing)}, it has {', '.join(names)}", _REMEDY)
    twice = [name for name in COLUMNS if names.count(name) > 1]
    if twice:
        raise DataError(path, f"has two columns {twice[0]}", "leave one of them out")
    return [names.index(name) for name in COLUMNS]


def _is_number(cell: str) -> bool:
    return bool(pd.notna(pd.to_numeric(cell, errors="coerce")))


def _check_cells(table: pd.DataFrame, path: Path, classes: tuple[str, ...]) -> None:
    check_numbers(table.assign(id="in line " + table["line"].astype(str)), path, ("ra", "dec"))
    known = f"the datasets of params.yaml know {', '.join(classes)}"
    for column, good, remedy in (
        ("ra", table["ra"].astype(float).between(0, 360), "right ascension is 0 to 360 degrees"),
        ("dec", table["dec"].astype(float).between(-90, 90), "declination is -90 to 90 degrees"),
        ("class", table["class"] != "", "name it"),
        ("class", table["class"].isin(classes or table["class"]), known),
    ):
        bad = table[~np.asarray(good)]
        if len(bad):
            line, cell = bad["line"].iloc[0], bad[column].iloc[0]
            raise DataError(path, f"line {line} has {column} {cell!r}", f"{remedy}: mend it or drop the line")


def _drop_repeated(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Keep one row of each place; refuse two classes of one."""
    table = table.assign(first=table.groupby("id")["line"].transform("first"))
    table["first_class"] = table.groupby("id")["class"].transform("first")
    other = table[table["class"] != table["first_class"]]
    if len(other):
        row = other.iloc[0]
        problem = f"lines {row['first']} and {row['line']} call one place ({row['id']}) {row['first_class']} and"
        raise DataError(path, f"{problem} {row['class']}", "keep one line per object")
    repeated = table["id"].duplicated()
    if repeated.any():
        click.echo(f"{path}: {repeated.sum()} lines repeat a place and are left out", err=True)
    return table[~repeated].reset_index(drop=True)
