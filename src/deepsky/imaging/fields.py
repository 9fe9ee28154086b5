"""Which frames belong to one field of the sky, and which field holds an object.

A folder is walked for ``.fits``, ``.fits.bz2`` and ``.fits.gz``. Two rules name band and field:

1. SDSS names, ``frame-{band}-{run:06d}-{camcol}-{field:04d}``: everything stands in the name.
2. Any other name is split at ``-``, ``_`` and ``.``. Its last part that equals a band of params.yaml is the band;
   the name without that part is the field's (``m31_g_deep.fits`` is band g of field ``m31_deep``). Where no part is
   a band, the header's FILTER is the band and the whole name the field's.

Frames of bands that params.yaml does not name are left alone.

A field may also be the cutout of one object, named by the object's id (``{id}-{band}.fits``).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from astropy.wcs import WCS

from deepsky.catalogue.sky import unit_vectors
from deepsky.errors import DataError
from deepsky.imaging.frames import FRAME_SUFFIXES, Frame, celestial_wcs, filter_name, read_frame, read_header

if TYPE_CHECKING:
    from scipy.spatial import KDTree

FIELD_COLUMNS = ("run", "camcol", "field")
# Catalogues count pixels from 0, 0.5 or 1, and fit centres of objects that the border cuts.
CENTRE_TOLERANCE_PX = 1.0
_WIDE_CHORD = 0.2  # on the unit sphere, about 11 degrees
_SDSS_NAME = re.compile(r"frame-(?P<band>[A-Za-z]+)-(?P<run>\d{6})-(?P<camcol>\d)-(?P<field>\d{4})")


@dataclass(frozen=True)
class SkyField:
    """The frames of one pointing, one per band.

    Attributes:
        name: ``{run:06d}-{camcol}-{field:04d}`` for SDSS, else the file name without its band.
        sdss: run, camcol and field; None for other frames.
        paths: the frame of each band.
        missing: bands that the archive does not have: (file, reason).
    """

    name: str
    sdss: tuple[int, int, int] | None
    paths: Mapping[str, Path]
    missing: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def find_fields(folder: Path, bands: Sequence[str], missing: Mapping[Path, str] | None = None) -> list[SkyField]:
    """Find the fields of a folder, sorted by name; a field may lack bands (``read_field`` refuses it then).

    Args:
        folder: the frames, at any depth.
        bands: those of params.yaml.
        missing: frames that the archive does not have, with the reason; their fields are listed as well.

    Raises:
        DataError: no frames at all, two frames for one band of one field, or a frame of unknown band.
    """
    lacking = _missing_fields(missing or {}, bands)
    paths = _frames_below(folder) if lacking else find_frames([folder])
    found = {each.name: each for each in (group_frames(paths, bands) if paths else [])}
    for name, each in lacking.items():
        found[name] = replace(found.get(name, each), missing=each.missing)
    return [found[name] for name in sorted(found)]


def find_frames(places: Sequence[Path]) -> list[Path]:
    """List frames: files as they are named, folders at any depth, each sorted.

    Raises:
        DataError: a place that is not there, or without frames.
    """
    frames: list[Path] = []
    for place in places:
        found = [place] if place.is_file() else _frames_below(place)
        if not found:
            kinds = ", ".join(f"*{suffix}" for suffix in FRAME_SUFFIXES)
            raise DataError(place, f"holds no frames ({kinds})", "name the right folder")
        frames += found
    return frames


def group_frames(paths: Sequence[Path], bands: Sequence[str]) -> list[SkyField]:
    """Put the frames of each field together, sorted by the fields' names.

    Raises:
        DataError: two frames for one band of one field, a frame of unknown band, or none of ``bands``.
    """
    found: dict[str, tuple[tuple[int, int, int] | None, dict[str, Path]]] = {}
    for path in paths:
        name, sdss, band = _identify(path, bands)
        if band not in bands:
            continue
        frames = found.setdefault(name, (sdss, {}))[1]
        if band in frames:
            problem = f"is a second frame of band {band} of field {name}, beside {frames[band]}"
            raise DataError(path, problem, "keep one of the two")
        frames[band] = path
    if not found:
        first = f"{paths[0]} and {len(paths) - 1} more" if paths else "no frames"
        raise DataError(first, f"none is of the bands {', '.join(bands)}", "name other frames or other bands")
    return [SkyField(name, *found[name]) for name in sorted(found)]


def require_bands(field: SkyField, bands: Sequence[str]) -> None:
    """Refuse a field that lacks a band.

    Raises:
        DataError: names the field, its folder and the missing bands.
    """
    missing = [band for band in bands if band not in field.paths]
    if missing:
        beside = next(iter(field.paths.values())).parent
        problem = f"field {field.name} has no frame of band {', '.join(missing)}"
        raise DataError(beside, problem, "add the file, or take the band out of params.yaml")


def read_field(field: SkyField, bands: Sequence[str]) -> dict[str, Frame]:
    """Read every band of a field.

    Raises:
        DataError: a missing band, a frame that cannot be used, or bands of different shapes.
    """
    require_bands(field, bands)
    run, camcol, _ = field.sdss or (None, None, None)
    frames = {band: read_frame(field.paths[band], band=band, run=run, camcol=camcol) for band in bands}
    first = frames[bands[0]]
    for frame in frames.values():
        if frame.flux_nmgy.shape != first.flux_nmgy.shape:
            problem = f"its shape {frame.flux_nmgy.shape} differs from {first.flux_nmgy.shape} of {first.path.name}"
            raise DataError(frame.path, problem, "give all bands of a field one shape")
    return frames


def assign_fields(
    objects: pd.DataFrame, fields: Sequence[SkyField], *, position: str, position_band: str, catalogue: Path
) -> npt.NDArray[np.int64]:
    """Find the field of each object: by run, camcol and field, else by its place on the sky, else the only one.

    On the sky the field that is named by the object's id and holds it comes first: that is the object's own cutout.
    Else it is the field that holds it farthest from its edges, for fields overlap.

    Args:
        objects: id, and run, camcol and field, or ra and dec (degrees); one row per object.
        fields: as ``find_fields`` gives them.
        position: ``radec`` or ``xy``, as in params.yaml.
        position_band: the band whose frame must contain the object.
        catalogue: names the table in errors.

    Returns:
        Index into ``fields``, -1 where none holds the object, (n objects,), int64.

    Raises:
        DataError: x/y positions without a way to tell the field, or an unreadable frame header.
    """
    if set(FIELD_COLUMNS) <= set(objects.columns) and all(field.sdss for field in fields):
        index = {field.sdss: number for number, field in enumerate(fields)}
        keys = zip(*(objects[column] for column in FIELD_COLUMNS), strict=True)
        return np.array([index.get(key, -1) for key in keys], np.int64)
    if position == "radec":
        return _containing_fields(objects, fields, position_band)
    if len(fields) > 1:
        problem = f"gives x and y only, and the frames are of {len(fields)} fields"
        raise DataError(catalogue, problem, "add columns run, camcol and field, or ra and dec (position: radec)")
    return np.zeros(len(objects), np.int64)


def _frames_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.fits*") if path.name.endswith(FRAME_SUFFIXES))


def _missing_fields(missing: Mapping[Path, str], bands: Sequence[str]) -> dict[str, SkyField]:
    """Put missing frames of the bands together, by their fields' names."""
    found: dict[str, SkyField] = {}
    for path, reason in missing.items():
        identity = _read_name(path, bands) if path.name.endswith(FRAME_SUFFIXES) else None
        if identity is None or identity[2] not in bands:  # no matter: another band, or no frame
            continue
        name, sdss, band = identity
        before = found.get(name, SkyField(name, sdss, {}))
        found[name] = replace(before, missing={**before.missing, band: (str(path), reason)})
    return found


