"""Read FITS frames: decompressed once, checked, in nanomaggies with their own place on the sky."""

import bz2
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, BytesIO, RawIOBase
from pathlib import Path
from typing import Any, cast

import numpy as np
from astropy.io import fits

from deepsky.errors import DataError
from deepsky.imaging.astrometry import Astrometry, read_astrometry
from deepsky.imaging.frame_names import band_of, filter_names
from deepsky.imaging.params import Reading
from deepsky.imaging.photometry import FluxArray, flux_of, scale_of

_FIRST = (b"SIMPLE  =", b"XTENSION=")  # of a header
_MOST_AXES = 999  # of FITS
_IS_WRONG = 0  # what astropy says of a sum: 1 is right, 2 stands for none
_UNREADABLE = (OSError, EOFError, ValueError, zlib.error)  # what bz2, gzip, zlib and astropy raise on bad bytes
_FETCH_AGAIN = "fetch or copy the file again"


class NoImageError(DataError):
    """A FITS file whose first data is a table: a catalogue among the frames."""


@dataclass(frozen=True)
class Outline:
    """What the header of a frame says.

    Attributes:
        shape: (height, width) of the image.
        astrometry: where its pixels lie on the sky.
        scale_nmgy: nanomaggies of one unit of a pixel; None for a stack of Pan-STARRS.
    """

    shape: tuple[int, int]
    astrometry: Astrometry
    scale_nmgy: float | None


class _TableError(ValueError):
    """Where an image should be."""


@dataclass(frozen=True)
class Frame:
    """One band of one field.

    Attributes:
        flux_nmgy: nanomaggies per pixel, float32, (height, width), finite.
        astrometry: where this band's pixels lie on the sky.
        path: the file it came from.
    """

    flux_nmgy: FluxArray
    astrometry: Astrometry
    path: Path


def read_frame(
    path: Path, band: str, reading: Reading | None = None, sdss: tuple[int, int, int] | None = None
) -> Frame:
    """Read and check one frame; the first HDU that holds data must be an image.

    A stack of Pan-STARRS masks pixels with NaN, few of them in most cutouts, often none near the object: they become
    0 nmgy, the level of its subtracted sky. Any other frame must be finite.

    Args:
        path: FITS, plain or with .bz2, .gz or .fz (tile-compressed by fpack).
        band: the band that the file must hold, where its header says.
        reading: how filters are named and what pixels hold; None: as the header says.
        sdss: run, camcol and field; the first two must be those of the header, where it has them.

    Raises:
        DataError: unreadable, damaged or cut short, not FITS, no image, pixels of unknown unit, another band, run or
            camcol than expected, no sky coordinates, a pixel that is not finite (names the first), a stack without its
            exposure time or with more than half of its pixels masked.
    """
    hdu, header = _first_image(path, _decompressed(path))
    outline = _outline(path, header, band, reading or Reading((band,), band), sdss)
    try:
        damaged = hdu.verify_datasum() == _IS_WRONG
        pixels = hdu.data.reshape(outline.shape)
    except Exception as error:  # astropy has a dozen kinds, all of them "these bytes are no such image"
        problem = f"is cut short or damaged: its pixels cannot be read ({_reason(error)})"
        raise DataError(path, problem, _FETCH_AGAIN) from error
    if damaged:
        raise DataError(path, "is damaged: its pixels do not add up to its DATASUM", _FETCH_AGAIN)
    flux_nmgy = flux_of(path, header, pixels, outline.scale_nmgy)
    _check_finite(path, flux_nmgy)
    return Frame(flux_nmgy, outline.astrometry, path)


def read_outline(path: Path, band: str, reading: Reading, sdss: tuple[int, int, int] | None = None) -> Outline:
    """Read and check what ``read_frame`` needs of a frame's header, and no pixels.

    Raises:
        DataError: see ``read_frame``.
    """
    return _outline(path, read_header(path), band, reading, sdss)


def read_header(path: Path) -> fits.Header:
    """Read only the header of the first HDU that holds data (of a compressed file: its first block).

    What it does not say itself is taken from the file's first header.

    Raises:
        NoImageError: the first data is a table.
        DataError: unreadable, or not FITS.
    """
    _require_file(path)
    try:
        with _opened(path) as stream:
            return _image_header(stream)
    except _TableError as error:
        raise NoImageError(path, str(error), "give frames whose first data is one image") from error
    except Exception as error:  # of bz2, gzip, zlib and astropy, on bad bytes
        raise DataError(path, f"is not a readable FITS file ({_reason(error)})", _FETCH_AGAIN) from error


def shape_of(path: Path, header: fits.Header) -> tuple[int, int]:
    """Return height and width of the image that a header describes.

    Raises:
        DataError: it describes none, or one of more axes that have a length.
    """
    try:
        sides = [int(header[f"NAXIS{axis}"]) for axis in range(1, int(header["NAXIS"]) + 1)]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(path, f"is not a readable FITS file ({_reason(error)})", _FETCH_AGAIN) from error
    if len(sides) < 2 or min(sides) < 1 or any(side > 1 for side in sides[2:]):
        problem = f"its first data has {len(sides)} axes of {' x '.join(map(str, sides))}"
        raise DataError(path, problem, "give frames whose first data is one image (height, width)")
    return sides[1], sides[0]


