"""Turn what the pixels of a frame hold into nanomaggies: by its unit, its zero point, or what its survey says.

SDSS frames hold nanomaggies. Stacks of Pan-STARRS hold counts: as they are in the cutouts that its service sends,
asinh-scaled (BSOFTEN, BOFFSET) in the survey's own files.
"""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy import units
from astropy.io import fits

from deepsky.errors import DataError

warnings.filterwarnings("ignore", category=units.UnitsWarning)  # of erg/s/cm2: two slashes
FluxArray = npt.NDArray[np.float32]

_NANOMAGGY = units.Unit("nmgy")
_AB = units.zero_point_flux(3631 * units.Jy)
_NANOMAGGY_ZERO_POINT_MAG = 22.5
# Keys whose number is the AB magnitude of one unit of a pixel: of the DECam and ZTF pipelines, and of ESO's and CFHT's
# products. Others of their kind are of one second here and of the whole exposure there.
_ZERO_POINT_KEYS = ("MAGZERO", "MAGZP", "PHOTZP")
_SPELLINGS = re.compile(r"(?P<prefix>nano|n)? ?(maggies|maggys|maggy|mgys|mgy)(?![a-z])", re.IGNORECASE)
_PER_PIXEL = re.compile(r"\s*/\s*pix(el)?$|\s+pix(el)?(-1|\^-1|\*\*-1)$", re.IGNORECASE)

_ASINH_KEYS = ("BSOFTEN", "BOFFSET")
_STACK_ZERO_POINT_MAG = 25.0  # of one count per second, in every stack of Pan-STARRS
_MOST_MASKED = 0.5  # share of a stack's pixels


def flux_of(path: Path, header: fits.Header, pixels: npt.NDArray[Any], scale_nmgy: float | None) -> FluxArray:
    """Turn pixels into nanomaggies, float32.

    Args:
        path: names the frame in errors.
        header: of the frame.
        pixels: as its HDU gives them, (height, width).
        scale_nmgy: as ``scale_of`` gives it.

    Raises:
        DataError: more than half of a stack's pixels are masked.
    """
    if scale_nmgy is None:
        return _stack_flux(path, header, pixels.astype(np.float64))
    with np.errstate(over="ignore"):  # what overflows is refused as not finite
        return pixels.astype(np.float32) if scale_nmgy == 1 else (pixels * scale_nmgy).astype(np.float32)


def scale_of(path: Path, header: fits.Header, pixel_arcsec: float, zero_point_mag: float | None) -> float | None:
    """Return the nanomaggies that one unit of a pixel stands for.

    In this order: the zero point that is given; a stack of Pan-STARRS (BSOFTEN and BOFFSET in its header, or no BUNIT
    and FPA.TELESCOPE PS1); BUNIT, if it is a flux, or a flux per solid angle; a zero point or a flux of magnitude 0
    in the header (MAGZERO, MAGZP, PHOTZP, FLUXMAG0, or Hubble's PHOTFLAM and PHOTPLAM).

    Args:
        path: names the frame in errors.
        header: of the frame.
        pixel_arcsec: side of a pixel.
        zero_point_mag: AB magnitude of one unit of a pixel; None: the header says.

    Returns:
        The scale; None for a stack of Pan-STARRS, whose pixels need more than a scale.

    Raises:
        DataError: nothing says it, or a number is missing or none.
    """
    if zero_point_mag is not None:
        return _of_zero_point(zero_point_mag)
    if _is_stack(header):
        _stack_scale(path, header)
        return None
    text = str(header.get("BUNIT", "")).strip()
    scale = _of_unit(text, pixel_arcsec)
    scale = _of_keys(path, header, text) if scale is None else scale
    if scale is None or not (np.isfinite(scale) and scale > 0):
        problem = f"BUNIT is {text!r}, and nothing in its header turns that into flux"
        raise DataError(
            path, problem, "give zero_points (AB magnitude of one unit of a pixel), or set BUNIT to nanomaggy"
        )
    return scale


def _of_zero_point(magnitude: float) -> float:
    return float(10 ** (-0.4 * (magnitude - _NANOMAGGY_ZERO_POINT_MAG)))


def _of_unit(text: str, pixel_arcsec: float) -> float | None:
    """Return the nanomaggies of a unit of flux; None: it is no such unit."""
    text = _SPELLINGS.sub(lambda match: "nmgy" if match["prefix"] else "mgy", _PER_PIXEL.sub("", text))
    try:
        unit = units.Unit(text)
        for flux, factor in ((unit, 1.0), (unit * units.arcsec**2, pixel_arcsec**2)):
            if flux.is_equivalent(_NANOMAGGY, _AB):
                return float(flux.to(_NANOMAGGY, equivalencies=_AB)) * factor
    except (ValueError, TypeError, units.UnitsError):  # no unit that astropy knows, or magnitudes
        pass
    return None


def _of_keys(path: Path, header: fits.Header, unit: str) -> float | None:
    """Return the scale that keys of the header say; None: there are none."""
    for key in _ZERO_POINT_KEYS:
        if key in header:
            return _of_zero_point(_number(path, header, key))
    if "FLUXMAG0" in header:  # of HSC
        flux = _number(path, header, "FLUXMAG0")
        return 1e9 / flux if flux > 0 else None
    if "PHOTFLAM" in header and re.search(r"/ ?s(ec)?$", unit, re.IGNORECASE):  # of Hubble, of one count per second
        wavelength = _number(path, header, "PHOTPLAM") * units.AA
        density = _number(path, header, "PHOTFLAM") * units.Unit("erg / (s cm2 AA)")
        return float(density.to(units.Jy, units.spectral_density(wavelength)).to_value(_NANOMAGGY, _AB))
    return None


def _is_stack(header: fits.Header) -> bool:
    return all(key in header for key in _ASINH_KEYS) or (
        "BUNIT" not in header and str(header.get("FPA.TELESCOPE", "")).strip() == "PS1"
    )


def _stack_scale(path: Path, header: fits.Header) -> float:
    """Return the nanomaggies of one count of a stack."""
    exposure_s = _number(path, header, "EXPTIME")
    if exposure_s <= 0:
        raise DataError(path, f"EXPTIME is {exposure_s}", "fetch or copy the file again")
    for key in _ASINH_KEYS:
        if key in header:
            _number(path, header, key)
    return _of_zero_point(_STACK_ZERO_POINT_MAG) / exposure_s


def _stack_flux(path: Path, header: fits.Header, counts: npt.NDArray[np.float64]) -> FluxArray:
    """Turn a stack's pixels into nanomaggies, masked ones into 0, the level of its subtracted sky."""
    if all(key in header for key in _ASINH_KEYS):
        softening, offset = (_number(path, header, key) for key in _ASINH_KEYS)
        with np.errstate(over="ignore"):
            counts = offset + softening * 2 * np.sinh(counts * (np.log(10) / 2.5))
    masked = np.isnan(counts)
    if np.count_nonzero(masked) > _MOST_MASKED * counts.size:
        problem = f"{np.count_nonzero(masked)} of its {counts.size} pixels are masked (NaN)"
        raise DataError(path, problem, "drop the object, or set on_bad_file: skip in params.yaml")
    counts[masked] = 0
    with np.errstate(over="ignore"):
        return (counts * _stack_scale(path, header)).astype(np.float32)


def _number(path: Path, header: fits.Header, key: str) -> float:
    try:
        number = float(header[key])
    except (KeyError, TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        problem = f"its header has no number {key} ({header.get(key)!r})"
        raise DataError(path, problem, "fetch or copy the file again, or mend its header")
    return number
