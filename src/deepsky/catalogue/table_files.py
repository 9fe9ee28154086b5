"""Read a table file of any usual form into columns of text, in which ids of 19 digits stay what they are."""

import bz2
import csv
import gzip
import io
import re
import warnings
import zlib
from collections.abc import Callable
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pandas as pd

from deepsky.errors import DataError

FORMS = "CSV with a header line, FITS, VOTable, ECSV or Parquet"
_SEPARATORS = ",;\t|"
_DECOMPRESS: dict[bytes, Callable[[bytes], bytes]] = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress}


def read_texts(path: Path) -> pd.DataFrame:
    """Read a table, plain or in gzip or bzip2; its content says which form it has.

    Args:
        path: CSV with a header line (cells between ``,`` ``;`` ``|``, tabs or blanks; UTF-8, or UTF-16 as Excel writes
            it; lines above the header that begin with # are remarks), FITS or VOTable (the first table), ECSV or
            Parquet.

    Returns:
        Every column as text, without blanks around names and cells; an empty or masked cell is "". Numbers have all
        their digits; angles are in degrees where the file says that they are radians or hours of angle. Columns of
        arrays, and columns without a name, are left out.

    Raises:
        DataError: unreadable, none of these forms, or a name that two columns have.
    """
    try:
        if not path.is_file():
            raise DataError(path, "is no file" if path.exists() else "does not exist", f"give a table: {FORMS}")
        content = _decompressed(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(path, f"cannot be read ({reason})", "mend the file") from error
    form, read = _form_of(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # units and descriptions that keep to no standard
            warnings.simplefilter("error", pd.errors.ParserWarning)  # more cells than the header has names
            table = read(content)
    except Exception as error:  # each library has a dozen kinds, all of them "this is no such table"
        reason = re.sub(r"\s+", " ", str(error) or type(error).__name__)[:200]
        raise DataError(path, f"cannot be read as {form} ({reason})", f"give a table: {FORMS}") from error
    return _named(table.fillna("").astype("str").apply(lambda column: column.str.strip()), path)


def _decompressed(content: bytes) -> bytes:
    for magic, decompress in _DECOMPRESS.items():
        if content.startswith(magic):
            return decompress(content)
    return content


def _form_of(content: bytes) -> tuple[str, Callable[[bytes], pd.DataFrame]]:
    """Return the name of a table's form and what reads it."""
    if content.startswith(b"SIMPLE  ="):
        return "FITS", _from_fits
    if content.startswith(b"PAR1"):
        return "Parquet", _from_parquet
    if content.startswith(b"# %ECSV"):
        return "ECSV", _from_ecsv
    if content.lstrip(b"\xef\xbb\xbf \r\n").startswith(b"<") and b"<VOTABLE" in content[:4096]:
        return "VOTable", _from_votable
    return "CSV", _from_csv


def _from_csv(content: bytes) -> pd.DataFrame:
    utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    stream = io.StringIO(content.decode("utf-16" if utf_16 else "utf-8-sig"), newline=None)
    header = next(dropwhile(lambda line: line.startswith("#") or not line.strip(), iter(stream.readline, "")), "")
    unquoted = re.sub(r'"[^"]*"', "", header)
    separator = max(_SEPARATORS, key=unquoted.count)
    blanks = separator not in unquoted and " " in unquoted.strip()
    (names,) = csv.reader(
        [header.strip()] if blanks else [header], delimiter=" " if blanks else separator, skipinitialspace=True
    )
    table = pd.read_csv(
        stream,
        sep=r"\s+" if blanks else separator,
        header=None,
        names=list(range(len(names))),
        index_col=False,
        dtype=str,
        keep_default_na=False,
        skipinitialspace=True,
    )
    return table.set_axis(names, axis=1)


def _from_parquet(content: bytes) -> pd.DataFrame:
    # Nullable types: a column of integers with a gap would come as floats, without its last digits.
    return pd.read_parquet(io.BytesIO(content), dtype_backend="numpy_nullable").astype("string")


def _from_fits(content: bytes) -> pd.DataFrame:
    from astropy.table import Table  # slow to import

    return _from_astropy(Table.read(io.BytesIO(content), format="fits"))


def _from_ecsv(content: bytes) -> pd.DataFrame:
    from astropy.table import Table

    return _from_astropy(Table.read(content.decode(), format="ascii.ecsv"))


def _from_votable(content: bytes) -> pd.DataFrame:
    from astropy.io.votable import parse

    table = parse(io.BytesIO(content)).get_first_table()
    return _from_astropy(table.to_table(use_names_over_ids=True))


def _from_astropy(table: Any) -> pd.DataFrame:
    """Write the columns of an astropy table as text."""
    from astropy import units
    from astropy.table import Column

    plain = [name for name in table.colnames if isinstance(table[name], Column) and table[name].ndim == 1]
    for name in plain:
        if table[name].unit in (units.rad, units.hourangle):
            table[name].convert_unit_to(units.deg)
    return table[plain].to_pandas(use_nullable_int=True).astype("string")


def _named(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Strip the columns' names, and refuse one that occurs twice."""
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    table = table.loc[:, table.columns != ""]
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise DataError(path, f"has two columns {twice[0]!r}", "rename one of them")
    return table
