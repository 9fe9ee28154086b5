"""What band a frame is of, and of which field, by its file's name and by the filter that its header names."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepsky.errors import DataError
from deepsky.imaging.params import Reading

if TYPE_CHECKING:
    from astropy.io import fits  # slow to import

FRAME_FILES = "*.fits, *.fit or *.fts, also with .bz2, .gz or .fz"
_FRAME_FILE = re.compile(r"(?P<stem>.+)\.(fits|fit|fts)(\.(bz2|gz|fz))?", re.IGNORECASE)
_SDSS_NAME = re.compile(r"frame-(?P<band>[A-Za-z]+)-(?P<run>\d{6})-(?P<camcol>\d)-(?P<field>\d{4})")
# FILTER is everybody's, the others are of Pan-STARRS, Hubble (a key for each wheel) and ESO.
_FILTER_KEYS = ("FILTER", "FPA.FILTER", "FILTER1", "FILTER2", "FILTNAM1", "ESO INS FILT1 NAME")
_STANDARD_BANDS = {band: band for band in "ugrizyUBVRIJHK"}


@dataclass(frozen=True)
class Identity:
    """What a frame is.

    Attributes:
        field: ``{run:06d}-{camcol}-{field:04d}`` for SDSS, else the file's name without its band.
        band: of the project, a standard one that it does not have, or the name of an unknown filter.
        sdss: run, camcol and field; None for other frames.
    """

    field: str
    band: str
    sdss: tuple[int, int, int] | None = None


def is_frame(path: Path) -> bool:
    """Tell whether a file has the name of a frame; what is hidden is none."""
    return not path.name.startswith(".") and _FRAME_FILE.fullmatch(path.name) is not None


def stem_of(path: Path) -> str:
    """Return a frame's name without the suffixes that make it one."""
    match = _FRAME_FILE.fullmatch(path.name)
    return match["stem"] if match else path.stem


def identify(path: Path, reading: Reading, header: "Callable[[], fits.Header]") -> Identity:
    """Tell field and band of a frame.

    Args:
        path: of the frame.
        reading: bands and names of filters.
        header: reads its header; called only where the file's name does not say the band.

    Raises:
        DataError: nothing says the band.
    """
    known = identify_by_name(path, reading)
    if known is not None:
        return known
    own, stem = header(), stem_of(path)
    band, lower = band_of(own, reading), {name.lower(): band for name, band in _names(reading).items()}
    field, named = _without_band(stem, lower, str.lower) or (stem, None)
    if band is not None:  # M31_G.fits is band g of field M31 if it says so itself
        return Identity(field if named == band else stem, band)
    if named is not None:
        return Identity(field, named)
    if filter_names(own):
        return Identity(stem, " ".join(filter_names(own)))
    problem = "neither its name nor FILTER in its header says which band it is"
    raise DataError(path, problem, f"rename it, for example {stem}-{reading.bands[0]}.fits")


def identify_by_name(path: Path, reading: Reading) -> Identity | None:
    """Tell field and band of a frame by the file's name alone; None where that does not say the band."""
    stem = stem_of(path)
    match = _SDSS_NAME.fullmatch(stem)
    if match:
        run, camcol, number = int(match["run"]), int(match["camcol"]), int(match["field"])
        return Identity(f"{run:06d}-{camcol}-{number:04d}", match["band"], (run, camcol, number))
    found = _without_band(stem, _names(reading), str)
    return Identity(*found) if found else None


def band_of(header: "fits.Header", reading: Reading) -> str | None:
    """Return the band that a header's filter names: one of ``reading``, else a standard one, else None.

    It may stand among other words, in upper or lower case: ``g DECam SDSS c0001``, ``HSC-G``, ``r.00000``.
    """
    for names in (_names(reading), _STANDARD_BANDS):
        for text in filter_names(header):
            words = [text, *re.findall(r"[A-Za-z0-9]+", text)]
            for spelled in (str, str.lower):
                bands = {spelled(name): band for name, band in names.items()}
                found = {bands[spelled(word)] for word in words if spelled(word) in bands}
                if len(found) == 1:
                    return found.pop()
    return None


def filter_names(header: "fits.Header") -> list[str]:
    """List the filters that a header names, as it writes them."""
    return [text for key in _FILTER_KEYS if (text := str(header.get(key, "")).strip())]


def _names(reading: Reading) -> Mapping[str, str]:
    """Map what names a band to it."""
    return {**{band: band for band in reading.bands}, **reading.filters}


def _without_band(stem: str, names: Mapping[str, str], spelled: Callable[[str], str]) -> tuple[str, str] | None:
    """Take the last part of a name that names a band out of it; return what is left, and the band."""
    parts = re.split(r"([-_.])", stem)  # odd places hold the separators
    for place in range(len(parts) - 1, -1, -2):
        if spelled(parts[place]) in names:
            rest = parts[: max(place - 1, 0)] + parts[place + (1 if place else 2) :]
            return "".join(rest) or stem, names[spelled(parts[place])]
    return None