def _identify(path: Path, bands: Sequence[str]) -> tuple[str, tuple[int, int, int] | None, str]:
    """Return the field's name, its SDSS identity and the band of a file."""
    identity = _read_name(path, bands)
    if identity is not None:
        return identity
    band, stem = filter_name(read_header(path)), _stem(path)
    if not band:
        problem = "neither its name nor FILTER in its header says which band it is"
        raise DataError(path, problem, f"rename it, for example {stem}-{bands[0]}.fits")
    return stem, None, band


def _read_name(path: Path, bands: Sequence[str]) -> tuple[str, tuple[int, int, int] | None, str] | None:
    """Read the field's name, its SDSS identity and the band out of a file's name; None where it tells no band."""
    stem = _stem(path)
    match = _SDSS_NAME.fullmatch(stem)
    if match:
        run, camcol, number = int(match["run"]), int(match["camcol"]), int(match["field"])
        return f"{run:06d}-{camcol}-{number:04d}", (run, camcol, number), match["band"]
    parts = re.split(r"([-_.])", stem)  # odd places hold the separators
    for place in range(len(parts) - 1, -1, -2):
        if parts[place] in bands:
            rest = parts[: max(place - 1, 0)] + parts[place + (1 if place else 2) :]
            return "".join(rest) or stem, None, parts[place]
    return None


