"""Read FITS frames: decompressed once, checked, in nanomaggies with their own world coordinates.

SDSS frames hold nanomaggies. Stacks of Pan-STARRS hold counts: as they are in the cutouts that its service sends,
asinh-scaled (BSOFTEN, BOFFSET) in the survey's own files.
"""

import bz2
import gzip
import re
import warnings
import zlib
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from deepsky.errors import DataError

# Surveys write keywords by their old names, RADECSYS and PC001001. Not in a block of catch_warnings: what it sets holds
# for all threads, and may stay set when two of them leave it at a time.
warnings.filterwarnings("ignore", category=FITSFixedWarning)
FRAME_SUFFIXES = (".fits", ".fits.bz2", ".fits.gz")
FluxArray = npt.NDArray[np.float32]

_UNITS = ("nanomaggy", "nanomaggies")
_ASINH_KEYS = ("BSOFTEN", "BOFFSET")
_STACK_ZERO_POINT_MAG = 25.0  # of one count per second, in every stack of Pan-STARRS
_NANOMAGGY_ZERO_POINT_MAG = 22.5
_MOST_MASKED = 0.5  # share of a stack's pixels
# Remarks, and what Pan-STARRS says of its camera and of the images in a stack.
_NOT_COORDINATES = re.compile(r"|COMMENT|HISTORY|(FPA|CHIP|CELL)\..*|(INP|SCL|ZPT|EXP|AIR)_\d{4}")
_FIRST = (b"SIMPLE  =", b"XTENSION=")  # of a header
_UNREADABLE = (OSError, EOFError, ValueError, zlib.error)  # what bz2, gzip, zlib and astropy raise on bad bytes
_FETCH_AGAIN = "fetch or copy the file again"


@dataclass(frozen=True)
class Frame:
    """One band of one field.

    Attributes:
        flux_nmgy: nanomaggies per pixel, float32, (height, width), finite.
        wcs: celestial coordinates of this band's pixels, 0-based (x = column, y = row).
        path: the file it came from.
    """

    flux_nmgy: FluxArray
    wcs: WCS
    path: Path

    @property
    def pixel_scale_arcsec(self) -> float:
        """Side of a square of one pixel's area, arcsec."""
        return float(np.sqrt(abs(np.linalg.det(self.wcs.pixel_scale_matrix)))) * 3600


def read_frame(path: Path, *, band: str, run: int | None = None, camcol: int | None = None) -> Frame:
    """Read and check one frame; the first HDU that holds data must be an image.

    A stack of Pan-STARRS (BSOFTEN and BOFFSET in its header, or no BUNIT and FPA.TELESCOPE PS1) is turned from counts
    into nanomaggies. It masks pixels with NaN, few of them in most cutouts, often none near the object: they become
    0 nmgy, the level of its subtracted sky. Any other frame must be finite.

    Args:
        path: ``.fits``, ``.fits.bz2`` or ``.fits.gz``.
        band: the filter the file must hold, where its header says.
        run: the SDSS run the file must hold, where its header says; None takes any.
        camcol: likewise the camera column.

    Raises:
        DataError: unreadable or cut short, not FITS, no image, wrong unit, another band, run or camcol than
            expected, no sky coordinates, a pixel that is not finite (names the first), a stack without its exposure
            time or with more than half of its pixels masked.
    """
    hdu = _first_image(path, _decompressed(path))
    _check_identity(path, hdu.header, band=band, run=run, camcol=camcol)
    is_stack = _is_stack(hdu.header)
    unit = str(hdu.header.get("BUNIT", "")).strip()
    if not is_stack and unit not in _UNITS:
        raise DataError(path, f"BUNIT is {unit!r}", f"convert the pixels to nanomaggies and set BUNIT to {_UNITS[0]!r}")
    try:
        flux_nmgy = _stack_flux(path, hdu) if is_stack else hdu.data.astype(np.float32)
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(path, f"is cut short: its pixels cannot be read ({error})", _FETCH_AGAIN) from error
    _check_finite(path, flux_nmgy)
    return Frame(flux_nmgy, celestial_wcs(path, hdu.header), path)


def read_header(path: Path) -> fits.Header:
    """Read only the header of the first HDU that holds data (of a compressed file: its first block).

    Raises:
        DataError: unreadable, or not FITS.
    """
    try:
        with _opened(path) as stream:
            header = _next_header(stream)
            return header if header["NAXIS"] else _next_header(stream)
    except (*_UNREADABLE, KeyError) as error:
        raise DataError(path, f"is not a readable FITS file ({_reason(error)})", _FETCH_AGAIN) from error


def filter_name(header: fits.Header) -> str:
    """Band that a header names, "" where it names none; Pan-STARRS says ``r.00000`` under a key of its own."""
    name = header.get("FILTER", header.get("FPA.FILTER", ""))
    return re.sub(r"\.0+$", "", str(name).strip())


