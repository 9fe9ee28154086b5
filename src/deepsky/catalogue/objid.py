"""SDSS object ids: one 64-bit integer that names the field an object was measured in."""

import numpy as np
import numpy.typing as npt
import pandas as pd

IntArray = npt.NDArray[np.int64]


def pack_objid(
    *, rerun: npt.ArrayLike, run: npt.ArrayLike, camcol: npt.ArrayLike, field: npt.ArrayLike, number: npt.ArrayLike
) -> IntArray:
    """Compose SDSS objIDs as DR8 and later write them (sky version 2, first-field flag 0).

    Args:
        rerun: processing rerun, for example 301.
        run: imaging run.
        camcol: camera column, 1 to 6.
        field: field within the run.
        number: object within the field.

    Returns:
        int64, the broadcast shape of the arguments.

    Source:
        https://www.sdss.org/dr17/help/glossary/#objID
    """
    rerun, run, camcol, field, number = (np.asarray(part, np.int64) for part in (rerun, run, camcol, field, number))
    return (np.int64(2) << 59) | (rerun << 48) | (run << 32) | (camcol << 29) | (field << 16) | number


def unpack_objid(objid: npt.ArrayLike) -> pd.DataFrame:
    """Read rerun, run, camcol, field and number out of SDSS objIDs.

    Args:
        objid: int64, (n,); never floats, which cannot hold 19 digits.

    Returns:
        One row per id with int64 columns rerun, run, camcol, field, number.

    Raises:
        TypeError: the ids are not integers.
    """
    ids = np.asarray(objid)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"objIDs must be integers, not {ids.dtype}")
    ids = ids.astype(np.int64)
    return pd.DataFrame(
        {
            "rerun": (ids >> 48) & 0x7FF,
            "run": (ids >> 32) & 0xFFFF,
            "camcol": (ids >> 29) & 7,
            "field": (ids >> 16) & 0xFFF,
            "number": ids & 0xFFFF,
        }
    )


def are_objids(ids: pd.Series) -> bool:
    """Say whether every id, given as text, has the bit layout of an SDSS objID."""
    if not ids.str.fullmatch(r"\d{18,19}").all():
        return False
    numbers = ids.to_numpy(np.int64)
    parts = unpack_objid(numbers)
    known_version = np.isin(numbers >> 59, (1, 2)).all()
    return bool(known_version and parts["camcol"].between(1, 6).all() and (parts["run"] > 0).all())
