"""Bring your own pictures: a folder for each class, or a folder and a table, become a dataset of the project."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from deepsky.catalogue.objid import are_objids
from deepsky.catalogue.tables import read_table
from deepsky.commands.looking import look_through, other_files, unsmoothed
from deepsky.commands.registering import EXTERNAL, Newcomer, Source, check_name, in_project, register, said
from deepsky.config import PARAMS, build
from deepsky.datasets.params import GroupBy
from deepsky.errors import ConfigError, DataError
from deepsky.experiment.experiment import read_experiment
from deepsky.formats import class_folders, galaxy_zoo_votes, images
from deepsky.formats.format import UNLABELLED, UNNAMED, Objects
from deepsky.formats.params import PicturesParams
from deepsky.formats.reading import part_of
from deepsky.imaging.picture_files import PictureFiles
from deepsky.imaging.pictures import PICTURE_SUFFIXES

_WITHOUT_LABEL = (class_folders.UNSORTED, UNNAMED, UNLABELLED)


@dataclass(frozen=True)
class Labels:
    """How the class of each picture is told.

    Attributes:
        table: of the labels; None: each class has a folder of its own.
        id_column: of the table: names each picture's file.
        label_column: of the table: the class.
        class_columns: of a table of votes or flags, instead of a label column: the column of each class.
        classes: those to keep, in the order of the label encoding; none given: all that occur.
    """

    table: Path | None = None
    id_column: str = "id"
    label_column: str = "class"
    class_columns: Mapping[str, str] = field(default_factory=dict)
    classes: Sequence[str] = ()


def run(
    name: str, folder: Path, labels: Labels, *, group_by: GroupBy | None = None, only: bool = False, **options: Any
) -> None:
    """Register a person's pictures as dataset ``name``, and compare networks on it.

    Every picture that has a label is decoded and prepared once, as packing will do it.

    Args:
        name: of the new dataset.
        folder: of the pictures, at any depth; or a zip of them.
        labels: how their classes are told.
        group_by: what must stay together in a split; None takes what suits the pictures.
        only: leave nothing of deepsky's demonstration in params.yaml.
        options: the other keys of ``PicturesParams``.

    Raises:
        ConfigError: the name is taken or unfit, or an option is wrong.
        DataError: the folder, the table or a picture is wrong, or nothing can be learned; nothing was copied then.
    """
    check_name(name, [name])
    experiment, others = read_experiment(), _look_around(folder, labels.table)
    files = PictureFiles(folder)
    if not files.names:
        problem = f"holds no pictures (*{', *'.join(PICTURE_SUFFIXES)}{_listed(others, ', but: ')})"
        raise DataError(folder, problem, "name the folder that holds them")
    entry, read = _layout(files, labels)
    source = _source(name, files, labels.table)
    entry = {**options, **entry, "source": str(source.target), "group_by": group_by}
    params: PicturesParams = build(entry, PicturesParams, f"dataset {name}")
    objects = read(unsmoothed(params))
    params = replace(params, group_by=group_by or _group_by(params, objects))
    objects = part_of(objects, folder, params)
    bad = look_through(name, objects, params, experiment, labels.table or folder)
    unfit = {error.where for error in bad.values()}
    files.names = [one for one in files.names if str(folder / one) not in unfit]
    register(Newcomer(name, "pictures", said(params, "group_by"), [source], compared=name), only=only)
    _tell(objects, bad, others)
    if not params.mirrored:
        key = f"datasets.pictures.{name}.mirrored of {PARAMS}"
        click.echo(f"mirror images are taken to keep their class; if classes A and B swap, set {key} to [[A, B]]")
    click.echo(f"next: make repro ONLY={name}")


def _look_around(folder: Path, table: Path | None) -> Counter[str]:
    """Count the files of a folder that are neither pictures nor the table, by suffix."""
    if not folder.exists():
        raise DataError(folder, "does not exist", "name the folder, or zip, of the pictures")
    others = other_files(folder) if folder.is_dir() else Counter[str]()
    if table is not None and table.resolve().is_relative_to(folder.resolve()):
        others -= Counter([table.suffix.lower()])
    return others


def _layout(files: PictureFiles, labels: Labels) -> tuple[dict[str, Any], Callable[[PicturesParams], Objects]]:
    """Return what tells the classes, as keys of the entry, and what reads the pictures with their labels."""
    table = labels.table
    if table is None:
        folders = set(class_folders.sorted_pictures(files.names)["label"])
        if not folders:
            problem = "holds no folder for each class, and no table of labels was named"
            raise DataError(files.place, problem, "give one: deepsky add images NAME FOLDER LABELS")
        chosen = _chosen(folders, labels.classes, files.place)
        return {"format": "class_folders", **chosen}, partial(class_folders.read, files.place)
    files.drop_repeated()
    entry: dict[str, Any] = {"labels": table.name, "id_column": labels.id_column}
    if labels.class_columns:
        if labels.classes:
            raise ConfigError("--classes", "and --class-column both name the classes", "leave --classes out")
        entry |= {"classes": list(labels.class_columns), "class_columns": list(labels.class_columns.values())}
        return {"format": "galaxy_zoo_votes", **entry}, partial(galaxy_zoo_votes.read_voted, files, table)
    column = labels.label_column
    named = set(read_table(table, required=(column,))[column]) - {""}
    entry |= {"format": "images", "label_column": column, **_chosen(named, labels.classes, table)}
    return entry, partial(images.read_labelled, files, table)


def _chosen(found: Collection[str], classes: Sequence[str], where: Path) -> dict[str, list[str]]:
    """Share out the classes that were found: those to keep, and the others."""
    unknown = [name for name in classes if name not in found]
    if unknown:
        raise ConfigError(
            f"--classes {unknown[0]}", f"is no class of {where}", f"choose of: {', '.join(sorted(found))}"
        )
    return {
        "classes": list(classes) or sorted(found),
        "other_classes": sorted(set(found) - set(classes)) if classes else [],
    }


def _source(name: str, files: PictureFiles, table: Path | None) -> Source:
    """Decide where the pictures will stand: where they are, if they lie in the project with all that they need."""
    place, here = files.place, in_project(files.place)
    is_whole = table is None or table.resolve().parent == place.resolve()
    if here is not None and is_whole and not any(path.is_symlink() for path in place.rglob("*")):
        return Source(place, here)
    return Source(place, EXTERNAL / name, files, table)


def _group_by(params: PicturesParams, objects: Objects) -> GroupBy:
    """Choose what stays together in a split, where nobody said it."""
    if params.group_column:
        return "group"
    if params.format == "class_folders" and objects.rows["group"].notna().any():
        return "given"
    return "objid" if are_objids(objects.rows["id"]) else "image"


def _tell(objects: Objects, bad: Mapping[int, DataError], others: Counter[str]) -> None:
    """Say what was taken, and what was not."""
    taken = objects.rows["label"].drop(index=list(bad)).value_counts()
    click.echo(
        f"took {taken.sum():,} pictures: {', '.join(f'{name} {taken.get(name, 0):,}' for name in objects.classes)}"
    )
    left_out = {
        **objects.n_dropped,
        "objects whose picture is absent": len(objects.absent),
        "bad pictures": len(bad),
        f"files that are no JPEG, PNG or TIFF{_listed(others, ': ')}": others.total(),
    }
    for reason, number in left_out.items():
        if number:
            click.echo(f"left out {number:,} {reason}")
    n_unlabelled = sum(objects.n_dropped.get(reason, 0) for reason in _WITHOUT_LABEL)
    click.echo(f"{n_unlabelled:,} pictures have no label" if n_unlabelled else "every picture has a label")


def _listed(others: Counter[str], before: str) -> str:
    return before + ", ".join(f"{number:,} {suffix}" for suffix, number in others.most_common(5)) if others else ""
