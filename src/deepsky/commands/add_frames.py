"""Bring your own FITS frames: a folder and a catalogue of their objects become datasets of the project."""

from pathlib import Path
from typing import Literal

from deepsky.catalogue.tables import check_numbers
from deepsky.commands.registering import (
    EXTERNAL,
    Newcomer,
    Source,
    check_name,
    classes_and_objects,
    in_project,
    register,
    said,
)
from deepsky.config import build
from deepsky.formats.params import FramesParams, datasets_of
from deepsky.imaging.fields import find_fields, require_bands

MANY_FIELDS = 20


def run(
    name: str,
    folder: Path,
    catalogue: Path,
    *,
    id_column: str | None,
    label_column: str,
    position: Literal["radec", "xy"],
    position_band: str,
    bands: str,
    colours: str,
    cutout_size_px: int,
    only: bool = False,
) -> None:
    """Register a folder of FITS frames with a catalogue of their objects, and compare networks on ``name``_cutouts.

    Args:
        name: of the new frames.
        folder: FITS frames in nanomaggies with celestial WCS, one per band and field, at any depth.
        catalogue: CSV with class and position (ra, dec in degrees; or x, y in pixels from 0) of each object.
        id_column: its column that names each object once; None numbers the rows.
        label_column: its column with the class.
        position: which of the two positions counts.
        position_band: the band whose pixels x and y count.
        bands: comma-separated bands to cut out.
        colours: comma-separated bands shown as red, green and blue.
        cutout_size_px: side of the square cutouts.
        only: leave nothing of deepsky's demonstration in params.yaml.

    Raises:
        ConfigError: the name is taken or unfit, or a band is not among ``bands``.
        DataError: the folder or table is wrong; nothing was copied then.
    """
    check_name(name, datasets_of(name))
    band_names, colour_names = bands.split(","), colours.split(",")
    home = EXTERNAL / name
    sources = [
        Source(folder, in_project(folder) or home / "frames"),
        Source(catalogue, in_project(catalogue) or home / "catalogue.csv"),
    ]
    classes, objects = classes_and_objects(catalogue, id_column, label_column)
    entry = {
        "folder": str(sources[0].target),
        "catalogue": str(sources[1].target),
        "id_column": id_column,
        "label_column": label_column,
        "classes": list(classes),
        "position": position,
        "position_band": position_band,
        "bands": band_names,
        "frame_bands": (position_band,),
        "rgb_bands": colour_names,
        "colour_bands": colour_names,
        "cutout_size_px": cutout_size_px,
    }
    build(entry, FramesParams, f"frames {name}")
    check_numbers(objects, catalogue, ("ra", "dec") if position == "radec" else ("x", "y"))
    fields = find_fields(folder, band_names)
    for field in fields:
        require_bands(field, band_names)
    # With few pointings whole fields cannot be held back; cells of the sky can.
    many = len(fields) >= MANY_FIELDS
    group_by = "sky" if not many else "field" if all(field.sdss for field in fields) else "group"
    params: FramesParams = build(entry | {"group_by": group_by}, FramesParams, f"frames {name}")
    written = said(params, "group_by")
    register(Newcomer(name, "frames", written, sources, compared=f"{name}_cutouts"), only=only)
