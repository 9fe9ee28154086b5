"""The Galaxy Zoo challenge's table of 37 vote fractions, from CSV or Parquet, in parallel and within bounded memory."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from deepsky.catalogue.decision_tree import COLUMNS, QUESTIONS, places, sums_wanted
from deepsky.errors import DataError
from deepsky.formats.votes import arrow_reason

ID = "GalaxyID"
# The fractions were published with 6 decimals, whose rounding moves a sum by less than 1e-5. A table that another tool
# has rounded to 4 passes too; what really breaks the tree, as swapped columns or unweighted answers, is far greater.
SUM_TOLERANCE = 1e-3
# What bounds the memory beside the table itself: few batches ahead, one file at a time, no column chunks held raw.
_SCAN = {"batch_size": 1 << 14, "batch_readahead": 4, "fragment_readahead": 1}
_PARQUET = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=False))
_AGAIN = "take the file as it was published"


@dataclass(frozen=True)
class Solutions:
    """The table.

    Attributes:
        ids: GalaxyID of each row, int64, (n,), each once.
        fractions: float32, (n, 37), in the order of ``catalogue.decision_tree.COLUMNS``.
    """

    ids: npt.NDArray[np.int64]
    fractions: npt.NDArray[np.float32]


def read_solutions(path: Path) -> Solutions:
    """Read and check the table.

    Args:
        path: a ``.csv``, a ``.parquet`` file, or a folder of Parquet parts as Spark writes it; the columns GalaxyID
            and the decision tree's 37 in any order.

    Raises:
        DataError: not such a table; other columns; an id that is no whole number or occurs twice; a fraction that is
            no number, lies outside [0, 1] or breaks a sum of the decision tree.
    """
    try:
        table = _open(path)
        n_rows = table.count_rows()
        ids, fractions = np.empty(n_rows, np.int64), np.empty((n_rows, len(COLUMNS)), np.float32)
        start = 0
        for batch in table.to_batches([ID, *COLUMNS], **_SCAN):
            end = start + batch.num_rows
            ids[start:end] = _numbers(path, batch.column(ID), ID, pa.int64())
            columns = [_numbers(path, batch.column(name), name, pa.float32()) for name in COLUMNS]
            own = np.stack(columns).T  # columns stay together in memory: the checks go down them
            _check_fractions(path, ids[start:end], own)
            fractions[start:end] = own
            start = end
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(path, f"cannot be read ({arrow_reason(error)})", _AGAIN) from error
    if not n_rows:
        raise DataError(path, "holds no rows", _AGAIN)
    _check_ids(path, ids)
    return Solutions(ids, fractions)


def _open(path: Path) -> ds.Dataset:
    """Open the table and check the names of the columns of each of its parts."""
    form = "csv" if path.suffix.lower() == ".csv" else _PARQUET
    if path.is_dir() and (path / "_temporary").exists():
        raise DataError(path, "holds Spark's _temporary: the job that writes it has not ended", "run that job again")
    table = ds.dataset(path, format=form)
    if not table.files:
        raise DataError(path, "holds no parts (part-*.parquet)", _AGAIN)
    for part in table.get_fragments():  # Arrow itself looks at the first alone, and fills what others lack
        _check_names(Path(part.path), part.physical_schema.names)
    if form is _PARQUET:
        return table
    # CSV has no types of its own: say them, instead of letting the first rows decide.
    fields = [pa.field(name, pa.int64() if name == ID else pa.float32()) for name in table.schema.names]
    return ds.dataset(path, format=form, schema=pa.schema(fields))


def _check_names(part: Path, names: list[str]) -> None:
    wanted = (ID, *COLUMNS)
    if missing := [name for name in wanted if name not in names]:
        raise DataError(part, f"lacks {_listed(missing)}", f"{_AGAIN}, with GalaxyID and 37 fractions")
    if extra := [name for name in names if name not in wanted]:
        raise DataError(part, f"has the unknown {_listed(extra)}", "take out what is not GalaxyID or a fraction")


def _listed(columns: list[str]) -> str:
    more = f" and {len(columns) - 4} more" if len(columns) > 4 else ""
    return f"column{'s' if len(columns) > 1 else ''} {', '.join(columns[:4])}{more}"


def _numbers(path: Path, column: pa.Array, name: str, kind: pa.DataType) -> npt.NDArray[np.generic]:
    if column.null_count:
        raise DataError(path, f"has {column.null_count} cells without a number in column {name}", "fill them")
    try:
        return pc.cast(column, kind).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:
        raise DataError(path, f"column {name} does not hold {kind} numbers ({error})", _AGAIN) from error


def _check_fractions(path: Path, ids: npt.NDArray[np.int64], fractions: npt.NDArray[np.float32]) -> None:
    """Refuse the first fraction outside [0, 1] and the first question whose answers do not sum to what they should."""
    outside = np.argwhere(~((fractions >= 0) & (fractions <= 1)))  # so that NaN is outside too
    if len(outside):
        row, place = outside[0]
        problem = f"galaxy {ids[row]} has {COLUMNS[place]} {fractions[row, place]:g}, which is outside 0 to 1"
        raise DataError(path, problem, _AGAIN)
    for question in QUESTIONS:
        total, wanted = fractions[:, places(question)].sum(axis=1), sums_wanted(fractions, question)
        broken = np.flatnonzero(np.abs(total - wanted) > SUM_TOLERANCE)
        if len(broken):
            row, columns = broken[0], f"{question.columns[0]} to {question.columns[-1]}"
            should = f"{wanted[row]:.6f}" + (f" ({question.parent})" if question.parent else "")
            problem = f"galaxy {ids[row]} breaks the decision tree: {columns} sum to {total[row]:.6f}, not to {should}"
            raise DataError(path, problem, _AGAIN)


def _check_ids(path: Path, ids: npt.NDArray[np.int64]) -> None:
    ordered = np.sort(ids)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated):
        raise DataError(path, f"galaxy {repeated[0]} occurs more than once", "keep one row per galaxy")
