"""Some columns of a large table of votes, batch by batch: in parallel, and within a bounded memory."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds

from deepsky.errors import DataError

Batch = tuple[npt.NDArray[np.object_], npt.NDArray[np.float32]]
FORMS = "CSV (plain or .gz), Parquet or FITS"
_ROWS = 1 << 16
_SCAN = {"batch_size": _ROWS, "batch_readahead": 4, "fragment_readahead": 1}


def read_batches(path: Path, id_column: str, columns: Sequence[str]) -> Iterator[Batch]:
    """Read the ids and votes of a table.

    Args:
        path: CSV with a header line (also .csv.gz), Parquet or FITS (its first table).
        id_column: names each galaxy. Case does not matter, here and in ``columns``.
        columns: of votes, or of flags 0 and 1.

    Yields:
        Ids as text, (n,), and votes, (n, n columns), float32; an empty cell is NaN.

    Raises:
        DataError: no such table, a column that it lacks, or a cell that is no number; ids that a float has rounded.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    try:
        if not path.is_file():
            raise DataError(path, "does not exist", f"give the release's table: {FORMS}")
        if {".fits", ".fit", ".fts"} & set(suffixes):
            yield from _from_fits(path, id_column, columns)
        else:
            yield from _from_arrow(path, id_column, columns, is_csv=suffixes[-1:] not in ([".parquet"], [".pq"]))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(
            path, f"cannot be read ({arrow_reason(error)})", f"give the release's table: {FORMS}"
        ) from error


def arrow_reason(error: Exception) -> str:
    """Name what Arrow refuses, without the sentences around it, which name the file again."""
    text = str(error).rsplit("Invalid: ", 1)[-1]
    # Arrow counts the columns from 0 in the file's own order, which is how its header reads from the left.
    return re.sub(r"CSV column #(\d+)", lambda match: f"the CSV's column {int(match[1]) + 1}", text)


def _from_arrow(path: Path, id_column: str, columns: Sequence[str], *, is_csv: bool) -> Iterator[Batch]:
    names = ds.dataset(path, format="csv" if is_csv else "parquet").schema.names
    own = _found(path, names, [id_column, *columns])
    kinds = {name: pa.string() if name == own[0] else pa.float32() for name in own}
    convert = pyarrow.csv.ConvertOptions(column_types=kinds)
    form = ds.CsvFileFormat(convert_options=convert) if is_csv else ds.ParquetFileFormat()
    for batch in ds.dataset(path, format=form).to_batches(own, **_SCAN):
        if batch.num_rows:
            votes = [pc.cast(batch.column(name), pa.float32()).to_numpy(zero_copy_only=False) for name in own[1:]]
            ids = pc.utf8_trim_whitespace(_text(path, batch.column(own[0]), own[0]))
            yield ids.to_numpy(zero_copy_only=False), np.stack(votes, axis=1)


def _text(path: Path, ids: pa.Array, name: str) -> pa.Array:
    if pa.types.is_floating(ids.type):
        raise DataError(
            path, f"column {name!r} holds ids as floats, which have lost digits", "take the table as published"
        )
    return pc.fill_null(pc.cast(ids, pa.string()), "")


def _from_fits(path: Path, id_column: str, columns: Sequence[str]) -> Iterator[Batch]:
    from astropy.io import fits  # slow to import

    with fits.open(path, memmap=True) as units:
        table = next((unit for unit in units if isinstance(unit, fits.BinTableHDU | fits.TableHDU)), None)
        if table is None:
            raise DataError(path, "holds no table", f"give the release's table: {FORMS}")
        own = _found(path, table.columns.names, [id_column, *columns])
        if table.data[own[0]].dtype.kind == "f":
            problem = f"column {own[0]!r} holds ids as floats, which have lost digits"
            raise DataError(path, problem, "take the table as published")
        for start in range(0, len(table.data), _ROWS):
            part = table.data[start : start + _ROWS]
            ids = np.array([str(one).strip() for one in part[own[0]]], object)
            yield ids, np.stack([np.asarray(part[name], np.float32) for name in own[1:]], axis=1)


def _found(path: Path, names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the table's own spelling of the columns that are wanted."""
    known = {name.strip().lower(): name for name in names}
    for column in wanted:
        if column.lower() not in known:
            raise DataError(path, f"column {column!r} is missing", f"its columns are {', '.join(names)}")
    return [known[column.lower()] for column in wanted]
