"""Bring your own FITS frames: a folder and a catalogue of their objects become datasets of the project."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import pandas as pd

from deepsky.commands.frame_options import reading_entry
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
from deepsky.datasets.params import GroupBy
from deepsky.errors import DataError
from deepsky.experiment import edit
from deepsky.formats.params import FramesParams, datasets_of
from deepsky.imaging.astrometry import is_inside
from deepsky.imaging.badfiles import BadFiles
from deepsky.imaging.cutouts import outside, reaches_over, sky_positions
from deepsky.imaging.fields import SkyField, read_outlines
from deepsky.parallel import mapped
from deepsky.progress import track
from deepsky.stages.render import Placed, placed_objects

MANY_FIELDS = 20
_AHEAD = 64
_SHOWN = 10  # files that are left out, by name


def run(name: str, folder: Path, catalogue: Path, options: Mapping[str, Any], *, only: bool = False) -> None:
    """Register a folder of FITS frames with a catalogue of their objects, and compare networks on ``name``_cutouts.

    Every frame's header is read and every object looked for, so that what is wrong is said now. ``on_bad_file`` of
    params.yaml says whether that stops, or is left out.

    Args:
        name: of the new frames.
        folder: FITS frames with celestial WCS, one per band and field, at any depth.
        catalogue: table with class and position of each object.
        options: ``id_column``, ``label_column``, ``bands``, ``colours`` (shown as red, green and blue),
            ``cutout_size_px``, and those of ``frame_options.reading_entry``.
        only: leave nothing of deepsky's demonstration in params.yaml.

    Raises:
        ConfigError: the name is taken or unfit, or an option is wrong.
        DataError: the folder or table is wrong; nothing was copied then.
    """
    check_name(name, datasets_of(name))
    home = EXTERNAL / name
    sources = [
        Source(folder, in_project(folder) or home / "frames"),
        Source(catalogue, in_project(catalogue) or home / catalogue.name),
    ]
    params = _params(name, folder, catalogue, options)
    bad = BadFiles(edit.load().get("on_bad_file", "stop"))
    placed = placed_objects(params, bad, name)
    looked = _look(placed, params, bad)
    bad.refuse_if_nothing_left(sum(len(each.labels) for each in looked), catalogue)
    there = replace(
        params, folder=str(sources[0].target), catalogue=str(sources[1].target), group_by=_group_by(placed.fields)
    )
    newcomer = Newcomer(name, "frames", said(there, "group_by"), sources, compared=f"{name}_cutouts")
    register(newcomer, only=only)
    for line in _summary(placed, looked, bad, params.catalogue):
        click.echo(line)
    click.echo(f"next: make repro ONLY={name}_cutouts")


@dataclass(frozen=True)
class _Looked:
    """What the headers of one field's frames say of its objects.

    Attributes:
        errors: frames that cannot be used, or objects outside.
        labels: the classes of the objects that are left.
        n_edge: how many of these have a cutout that reaches over an edge of a frame.
    """

    errors: list[DataError]
    labels: list[str]
    n_edge: int = 0


def _params(name: str, folder: Path, catalogue: Path, options: Mapping[str, Any]) -> FramesParams:
    """Build the entry of the frames where they lie now."""
    id_column, label_column = options["id_column"], options["label_column"]
    classes, _ = classes_and_objects(catalogue, id_column, label_column)
    reading = reading_entry(options, options["bands"])
    entry = {
        "folder": str(folder),
        "catalogue": str(catalogue),
        "id_column": id_column,
        "label_column": label_column,
        "classes": list(classes),
        "frame_bands": [reading["position_band"]],
        "rgb_bands": list(options["colours"]),
        "colour_bands": list(options["colours"]),
        "cutout_size_px": options["cutout_size_px"],
        **reading,
    }
    params: FramesParams = build(entry, FramesParams, f"frames {name}")
    return params


def _group_by(fields: Sequence[SkyField]) -> GroupBy:
    """Choose what a split holds together: with few pointings whole fields cannot be held back, cells of the sky can."""
    if len(fields) < MANY_FIELDS:
        return "sky"
    return "field" if all(field.sdss for field in fields) else "group"


def _look(placed: Placed, params: FramesParams, bad: BadFiles) -> list[_Looked]:
    """Read the headers of all frames that hold objects."""
    tasks = [(placed.fields[cast(int, number)], objects) for number, objects in placed.objects.groupby("image")]
    results = mapped(partial(_look_at, params), tasks, n_ahead=_AHEAD, locally="threads")
    with closing(results):
        looked = list(track(results, "looking at frames", len(tasks)))
    for each in looked:
        for error in each.errors:
            bad.meet(error)
    return looked


def _look_at(params: FramesParams, task: tuple[SkyField, pd.DataFrame]) -> _Looked:
    """Check the frames of a field, and where its objects lie in them, as stage render will."""
    field, objects = task
    try:
        outlines = read_outlines(field, params.reading)
    except DataError as error:
        return _Looked([error], [])
    reference = outlines[params.position_band].astrometry
    ra_deg, dec_deg = sky_positions(objects, reference, params.position)
    depths_px = {band: one.astrometry.depth(ra_deg, dec_deg, one.shape) for band, one in outlines.items()}
    held = is_inside(depths_px[params.position_band])
    lost = [outside(params.catalogue, identity, field.paths[params.position_band]) for identity in objects["id"][~held]]
    edge = np.any([reaches_over(depth_px, params.cutout_size_px) for depth_px in depths_px.values()], axis=0)
    return _Looked(lost, list(objects["label"][held]), int(edge[held].sum()))


def _summary(placed: Placed, looked: Sequence[_Looked], bad: BadFiles, catalogue: str) -> Iterator[str]:
    """Say what was taken, what was left out, and why."""
    labels = Counter(label for each in looked for label in each.labels)
    n_fields = sum(bool(each.labels) for each in looked)
    counts = ", ".join(f"{count} {label}" for label, count in sorted(labels.items()))
    yield f"took {labels.total()} objects ({counts}) in {n_fields} of {len(placed.fields)} fields"
    n_edge = sum(each.n_edge for each in looked)
    if n_edge:
        yield f"on an edge: {n_edge} of them, whose cutouts are filled up with 0"
    objects = [problem for where, problem in bad.skipped if where == catalogue]
    frames = [f"{where}: {problem}" for where, problem in bad.skipped if where != catalogue]
    if objects:
        yield f"objects left out: {len(objects)}, the first: {objects[0]}"
    yield from (f"frame left out: {each}" for each in frames[:_SHOWN])
    if len(frames) > _SHOWN:
        yield f"frames left out: {len(frames) - _SHOWN} more"
    if placed.others:
        others = ", ".join(f"{band} ({count})" for band, count in sorted(placed.others.items()))
        yield f"left alone: {others}; --filter NAME=BAND says which band a filter is"
