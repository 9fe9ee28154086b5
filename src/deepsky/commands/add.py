"""Bring your own data: copy it under data/external, version it with `dvc add`, enter it in params.yaml."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import click
import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from deepsky.archives.params import DownloadParams
from deepsky.catalogue.objid import are_objids
from deepsky.catalogue.tables import check_numbers, read_objects, read_table
from deepsky.commands.published import get_published
from deepsky.commands.versioning import dvc_add
from deepsky.config import PARAMS, build, read_entries, read_section
from deepsky.datasets.packed import ROW_COLUMNS
from deepsky.datasets.params import GroupBy, SplitParams
from deepsky.datasets.splits import split_rows
from deepsky.errors import ConfigError, DataError, about
from deepsky.files import whole_file, whole_folder
from deepsky.formats.collection import CollectionParams
from deepsky.formats.packing import check_objects, check_pictures
from deepsky.imaging.badfiles import BadFiles
from deepsky.imaging.fields import find_fields, require_bands
from deepsky.imaging.picture_files import PictureFiles
from deepsky.imaging.pictures import PICTURE_SUFFIXES
from deepsky.stages.pack import ImagesParams
from deepsky.stages.pack_collection import choose
from deepsky.stages.render import FramesParams
from deepsky.tracking.lineage import recorded_hashes

EXTERNAL = Path("data/external")
MANY_FIELDS = 20
Sources = Mapping[str, tuple[Path, str]]  # key in params.yaml -> where the data are, and their name in the project


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
    mirrored: Sequence[str] = (),
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
        mirrored: pairs of classes, with a comma between, that a mirror image turns into each other.

    Raises:
        ConfigError: the name is taken or unfit.
        DataError: the folder or table is wrong; nothing was copied then.
    """
    _check_name(name, [name])
    classes, table = _classes_and_objects(labels, id_column, label_column)
    if group_column is not None and group_column not in table:
        raise DataError(labels, f"column {group_column!r} is missing", f"its columns are {', '.join(table)}")
    found = PictureFiles(folder).by_stem(table["id"])
    absent = [identity for identity in table["id"] if identity not in found]
    if absent:
        raise DataError(
            labels,
            f"names {len(absent)} of {len(table)} images that are not in {folder}, first {absent[0]!r}",
            f"add the files (named ID{PICTURE_SUFFIXES[0]} and the like) or drop those rows",
        )
    sources = {"folder": (folder, "images"), "labels": (labels, "labels.csv")}
    entry = {
        **_project_paths(name, sources),
        "id_column": id_column,
        "label_column": label_column,
        "classes": classes,
        "size_px": size_px,
        "crop_px": crop_px,
        "group_column": group_column,
        "mirrored": [[name.strip() for name in pair.split(",")] for pair in mirrored],
    }
    build(entry, ImagesParams, f"images {name}")
    group_by = "group" if group_column else "objid" if are_objids(table["id"]) else "image"
    _register(name, "images", entry, sources, {name: group_by})
    if not mirrored:
        entry_name = f"images.{name}.mirrored of {PARAMS}"
        click.echo(
            f"mirror images are taken to keep their class; if classes A and B swap, set {entry_name} to [[A, B]]"
        )


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
    _check_name(name, _frame_datasets(name))
    band_names, colour_names = bands.split(","), colours.split(",")
    sources = {"folder": (folder, "frames"), "catalogue": (catalogue, "catalogue.csv")}
    classes, objects = _classes_and_objects(catalogue, id_column, label_column)
    entry = {
        **_project_paths(name, sources),
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
    build(entry, FramesParams, f"frames {name}")
    check_numbers(objects, catalogue, ("ra", "dec") if position == "radec" else ("x", "y"))
    fields = find_fields(folder, band_names)
    for field in fields:
        require_bands(field, band_names)
    # With few pointings whole fields cannot be held back; cells of the sky can.
    many = len(fields) >= MANY_FIELDS
    group_by = "sky" if not many else "field" if all(field.sdss for field in fields) else "group"
    _register(name, "frames", entry, sources, {f"{name}_cutouts": group_by})


def add_collection(
    name: str, kind: str, source: Path | None, download: DownloadParams, *, group_by: GroupBy | None, **options: Any
) -> None:
    """Register a published dataset, in its own layout, as dataset ``name``.

    Every picture is decoded and prepared once, as packing will do it, so that packing finds nothing that this did not.

    Args:
        name: of the new dataset.
        kind: its format, a key of ``datasets.registry.COLLECTIONS``.
        source: the file or folder; None downloads it into data/external, where it is published for everyone.
        download: section ``download`` of params.yaml.
        group_by: what must stay together in a split; None takes what suits the format.
        options: the other keys of ``CollectionParams``.

    Raises:
        ConfigError: the name is taken or unfit, or the format has not what is asked of it.
        DataError: the source, one of its pictures or the download is wrong, or nothing can be learned from it;
            nothing was copied then.
    """
    _check_name(name, [name])
    home, where = EXTERNAL / name, f"collections {name}"
    entry = {"format": kind, "source": str(source or home), **options, "group_by": group_by or "image"}
    collection = choose(name, build(entry, CollectionParams, where))
    if source is not None and not source.exists():
        raise DataError(source, "does not exist", "name the file or folder that holds the dataset")
    source = source or get_published(kind, home, download)
    sources = {"source": (source, source.resolve().name)}
    entry |= {**_project_paths(name, sources), "group_by": group_by or collection.group_by}
    params = build(entry, CollectionParams, where)
    objects = collection.read(source, params)
    check_objects(objects, params.target, BadFiles("stop"), source)
    rows = objects.rows.reindex(columns=list(ROW_COLUMNS)).assign(image=range(len(objects.rows)))
    with about(source):
        split_rows(rows, params.group_by, read_section("split", SplitParams))
    check_pictures(name, objects)
    defaults = {field.name: field.default for field in fields(CollectionParams)}
    entry = {key: value for key, value in entry.items() if value != defaults[key]}
    _register(name, "collections", entry, sources, {})


def _frame_datasets(name: str) -> list[str]:
    """Name the datasets that render writes for the frames ``name``, whether they are learned from or not."""
    return [f"{name}_{kind}" for kind in ("frames", "rgb", "cutouts")]


def _check_name(name: str, datasets: Sequence[str]) -> None:
    """Refuse a name that another entry's outputs have already, or would have."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"name {name!r}", "is not of the form my_data_1", "use a-z, 0-9 and _")
    written = {dataset for frames in read_entries("frames") for dataset in _frame_datasets(frames)}
    entries = {key for section in ("images", "frames", "collections", "datasets") for key in read_entries(section)}
    taken = entries | written
    for entry in (name, *datasets):
        if entry in taken:
            raise ConfigError(PARAMS, f"{entry!r} exists already", "choose another name")


def _classes_and_objects(labels: Path, id_column: str | None, label_column: str) -> tuple[list[str], pd.DataFrame]:
    """Read the classes that occur, sorted, and the checked rows of a label table."""
    raw = read_table(labels, required=(label_column,))
    classes = sorted(set(raw[label_column].str.strip()))
    if "" in classes:
        raise DataError(labels, f"column {label_column!r} has empty cells", "label those rows or drop them")
    if len(classes) < 2:
        raise DataError(labels, f"holds the one class {classes[0]!r}", "give at least two classes to tell apart")
    return classes, read_objects(labels, id_column=id_column, label_column=label_column, classes=tuple(classes))


def _project_paths(name: str, sources: Sources) -> dict[str, str]:
    """Where each source will stand: below data/external, or where it is when it lies in the project already."""
    here = Path.cwd()
    return {
        key: str(
            source.resolve().relative_to(here) if source.resolve().is_relative_to(here) else EXTERNAL / name / target
        )
        for key, (source, target) in sources.items()
    }


def _register(name: str, section: str, entry: Mapping[str, Any], sources: Sources, datasets: Mapping[str, str]) -> None:
    """Copy and version the data, then write the entries into params.yaml; a failure takes the copies away again."""
    new = not (EXTERNAL / name).exists()  # else it holds a download, or data of the user's
    try:
        for key, (source, _) in sources.items():
            _copy(source, Path(entry[key]))
        _version([Path(entry[key]) for key in sources])
        _enter(name, section, entry, datasets)
    except BaseException:
        if new:
            shutil.rmtree(EXTERNAL / name, ignore_errors=True)
        raise
    if datasets:
        click.echo(f"added {section} {name} -> {', '.join(datasets)}; the next `make repro` includes it")
    else:
        more = "add an entry under recipes in params.yaml to learn from it"
        click.echo(f"added {section} {name}; the next `make repro` packs and splits it; {more}")


def _version(paths: Sequence[Path]) -> None:
    """Put the data under DVC's care, but for what a stage writes: DVC has that already, and refuses it."""
    own = [path for path in paths if not recorded_hashes([str(place) for place in (path, *path.parents)])]
    if own:
        dvc_add(own)


def _copy(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        return
    if source.is_dir():
        with whole_folder(target) as folder:
            try:
                shutil.copytree(source, folder, dirs_exist_ok=True)
            except shutil.Error as error:  # a list of (source, target, reason)
                first, _, reason = error.args[0][0]
                raise DataError(first, f"cannot be copied ({reason})", "mend or remove that file") from error
    else:
        with whole_file(target) as file:
            shutil.copyfile(source, file)


def _enter(name: str, section: str, entry: Mapping[str, Any], datasets: Mapping[str, str]) -> None:
    """Write the new entries into params.yaml with its comments kept."""
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


def _flow(value: Any) -> Any:
    """Write lists and mappings in one line, as the rest of params.yaml does."""
    if not isinstance(value, list | dict):
        return value
    flowing = CommentedSeq(value) if isinstance(value, list) else CommentedMap(value)
    flowing.fa.set_flow_style()
    return flowing
