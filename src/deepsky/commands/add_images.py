"""Bring your own pictures: a folder and a table of labels become a dataset of the project."""

from collections.abc import Sequence
from pathlib import Path

import click

from deepsky.archives.manifest import LABELS
from deepsky.catalogue.objid import are_objids
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
from deepsky.config import PARAMS, build
from deepsky.errors import DataError
from deepsky.formats.params import PicturesParams
from deepsky.imaging.picture_files import PictureFiles
from deepsky.imaging.pictures import PICTURE_SUFFIXES


def run(
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
    only: bool = False,
) -> None:
    """Register a folder of pictures with a label table as dataset ``name``, and compare networks on it.

    Args:
        name: of the new dataset.
        folder: pictures named by id, at any depth.
        labels: CSV with the id and label columns.
        id_column: its column that names each picture once.
        label_column: its column with the class.
        size_px: side of the square pictures to learn from.
        crop_px: side of a centre crop before that, or None.
        group_column: column that says which pictures belong together (one split for all of a group), or None.
        mirrored: pairs of classes, with a comma between, that a mirror image turns into each other.
        only: leave nothing of deepsky's demonstration in params.yaml.

    Raises:
        ConfigError: the name is taken or unfit, or an option is wrong.
        DataError: the folder or table is wrong; nothing was copied then.
    """
    check_name(name, [name])
    classes, table = classes_and_objects(labels, id_column, label_column)
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
    source = _source(name, folder, labels)
    entry = {
        "format": "images",
        "source": str(source.target),
        "labels": LABELS if source.table else labels.name,
        "id_column": id_column,
        "label_column": label_column,
        "classes": list(classes),
        "size_px": size_px,
        "crop_px": crop_px,
        "group_column": group_column,
        "group_by": "group" if group_column else "objid" if are_objids(table["id"]) else "image",
        "mirrored": [[each.strip() for each in pair.split(",")] for pair in mirrored],
    }
    params: PicturesParams = build(entry, PicturesParams, f"dataset {name}")
    written = said(params)
    if params.labels == LABELS:
        del written["labels"]
    register(Newcomer(name, "pictures", written, [source], compared=name), only=only)
    if not mirrored:
        key = f"datasets.pictures.{name}.mirrored of {PARAMS}"
        click.echo(f"mirror images are taken to keep their class; if classes A and B swap, set {key} to [[A, B]]")


def _source(name: str, folder: Path, labels: Path) -> Source:
    """Decide where the folder will stand: where it is, if it lies in the project and holds the table."""
    holds_table, here = labels.resolve().parent == folder.resolve(), in_project(folder)
    if holds_table and here is not None:
        return Source(folder, here)
    return Source(folder, EXTERNAL / name, None if holds_table else labels)
