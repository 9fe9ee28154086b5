"""Bring your own data: copy it under data/external, version it with `dvc add`, enter it in params.yaml."""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click
import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from deepsky.catalogue.objid import are_objids
from deepsky.catalogue.tables import read_objects, read_table
from deepsky.config import PARAMS, read_yaml
from deepsky.errors import ConfigError, DataError
from deepsky.files import whole_file, whole_folder
from deepsky.imaging.fields import find_fields, require_bands
from deepsky.imaging.pictures import PICTURE_SUFFIXES

EXTERNAL = Path("data/external")
MANY_FIELDS = 20


def add_images(
    name: str,
    folder: Path,
    labels: Path,
    *,
    id_column: str,
    label_column: str,
    size_px: int,
    crop_px: int | None,
    group_column: str | None,
) -> None:
    """Register a folder of images with a label table as dataset ``name``.

    Args:
        name: of the new dataset.
        folder: images named by id, at any depth.
        labels: CSV with the id and label columns.
        id_column: its column that names each image once.
        label_column: its column with the class.
        size_px: side of the square pictures to learn from.
        crop_px: side of a centre crop before that, or None.
        group_column: column that says which images belong together (one split for all of a group), or None.

    Raises:
        ConfigError: the name is taken or unfit.
        DataError: the folder or table is wrong; nothing was copied then.
    """
    _check_name(name, "images", [name])
    classes, ids = _classes_and_ids(labels, id_column, label_column)
    stems = {path.stem for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES}
    absent = [id_ for id_ in ids if id_ not in stems]
    if absent:
        raise DataError(
            labels,
            f"names {len(absent)} of {len(ids)} images that are not in {folder}, first {absent[0]!r}",
            f"add the files (named ID{PICTURE_SUFFIXES[0]} and the like) or drop those rows",
        )
    entry = {
        "folder": _take_in(name, "images", folder),
        "labels": _take_in(name, "labels.csv", labels),
        "id_column": id_column,
        "label_column": label_column,
        "classes": classes,
        "size_px": size_px,
        "crop_px": crop_px,
        "group_column": group_column,
    }
    group_by = "group" if group_column else "objid" if are_objids(ids) else "image"
    _register(name, "images", entry, {name: group_by})


def add_frames(
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
) -> None:
    """Register a folder of FITS frames with a catalogue of their objects as dataset ``name``_cutouts.

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

    Raises:
        ConfigError: the name is taken or unfit, or a band is not among ``bands``.
        DataError: the folder or table is wrong; nothing was copied then.
    """
    _check_name(name, "frames", [f"{name}_cutouts"])
    band_names, colour_names = bands.split(","), colours.split(",")
    for band in (*colour_names, position_band):
        if band not in band_names:
            raise ConfigError(f"band {band!r}", f"is not among --bands {bands}", "name it there or choose another")
    fields = find_fields(folder, band_names)
    for field in fields:
        require_bands(field, band_names)
    classes, _ = _classes_and_ids(catalogue, id_column, label_column)
    read_table(catalogue, required=("ra", "dec") if position == "radec" else ("x", "y"))
    entry = {
        "folder": _take_in(name, "frames", folder),
        "catalogue": _take_in(name, "catalogue.csv", catalogue),
        "id_column": id_column,
        "label_column": label_column,
        "classes": classes,
        "position": position,
        "position_band": position_band,
        "bands": band_names,
        "frame_band": position_band,
        "rgb_bands": colour_names,
        "colour_bands": colour_names,
        "cutout_size_px": cutout_size_px,
    }
    # With few pointings whole fields cannot be held back; cells of the sky can.
    many = len(fields) >= MANY_FIELDS
    group_by = "sky" if not many else "field" if all(field.sdss for field in fields) else "group"
    _register(name, "frames", entry, {f"{name}_cutouts": group_by})


def _check_name(name: str, section: str, datasets: Sequence[str]) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"name {name!r}", "is not of the form my_data_1", "use a-z, 0-9 and _")
    for key, taken in ((section, [name]), ("datasets", datasets)):
        for entry in taken:
            if entry in read_yaml(key):
                raise ConfigError(f"{PARAMS}: {key}", f"{entry!r} exists already", "choose another name")


def _classes_and_ids(labels: Path, id_column: str | None, label_column: str) -> tuple[list[str], pd.Series]:
    """Read the classes that occur, sorted, and the checked ids of a label table."""
    raw = read_table(labels, required=(label_column,))
    classes = sorted(set(raw[label_column].str.strip()))
    if "" in classes:
        raise DataError(labels, f"column {label_column!r} has empty cells", "label those rows or drop them")
    if len(classes) < 2:
        raise DataError(labels, f"holds the one class {classes[0]!r}", "give at least two classes to tell apart")
    table = read_objects(labels, id_column=id_column, label_column=label_column, classes=tuple(classes))
    return classes, table["id"]


def _take_in(name: str, target: str, source: Path) -> str:
    """Copy ``source`` under data/external unless it lies in the project already; return its project path."""
    if source.resolve().is_relative_to(Path.cwd()):
        return str(source.resolve().relative_to(Path.cwd()))
    path = EXTERNAL / name / target
    if source.is_dir():
        with whole_folder(path) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
    else:
        with whole_file(path) as file:
            shutil.copyfile(source, file)
    return str(path)


def _register(name: str, section: str, entry: Mapping[str, Any], datasets: Mapping[str, str]) -> None:
    """Version the data, then write the entries into params.yaml with its comments kept."""
    paths = [value for key, value in entry.items() if key in ("folder", "labels", "catalogue")]
    added = subprocess.run(["dvc", "add", "--quiet", *paths], capture_output=True, text=True)
    if added.returncode:
        raise DataError(paths[0], f"dvc add failed: {added.stderr.strip()}", "mend that and add the data again")
    yaml = YAML()
    yaml.width = 4096
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    document = yaml.load(PARAMS)
    document[section][name] = CommentedMap({key: _flow(value) for key, value in entry.items()})
    for dataset, group_by in datasets.items():
        document["datasets"][dataset] = _flow({"group_by": group_by})
    with whole_file(PARAMS) as path:
        yaml.dump(document, path)
    click.echo(f"added {section} {name} -> {', '.join(datasets)}; the next `make repro` includes it")


def _flow(value: Any) -> Any:
    """Write lists and mappings in one line, as the rest of params.yaml does."""
    if not isinstance(value, list | dict):
        return value
    flowing = CommentedSeq(value) if isinstance(value, list) else CommentedMap(value)
    flowing.fa.set_flow_style()
    return flowing
