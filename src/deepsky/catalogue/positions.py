"""Where a catalogue says that its objects are: degrees, hours or sexagesimal, or pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.catalogue.tables import check_numbers, find_column
from deepsky.errors import DataError

COLUMNS = {"radec": ("ra", "dec"), "xy": ("x", "y")}
_LIMITS_DEG = {"ra": (-180.0, 360.0), "dec": (-90.0, 90.0)}


def with_positions(objects: pd.DataFrame, path: Path, position: str, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read the positions of objects.

    Args:
        objects: as ``read_objects`` gives them.
        path: names the table in errors.
        position: ``radec`` or ``xy``.
        columns: the two columns that hold it; none stand for ra and dec, or x and y, in upper or lower case.

    Returns:
        The objects with float64 columns ra and dec in degrees, ra from 0 to 360, or x and y in pixels. Cells like
        10:00:02.9, 10 00 02.9 and 10h00m02.9s of a right ascension are hours; 150d00m43s and plain numbers are degrees.

    Raises:
        DataError: no such column, or the first object whose cell is no number, no angle or none on the sky.
    """
    names = COLUMNS[position]
    found = [_column(objects, column, path) for column in columns or names]
    if position == "xy":
        check_numbers(objects, path, tuple(found))
        return objects.assign(**{name: objects[own].astype(float) for name, own in zip(names, found, strict=True)})
    degrees = {name: _degrees(objects, own, path, name) for name, own in zip(names, found, strict=True)}
    return objects.assign(ra=degrees["ra"] % 360, dec=degrees["dec"])


def _column(objects: pd.DataFrame, name: str, path: Path) -> str:
    try:
        return find_column(objects.drop(columns=["id", "label"], errors="ignore"), name, path)
    except DataError as error:
        raise DataError(path, error.problem, f"{error.remedy}; name two as position_columns") from error


def _degrees(objects: pd.DataFrame, column: str, path: Path, name: str) -> npt.NDArray[np.float64]:
    """Turn a column of degrees, or of sexagesimal texts, into degrees."""
    if (
        pd.api.types.is_numeric_dtype(objects[column])
        or not objects[column].astype(str).str.contains(r"\d[:dh° ]").any()
    ):
        check_numbers(objects, path, (column,))
        degrees = objects[column].to_numpy(float)
    else:
        degrees = _from_sexagesimal(objects, column, path, hours=name == "ra")
    lowest, highest = _LIMITS_DEG[name]
    wrong = np.flatnonzero(~((lowest <= degrees) & (degrees <= highest)))
    if len(wrong):
        problem = f"object {objects['id'].iloc[wrong[0]]} has {name} {degrees[wrong[0]]:g} in column {column!r}"
        raise DataError(
            path, problem, f"{name} lies between {lowest:g} and {highest:g} degrees: name the right columns"
        )
    return degrees


def _from_sexagesimal(objects: pd.DataFrame, column: str, path: Path, *, hours: bool) -> npt.NDArray[np.float64]:
    from astropy import units  # slow to import
    from astropy.coordinates import Angle

    degrees = np.empty(len(objects))
    for number, (identity, cell) in enumerate(zip(objects["id"], objects[column].astype(str), strict=True)):
        try:
            if _is_number(cell):
                raise ValueError("a plain number among sexagesimal ones")
            degrees[number] = Angle(cell, units.hourangle if hours else units.deg).deg
        except ValueError as error:
            problem = f"object {identity} has {cell!r} in column {column!r}, which is no angle ({error})"
            raise DataError(path, problem, "write all like 10:00:02.9, or all in degrees") from error
    return degrees


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