def _stem(path: Path) -> str:
    return path.name.removesuffix(".bz2").removesuffix(".gz").removesuffix(".fits")


def _containing_fields(objects: pd.DataFrame, fields: Sequence[SkyField], position_band: str) -> npt.NDArray[np.int64]:
    """Index of each object's own cutout, else of the field that holds it farthest from its edges, -1 for none."""
    from scipy.spatial import KDTree  # slow to import

    ra_deg, dec_deg = objects["ra"].to_numpy(float), objects["dec"].to_numpy(float)
    sky = KDTree(unit_vectors(ra_deg, dec_deg))
    row_of = {name: row for row, name in enumerate(objects["id"])}
    chosen = np.full(len(objects), -1, np.int64)
    deepest_px = np.full(len(objects), -np.inf)
    for number, each in enumerate(fields):
        own = row_of.get(each.name)
        path = each.paths.get(position_band)
        if path is None:
            if own is not None:  # its cutout lacks this band: that is to be said, and no neighbour's to be taken
                chosen[own], deepest_px[own] = number, np.inf
            continue
        header = read_header(path)
        wcs, shape = celestial_wcs(path, header), (int(header["NAXIS2"]), int(header["NAXIS1"]))
        near = _near(wcs, shape, sky)
        if len(near):
            x_px, y_px = wcs.all_world2pix(ra_deg[near], dec_deg[near], 0)
            depth_px = edge_distance(x_px, y_px, shape)
            held = depth_px >= -CENTRE_TOLERANCE_PX
            depth_px[near == own] = np.inf
            better = held & (depth_px > deepest_px[near])
            chosen[near[better]], deepest_px[near[better]] = number, depth_px[better]
    return chosen


def _near(wcs: WCS, shape: tuple[int, int], sky: "KDTree") -> npt.NDArray[np.int64]:
    """Rows of the objects inside a circle around an image, or of all of them for a very wide one."""
    height, width = shape
    margin_px = 0.5 + CENTRE_TOLERANCE_PX
    left, right, bottom, top = -margin_px, width - 1 + margin_px, -margin_px, height - 1 + margin_px
    x_px = np.array([(width - 1) / 2, left, left, right, right])
    y_px = np.array([(height - 1) / 2, bottom, top, bottom, top])
    centre, *corners = unit_vectors(*wcs.all_pix2world(x_px, y_px, 0))
    radius = np.linalg.norm(np.array(corners) - centre, axis=1).max()
    if not radius < _WIDE_CHORD:  # NaN too: a corner is off the sky
        return np.arange(sky.n)
    return np.array(sorted(sky.query_ball_point(centre, radius * 1.05)), np.int64)  # 5 %: distortions


def edge_distance(
    x_px: npt.NDArray[np.float64], y_px: npt.NDArray[np.float64], shape: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Distance in pixels from points to the nearest border of an image (height, width); negative outside.

    Pixel centres are whole numbers, so the image spans -0.5 to width - 0.5. Points with no image (NaN) are at -inf.
    """
    height, width = shape
    nearest = np.min([x_px + 0.5, width - 0.5 - x_px, y_px + 0.5, height - 0.5 - y_px], axis=0)
    return np.where(np.isnan(nearest), -np.inf, nearest)
