"""Which frames belong to one field of the sky, and which field holds an object.

A folder is walked for FITS files; what is hidden is no data. Three rules name band and field:

1. SDSS names, ``frame-{band}-{run:06d}-{camcol}-{field:04d}``: everything stands in the name.
2. Any other name is split at ``-``, ``_`` and ``.``. Its last part that equals a band (or a filter that params.yaml
   maps to one) is the band; the name without that part is the field's (``m31_g_deep.fits`` is band g of field
   ``m31_deep``).
3. Where no part is a band, the filter of the header says it, or a part that differs by upper and lower case alone.

Frames of other bands are left alone.

A field may also be the cutout of one object, named by the object's id (``{id}-{band}.fits``).
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.catalogue.sky import unit_vectors
from deepsky.errors import DataError
from deepsky.imaging.astrometry import CENTRE_TOLERANCE_PX, Astrometry, is_inside, read_astrometry
from deepsky.imaging.badfiles import BadFiles
from deepsky.imaging.frame_names import FRAME_FILES, identify, identify_by_name, is_frame
from deepsky.imaging.frames import (
    Frame,
    NoImageError,
    Outline,
    legible,
    read_frame,
    read_header,
    read_outline,
    shape_of,
)
from deepsky.imaging.params import Reading

if TYPE_CHECKING:
    from scipy.spatial import KDTree

FIELD_COLUMNS = ("run", "camcol", "field")
_WIDE_CHORD = 0.2  # on the unit sphere, about 11 degrees


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


@dataclass
class FieldSearch:
    """Puts the frames of each field together.

    Attributes:
        reading: which bands, and how filters are named.
        bad: meets frames that cannot be read, and second frames for one band of one field.
        others: how many files are of each band or filter that was not asked for, or tables.
    """

    reading: Reading
    bad: BadFiles = field(default_factory=lambda: BadFiles("stop"))
    others: Counter[str] = field(default_factory=Counter)

    def below(self, folder: Path, missing: Mapping[Path, str] | None = None) -> list[SkyField]:
        """Find the fields of a folder, sorted by name; a field may lack bands (``read_field`` refuses it then).

        Args:
            folder: the frames, at any depth.
            missing: frames that the archive does not have, with the reason; their fields are listed as well.

        Raises:
            DataError: no frames at all, or what ``bad`` does not let pass.
        """
        lacking = self._missing_fields(missing or {})
        paths = _frames_below(folder) if lacking else find_frames([folder])
        found = {each.name: each for each in (self.group(paths) if paths else [])}
        for name, each in lacking.items():
            found[name] = replace(found.get(name, each), missing=each.missing)
        return [found[name] for name in sorted(found)]

    def group(self, paths: Sequence[Path]) -> list[SkyField]:
        """Put frames together, sorted by the fields' names.

        Raises:
            DataError: none is of the bands, or what ``bad`` does not let pass.
        """
        found: dict[str, SkyField] = {}
        for path in paths:
            try:
                self._enter(path, found)
            except NoImageError:
                self.others["a table"] += 1
            except DataError as error:
                self.bad.meet(error)
        if not found:
            first = f"{paths[0]} and {len(paths) - 1} more" if paths else "no frames"
            reasons = [f"the first that cannot be read: {': '.join(self.bad.skipped[0])}"] if self.bad.skipped else []
            reasons += [f"they are of {', '.join(self.others)}"] if self.others else []
            problem = "; ".join([f"none is of the bands {', '.join(self.reading.bands)}", *reasons])
            raise DataError(first, problem, "name other frames or bands, or map filters to bands")
        return [found[name] for name in sorted(found)]

    def _enter(self, path: Path, found: dict[str, SkyField]) -> None:
        with legible(path):
            identity = identify(path, self.reading, partial(read_header, path))
        if identity.band not in self.reading.bands:
            self.others[identity.band] += 1
            return
        known = found.get(identity.field, SkyField(identity.field, identity.sdss, {}))
        if identity.band in known.paths:
            problem = f"is a second frame of band {identity.band} of field {known.name}"
            raise DataError(path, f"{problem}, beside {known.paths[identity.band]}", "keep one of the two")
        found[identity.field] = replace(known, paths={**known.paths, identity.band: path})

    def _missing_fields(self, missing: Mapping[Path, str]) -> dict[str, SkyField]:
        """Put missing frames of the bands together, by their fields' names."""
        found: dict[str, SkyField] = {}
        for path, reason in missing.items():
            identity = identify_by_name(path, self.reading) if is_frame(path) else None
            if identity is None or identity.band not in self.reading.bands:  # no matter: another band, or no frame
                continue
            before = found.get(identity.field, SkyField(identity.field, identity.sdss, {}))
            found[before.name] = replace(before, missing={**before.missing, identity.band: (str(path), reason)})
        return found


def find_frames(places: Sequence[Path]) -> list[Path]:
    """List frames: files as they are named, folders at any depth, each sorted; what is hidden in a folder is none.

    Raises:
        DataError: a place that is not there, or without frames.
    """
    frames: list[Path] = []
    for place in places:
        if not place.exists():
            raise DataError(place, "does not exist", "name the folder of the frames")
        found = _frames_below(place) if place.is_dir() else [place]
        if not found:
            raise DataError(place, f"holds no frames ({FRAME_FILES})", "name the right folder")
        frames += found
    return frames


