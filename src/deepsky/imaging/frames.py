"""Read FITS frames: decompressed once, checked, in nanomaggies with their own world coordinates."""

import bz2
import gzip
import re
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from deepsky.errors import DataError

FRAME_SUFFIXES = (".fits", ".fits.bz2", ".fits.gz")
FluxArray = npt.NDArray[np.float32]

_UNITS = ("nanomaggy", "nanomaggies")
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

    Args:
        path: ``.fits``, ``.fits.bz2`` or ``.fits.gz``.
        band: the filter the file must hold, where its header says.
        run: the SDSS run the file must hold, where its header says; None takes any.
        camcol: likewise the camera column.

    Raises:
        DataError: unreadable or cut short, not FITS, no image, wrong unit, another band, run or camcol than
            expected, no sky coordinates, or a pixel that is not finite (names the first).
    """
    hdu = _first_image(path, _decompressed(path))
    _check_identity(path, hdu.header, {"FILTER": band, "RUN": run, "CAMCOL": camcol})
    unit = str(hdu.header.get("BUNIT", "")).strip()
    if unit not in _UNITS:
        raise DataError(path, f"BUNIT is {unit!r}", f"convert the pixels to nanomaggies and set BUNIT to {_UNITS[0]!r}")
    try:
        flux_nmgy = hdu.data.astype(np.float32)
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


def celestial_wcs(path: Path, header: fits.Header) -> WCS:
    """Build the two-axis world coordinates of a frame's header.

    Raises:
        DataError: the header has none; ``path`` only names the file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)  # SDSS writes RADECSYS, the old name of RADESYS
        try:
            wcs = WCS(header, fix=False)
        except Exception as error:  # wcslib has a dozen kinds, all of them "this header is no use"
            raise DataError(path, f"its sky coordinates cannot be read ({_reason(error)})", "solve its WCS") from error
    if wcs.naxis != 2 or not wcs.has_celestial:
        raise DataError(path, "has no sky coordinates (CTYPE1, CTYPE2)", "solve its WCS and write it into the header")
    return wcs


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".bz2":
        return cast(IO[bytes], bz2.open(path))
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _decompressed(path: Path) -> bytes:
    try:
        stored = path.read_bytes()
        if path.suffix == ".bz2":
            return bz2.decompress(stored)
        return gzip.decompress(stored) if path.suffix == ".gz" else stored
    except _UNREADABLE as error:
        raise DataError(path, f"cannot be decompressed ({_reason(error)})", _FETCH_AGAIN) from error


def _next_header(stream: IO[bytes]) -> fits.Header:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return fits.Header.fromfile(stream)
        except UserWarning as error:  # astropy only warns of what is no header at all
            raise ValueError(str(error)) from error


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


def _check_identity(path: Path, header: fits.Header, expected: dict[str, str | int | None]) -> None:
    """Compare what the header says of itself with what the file's name and place promise."""
    for key, wanted in expected.items():
        found = header.get(key)
        if wanted is not None and found is not None and str(found).strip() != str(wanted):
            raise DataError(path, f"its header says {key} {found}, not {wanted}", "give the file its right name")


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
