"""What every way of adding a dataset shares: its name, its place in the project, its entry in params.yaml."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import click
import pandas as pd

from deepsky import config
from deepsky.catalogue.tables import read_objects, read_table
from deepsky.commands.drop import drop_demo
from deepsky.commands.versioning import dvc_add
from deepsky.config import PARAMS, Problems
from deepsky.errors import ConfigError, DataError
from deepsky.experiment import edit
from deepsky.files import whole_file, whole_folder
from deepsky.formats.params import datasets_of
from deepsky.imaging.picture_files import PictureFiles
from deepsky.networks.registry import known_networks
from deepsky.progress import track
from deepsky.tracking.lineage import recorded_hashes

EXTERNAL = Path("data/external")
NETWORKS = ("efficientnet_lite0", "cnn_small")  # of a comparison that begins with this dataset


@dataclass(frozen=True)
class Source:
    """Data to bring into the project.

    Attributes:
        place: the file or folder.
        target: where it will stand; the same file or folder where it lies in the project already.
        pictures: what a copy is made of; None: of all that is there.
        table: that stands beside the pictures in the copy; None: none does.
    """

    place: Path
    target: Path
    pictures: PictureFiles | None = None
    table: Path | None = None


@dataclass(frozen=True)
class Newcomer:
    """A dataset to register.

    Attributes:
        name: in params.yaml.
        kind: the section below ``datasets``: ``frames`` or ``pictures``.
        entry: its content.
        sources: what is copied and versioned.
        compared: the dataset that joins ``compare.datasets``; None: none does.
    """

    name: str
    kind: str
    entry: Mapping[str, Any]
    sources: Sequence[Source]
    compared: str | None = None


def check_name(name: str, datasets: Sequence[str]) -> None:
    """Refuse a name that reaches no shell safely, or that another dataset has already, or would have.

    Args:
        name: of the new entry.
        datasets: that it gives.

    Raises:
        ConfigError: says which.
    """
    problems = Problems()
    config.check_name(name, "the new dataset", problems)
    problems.stop()
    if name == "demo":
        raise ConfigError("name 'demo'", "means the datasets that deepsky comes with", "choose another name")
    document = edit.load()
    known = document.get("datasets") or {}
    frames, pictures = known.get("frames") or {}, known.get("pictures") or {}
    taken = {*frames, *pictures, *(dataset for each in frames for dataset in datasets_of(each))}
    taken |= {*known_networks(), *(document.get("runs") or {})}  # so that deepsky drop NAME means one thing
    for each in (name, *datasets):
        if each in taken:
            raise ConfigError(PARAMS, f"{each!r} exists already", "choose another name, or deepsky drop it first")


def classes_and_objects(labels: Path, id_column: str | None, label_column: str) -> tuple[tuple[str, ...], pd.DataFrame]:
    """Read the classes that occur, sorted, and the checked rows of a label table.

    Raises:
        DataError: the table cannot be used, or there is nothing to tell apart.
    """
    raw = read_table(labels, required=(label_column,))
    classes = tuple(sorted(set(raw[label_column].str.strip())))
    if "" in classes:
        raise DataError(labels, f"column {label_column!r} has empty cells", "label those rows or drop them")
    if len(classes) < 2:
        raise DataError(labels, f"holds the one class {classes[0]!r}", "give at least two classes to tell apart")
    return classes, read_objects(labels, id_column=id_column, label_column=label_column, classes=classes)


def in_project(place: Path) -> Path | None:
    """Return where a file or folder lies in the project, seen from its root; None: it lies elsewhere."""
    here, whole = Path.cwd(), place.resolve()
    return whole.relative_to(here) if whole.is_relative_to(here) and whole != here else None


def said(params: Any, *always: str) -> dict[str, Any]:
    """Return what an entry of params.yaml has to say: the keys without a default, and those that are not at it.

    Args:
        params: the dataclass that describes the entry.
        always: keys to write all the same.
    """
    values = {field.name: getattr(params, field.name) for field in fields(params)}
    defaults = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(params)
    }
    return {key: value for key, value in values.items() if key in always or value != defaults[key]}


def register(newcomer: Newcomer, *, only: bool) -> None:
    """Copy and version the data, then enter the dataset into params.yaml; a failure takes the copies away again.

    Args:
        newcomer: the dataset.
        only: leave out what deepsky's demonstration has of its own in params.yaml.

    Raises:
        ConfigError: data of another kind stand where the copies would.
        DataError: a file cannot be copied, or DVC refuses.
    """
    home = EXTERNAL / newcomer.name
    new = not home.exists()  # else it holds a download, or data of the user's
    for source in newcomer.sources:
        if source.target.exists() and not source.target.samefile(source.place):
            raise ConfigError(source.target, "exists already", "choose another name, or take it away")
        if not source.target.exists() and Path.cwd().is_relative_to(source.place.resolve()):
            raise ConfigError(source.place, "holds the project itself", "name the folder of the data alone")
    try:
        for source in newcomer.sources:
            _copy(source)
        _version([source.target for source in newcomer.sources])
        removed = _enter(newcomer, only=only)
    except BaseException:
        if new:
            shutil.rmtree(home, ignore_errors=True)
        raise
    learned = f" -> {newcomer.compared}; the next `make repro` includes it" if newcomer.compared else ""
    click.echo(f"added datasets.{newcomer.kind}.{newcomer.name}{learned}")
    for line in removed:
        click.echo(line)


def _enter(newcomer: Newcomer, *, only: bool) -> list[str]:
    """Write the entry; return what was removed for it."""
    document = edit.load()
    edit.set_entry(document, ("datasets", newcomer.kind, newcomer.name), newcomer.entry)
    if newcomer.compared:
        edit.add_member(document, ("compare", "datasets"), newcomer.compared)
        for network in () if document["compare"].get("networks") else NETWORKS:
            edit.add_member(document, ("compare", "networks"), network)
    removed = drop_demo(document) if only else []
    edit.save(document)
    return removed


def _copy(source: Source) -> None:
    if source.target.exists():  # it is the place itself
        return
    if not source.place.is_dir() and source.pictures is None:
        with whole_file(source.target) as file:
            shutil.copyfile(source.place, file)
        return
    with whole_folder(source.target) as folder:
        if source.pictures is not None:
            _copy_pictures(source.pictures, source.table, folder)
            return
        try:
            shutil.copytree(source.place, folder, dirs_exist_ok=True, ignore=_no_data)
        except shutil.Error as error:  # a list of (source, target, reason)
            first, _, reason = error.args[0][0]
            raise DataError(first, f"cannot be copied ({reason})", "mend or remove that file") from error


def _copy_pictures(files: PictureFiles, table: Path | None, folder: Path) -> None:
    for name in track(files.names, f"copying to {folder.parent}", len(files.names)):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(files.read_bytes(name))
    if table is not None:
        shutil.copyfile(table, folder / table.name)


def _no_data(folder: str, names: Sequence[str]) -> list[str]:
    """Name what is hidden, and what is neither file nor folder: reading a pipe or a device may never end."""
    return [
        name
        for name in names
        if name.startswith(".") or not (Path(folder, name).is_file() or Path(folder, name).is_dir())
    ]


def _version(paths: Sequence[Path]) -> None:
    """Put the data under DVC's care, but for what a stage writes: DVC has that already, and refuses it."""
    own = [path for path in paths if not recorded_hashes([str(place) for place in (path, *path.parents)])]
    if own:
        dvc_add(own)