def require_bands(field: SkyField, bands: Sequence[str]) -> None:
    """Refuse a field that lacks a band.

    Raises:
        DataError: names the field, its folder and the missing bands.
    """
    missing = [band for band in bands if band not in field.paths]
    if missing:
        beside = next(iter(field.paths.values())).parent
        problem = f"field {field.name} has no frame of band {', '.join(missing)}"
        raise DataError(beside, problem, "add the file, or read fewer bands (bands)")


def read_field(field: SkyField, reading: Reading) -> dict[str, Frame]:
    """Read every band of a field.

    Raises:
        DataError: a missing band, a frame that cannot be used, or bands of different shapes.
    """
    require_bands(field, reading.bands)
    frames = {band: read_frame(field.paths[band], band, reading, field.sdss) for band in reading.bands}
    _require_one_shape({frame.path: frame.flux_nmgy.shape for frame in frames.values()})
    return frames


def read_outlines(field: SkyField, reading: Reading) -> dict[str, Outline]:
    """Check every band of a field as ``read_field`` does, by the headers alone.

    Raises:
        DataError: see ``read_field``.
    """
    require_bands(field, reading.bands)
    outlines = {band: read_outline(field.paths[band], band, reading, field.sdss) for band in reading.bands}
    _require_one_shape({field.paths[band]: outline.shape for band, outline in outlines.items()})
    return outlines


def assign_fields(
    objects: pd.DataFrame, fields: Sequence[SkyField], reading: Reading, catalogue: Path, bad: BadFiles
) -> npt.NDArray[np.int64]:
    """Find the field of each object: by run, camcol and field, else by its place on the sky, else the only one.

    On the sky the field that is named by the object's id and holds it comes first: that is the object's own cutout.
    Else it is the field that holds it farthest from its edges, for fields overlap.

    Args:
        objects: id, and run, camcol and field, or ra and dec (degrees); one row per object.
        fields: as ``FieldSearch`` gives them.
        reading: how positions are given, and the band whose frame must contain the object.
        catalogue: names the table in errors.
        bad: meets frames whose header cannot be read.

    Returns:
        Index into ``fields``, -1 where none holds the object, (n objects,), int64.

    Raises:
        DataError: x/y positions without a way to tell the field, or what ``bad`` does not let pass.
    """
    if set(FIELD_COLUMNS) <= set(objects.columns) and all(field.sdss for field in fields):
        index = {field.sdss: number for number, field in enumerate(fields)}
        keys = zip(*(objects[column] for column in FIELD_COLUMNS), strict=True)
        return np.array([index.get(key, -1) for key in keys], np.int64)
    if reading.position == "radec":
        return _containing_fields(objects, fields, reading.position_band, bad)
    if len(fields) > 1:
        problem = f"gives x and y only, and the frames are of {len(fields)} fields"
        raise DataError(catalogue, problem, "add columns run, camcol and field, or ra and dec (position: radec)")
    return np.zeros(len(objects), np.int64)


def _require_one_shape(shapes: Mapping[Path, tuple[int, ...]]) -> None:
    (first, wanted), *others = shapes.items()
    for path, shape in others:
        if shape != wanted:
            problem = f"its shape {shape} differs from {wanted} of {first.name}"
            raise DataError(path, problem, "give all bands of a field one shape")


def _frames_below(folder: Path) -> list[Path]:
    """List the frames of a folder, without hidden files and folders, sorted."""
    found: list[Path] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [path for name in files if is_frame(path := Path(parent, name))]
    return sorted(found)


def _containing_fields(
    objects: pd.DataFrame, fields: Sequence[SkyField], position_band: str, bad: BadFiles
) -> npt.NDArray[np.int64]:
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
        try:
            with legible(path):
                header = read_header(path)
                astrometry, shape = read_astrometry(path, header), shape_of(path, header)
        except NoImageError:  # m31-g.cat.fits, beside the frame that it is of
            continue
        except DataError as error:
            bad.meet(error)
            continue
        near = _near(astrometry, shape, sky)
        if len(near):
            depth_px = astrometry.depth(ra_deg[near], dec_deg[near], shape)
            held = is_inside(depth_px)
            depth_px[near == own] = np.inf
            better = held & (depth_px > deepest_px[near])
            chosen[near[better]], deepest_px[near[better]] = number, depth_px[better]
    return chosen


def _near(astrometry: Astrometry, shape: tuple[int, int], sky: "KDTree") -> npt.NDArray[np.int64]:
    """Rows of the objects inside a circle around an image, or of all of them for a very wide one."""
    height, width = shape
    margin_px = 0.5 + CENTRE_TOLERANCE_PX
    left, right, bottom, top = -margin_px, width - 1 + margin_px, -margin_px, height - 1 + margin_px
    x_px = np.array([(width - 1) / 2, left, left, right, right])
    y_px = np.array([(height - 1) / 2, bottom, top, bottom, top])
    centre, *corners = unit_vectors(*astrometry.to_sky(x_px, y_px))
    radius = np.linalg.norm(np.array(corners) - centre, axis=1).max()
    if not radius < _WIDE_CHORD:  # NaN too: a corner is off the sky
        return np.arange(sky.n)
    return np.array(sorted(sky.query_ball_point(centre, radius * 1.05)), np.int64)  # 5 %: distortions