def celestial_wcs(path: Path, header: fits.Header) -> WCS:
    """Build the two-axis world coordinates of a frame's header.

    Raises:
        DataError: the header has none; ``path`` only names the file.
    """
    try:
        # Of the hundreds of cards of a stack astropy would verify each, several times: 5 ms instead of 1.
        cards = [card for card in header.cards if not _NOT_COORDINATES.fullmatch(card.keyword)]
        wcs = WCS(fits.Header(cards), fix=False)
    except Exception as error:  # wcslib has a dozen kinds, all of them "this header is no use"
        raise DataError(path, f"its sky coordinates cannot be read ({_reason(error)})", "solve its WCS") from error
    if wcs.naxis != 2 or not wcs.has_celestial:
        raise DataError(path, "has no sky coordinates (CTYPE1, CTYPE2)", "solve its WCS and write it into the header")
    return wcs


def _opened(path: Path) -> BufferedReader:
    if path.suffix == ".bz2":
        return cast(BufferedReader, bz2.open(path))
    return cast(BufferedReader, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _decompressed(path: Path) -> bytes:
    try:
        stored = path.read_bytes()
        if path.suffix == ".bz2":
            return bz2.decompress(stored)
        return gzip.decompress(stored) if path.suffix == ".gz" else stored
    except _UNREADABLE as error:
        raise DataError(path, f"cannot be decompressed ({_reason(error)})", _FETCH_AGAIN) from error


def _next_header(stream: BufferedReader) -> fits.Header:
    if not stream.peek(len(_FIRST[0])).startswith(_FIRST):  # astropy only warns of what is no header at all
        raise ValueError("no header begins where one should")
    return fits.Header.fromfile(stream)


def _first_image(path: Path, content: bytes) -> Any:
    """Wrap the first HDU with data around ``content`` without copying it."""
    if not content.startswith(b"SIMPLE  ="):
        raise DataError(path, "is not a FITS file (it does not begin with SIMPLE)", _FETCH_AGAIN)
    try:
        hdu: Any = fits.PrimaryHDU.fromstring(content)
        if not hdu.header["NAXIS"]:
            hdu = next((other for other in fits.HDUList.fromstring(content) if other.header["NAXIS"]), hdu)
        axes, is_image = hdu.header["NAXIS"], hdu.is_image
    except (*_UNREADABLE, KeyError, TypeError) as error:
        raise DataError(path, f"is not a readable FITS file ({_reason(error)})", _FETCH_AGAIN) from error
    if axes != 2 or not is_image:
        what = f"an image of {axes} axes" if is_image else "a table"
        raise DataError(path, f"its first data is {what}", "give frames whose first data is one image (height, width)")
    return hdu


def _check_identity(path: Path, header: fits.Header, *, band: str, run: int | None, camcol: int | None) -> None:
    """Compare what the header says of itself with what the file's name and place promise."""
    says = {"FILTER": filter_name(header) or None, "RUN": header.get("RUN"), "CAMCOL": header.get("CAMCOL")}
    for (key, found), wanted in zip(says.items(), (band, run, camcol), strict=True):
        if wanted is not None and found is not None and str(found).strip() != str(wanted):
            raise DataError(path, f"its header says {key} {found}, not {wanted}", "give the file its right name")


def _is_stack(header: fits.Header) -> bool:
    return all(key in header for key in _ASINH_KEYS) or (
        "BUNIT" not in header and str(header.get("FPA.TELESCOPE", "")).strip() == "PS1"
    )


def _stack_flux(path: Path, hdu: Any) -> FluxArray:
    """Turn a stack's pixels into nanomaggies, masked ones into 0."""
    counts = hdu.data.astype(np.float64)
    if all(key in hdu.header for key in _ASINH_KEYS):
        softening, offset = (_number(path, hdu.header, key) for key in _ASINH_KEYS)
        with np.errstate(over="ignore"):  # what overflows is refused as not finite
            counts = offset + softening * 2 * np.sinh(counts * (np.log(10) / 2.5))
    masked = np.isnan(counts)
    if np.count_nonzero(masked) > _MOST_MASKED * counts.size:
        problem = f"{np.count_nonzero(masked)} of its {counts.size} pixels are masked (NaN)"
        raise DataError(path, problem, "drop the object, or set on_bad_file: skip in params.yaml")
    counts[masked] = 0
    exposure_s = _number(path, hdu.header, "EXPTIME")
    if exposure_s <= 0:
        raise DataError(path, f"EXPTIME is {exposure_s}", _FETCH_AGAIN)
    nmgy_per_count = 10 ** (-0.4 * (_STACK_ZERO_POINT_MAG - _NANOMAGGY_ZERO_POINT_MAG)) / exposure_s
    with np.errstate(over="ignore"):
        return (counts * nmgy_per_count).astype(np.float32)


def _number(path: Path, header: fits.Header, key: str) -> float:
    try:
        number = float(header[key])
    except (KeyError, TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise DataError(path, f"its header has no number {key} ({header.get(key)!r})", _FETCH_AGAIN)
    return number


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
