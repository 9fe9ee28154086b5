"""The tables beside the raw files: what is there, what the archives do not have, what failed."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from deepsky.errors import DataError
from deepsky.files import whole_file

MANIFEST, MISSING, FAILURES = "manifest.csv", "missing.csv", "failures.csv"
LABELS = "labels.csv"  # beside colour cutouts: what the catalogue says of each, so that the folder is a dataset
_REMEDY = "restore it, or delete it: the next fetch writes it anew"


@dataclass(frozen=True, slots=True)
class Absent:
    """A file that cannot be had: path below the folder of raw files, URL, and why."""

    path: str
    url: str
    reason: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """One row of the manifest: a file that is there, its documented URL, the mirror that served it, when (UTC)."""

    path: str
    url: str
    bytes: int
    sha256: str
    time: str = ""
    etag: str = ""
    last_modified: str = ""
    mirror: str = ""


COLUMNS = tuple(field.name for field in fields(Receipt))
_ABSENT_COLUMNS = tuple(field.name for field in fields(Absent))


def write_manifest(receipts: Iterable[Receipt], out: Path) -> None:
    """Write ``out``/manifest.csv, whole and sorted by path.

    Raises:
        OSError: it cannot be written.
    """
    _write(out / MANIFEST, COLUMNS, (astuple(row) for row in sorted(receipts, key=lambda row: row.path)))


def read_manifest(path: Path) -> dict[str, Receipt]:
    """Read a manifest's downloads by path; no file, no rows. Simulated files are none.

    Raises:
        DataError: it is no manifest.
    """
    found = read_receipts(path)
    return {name: receipt for name, receipt in found.items() if not receipt.url.startswith("simulated:")}


def read_receipts(path: Path) -> dict[str, Receipt]:
    """Read all rows of a manifest by path; no file, no rows.

    Raises:
        DataError: it is no manifest.
    """
    rows = _read(path, COLUMNS)
    for number, row in enumerate(rows, start=2):
        if not re.fullmatch(r"[0-9]{1,18}", row[2]):
            raise DataError(f"{path}: line {number}", f"{row[2]!r} is no size in bytes", _REMEDY)
    return {row[0]: receipt_of(row) for row in rows}


def read_absent(path: Path) -> list[Absent]:
    """Read a missing.csv or failures.csv; no file, no rows.

    Raises:
        DataError: it is something else.
    """
    return [Absent(*row) for row in _read(path, _ABSENT_COLUMNS)]


def write_absent(path: Path, rows: Sequence[Absent]) -> None:
    """Write a missing.csv or failures.csv; no rows, no file."""
    if rows:
        _write(path, _ABSENT_COLUMNS, map(astuple, rows))
    else:
        path.unlink(missing_ok=True)


def _read(path: Path, columns: tuple[str, ...]) -> list[list[str]]:
    if not path.exists():
        return []
    try:
        rows = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(path, f"is no CSV table ({error})", _REMEDY) from error
    # The first columns of old manifests of simulated files.
    if not rows or tuple(rows[0]) != columns[: max(len(rows[0]), 3)]:
        raise DataError(path, f"has not the columns {', '.join(columns)}", _REMEDY)
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]):
            raise DataError(f"{path}: line {number}", f"has {len(row)} cells instead of {len(rows[0])}", _REMEDY)
    return rows[1:]


def _write(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(csv_bytes([columns, *rows]))


def csv_bytes(rows: Iterable[Iterable[object]]) -> bytes:
    """Format lines of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def receipt_of(row: Sequence[str]) -> Receipt:
    """Parse the cells of a manifest's row."""
    path, url, size, *rest = row
    return Receipt(path, url, int(size), *rest)