@contextmanager
def legible(path: Path) -> Iterator[None]:
    """Tell in a line of a card that astropy cannot read; it finds out when the card is asked for.

    Raises:
        DataError: names the file.
    """
    try:
        yield
    except fits.VerifyError as error:
        raise DataError(path, f"is not a readable FITS file ({_reason(error)})", _FETCH_AGAIN) from error


def _outline(
    path: Path, header: fits.Header, band: str, reading: Reading, sdss: tuple[int, int, int] | None
) -> Outline:
    with legible(path):
        _check_identity(path, header, band, reading, sdss)
        shape, astrometry = shape_of(path, header), read_astrometry(path, header)
        scale_nmgy = scale_of(path, header, astrometry.pixel_scale_arcsec, reading.zero_points.get(band))
    return Outline(shape, astrometry, scale_nmgy)


def _require_file(path: Path) -> None:
    """Refuse what is no file, before a pipe is waited for."""
    if not path.is_file():
        raise DataError(path, "is no file" if path.exists() else "does not exist", "name a FITS frame")


def _opened(path: Path) -> BufferedReader:
    if path.suffix.lower() == ".bz2":
        return cast(BufferedReader, bz2.open(path))
    return cast(BufferedReader, gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _decompressed(path: Path) -> bytes:
    _require_file(path)
    try:
        stored, suffix = path.read_bytes(), path.suffix.lower()
        if suffix == ".bz2":
            return bz2.decompress(stored)
        return gzip.decompress(stored) if suffix == ".gz" else stored
    except _UNREADABLE as error:
        raise DataError(path, f"cannot be decompressed ({_reason(error)})", _FETCH_AGAIN) from error


def _image_header(stream: BufferedReader) -> fits.Header:
    """Read the header of the first HDU that holds data, with what the file's first header says of the whole file."""
    header = primary = _next_header(stream)
    while not header["NAXIS"]:
        header = _next_header(stream)
    if header is primary:
        return header
    if header.get("ZIMAGE"):  # compressed tiles: the table that holds them describes the image
        for key in [key for key in header if key.startswith("ZNAXIS")]:
            header[key[1:]] = header[key]
    elif header["XTENSION"].strip() != "IMAGE":
        raise _TableError("its first data is a table")
    header.extend(primary, unique=True, update=False)
    return header


def _next_header(stream: BufferedReader) -> fits.Header:
    if not stream.peek(len(_FIRST[0])).startswith(_FIRST):  # astropy only warns of what is no header at all
        raise ValueError("no header begins where one should")
    header = fits.Header.fromfile(stream)
    if not 0 <= header["NAXIS"] <= _MOST_AXES:
        raise ValueError(f"NAXIS is {header['NAXIS']}")
    return header


def _first_image(path: Path, content: bytes) -> tuple[Any, fits.Header]:
    """Wrap the first HDU with data around ``content`` without copying it; return it and what ``read_header`` gives."""
    if not content.startswith(b"SIMPLE  ="):
        raise DataError(path, "is not a FITS file (it does not begin with SIMPLE)", _FETCH_AGAIN)
    try:
        header = _image_header(BufferedReader(cast(RawIOBase, BytesIO(content))))
        hdu = fits.PrimaryHDU.fromstring(content)
        if not hdu.header["NAXIS"]:
            hdu = next(other for other in fits.HDUList.fromstring(content) if other.header["NAXIS"])
        return hdu, header
    except Exception as error:  # astropy has a dozen kinds, all of them "this is no such file"
        raise DataError(path, f"is not a readable FITS file ({_reason(error)})", _FETCH_AGAIN) from error


def _check_identity(
    path: Path, header: fits.Header, band: str, reading: Reading, sdss: tuple[int, int, int] | None
) -> None:
    """Compare what the header says of itself with what the file's name and place promise."""
    says: dict[str, tuple[Any, Any, Any]] = {"FILTER": (" ".join(filter_names(header)), band_of(header, reading), band)}
    if sdss is not None:
        says |= {
            key: (header.get(key), header.get(key), own) for key, own in zip(("RUN", "CAMCOL"), sdss, strict=False)
        }
    for key, (text, found, wanted) in says.items():
        if found is not None and str(found).strip() != str(wanted):
            raise DataError(path, f"its header says {key} {text}, not {wanted}", "give the file its right name")


def _check_finite(path: Path, flux_nmgy: FluxArray) -> None:
    # The sum is finite only if every pixel is: half the time of isfinite().all() and no temporary array.
    if not np.isfinite(flux_nmgy.sum(dtype=np.float64)):
        row, column = np.argwhere(~np.isfinite(flux_nmgy))[0]
        value, count = flux_nmgy[row, column], np.count_nonzero(~np.isfinite(flux_nmgy))
        problem = f"pixel (row {row}, column {column}) is {value}, the first of {count} that are not finite"
        raise DataError(path, problem, "repair these pixels or leave the field out")


def _reason(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return re.sub(r"\s+", " ", str(reason))[:200]
