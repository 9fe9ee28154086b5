"""Look at a dataset before it is added: whatever would stop its packing or its split is told now."""

import os
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath

import click

from deepsky.datasets.packed import ROW_COLUMNS
from deepsky.datasets.splits import split_rows
from deepsky.errors import DataError, about
from deepsky.experiment.experiment import Experiment
from deepsky.formats.format import Objects
from deepsky.formats.packing import bad_pictures, check_objects
from deepsky.formats.params import PicturesParams
from deepsky.imaging.badfiles import BadFiles
from deepsky.imaging.pictures import is_hidden, is_picture

_NAMED = 20  # bad pictures that are named, each in a line


def look_through(
    name: str, objects: Objects, params: PicturesParams, experiment: Experiment, source: Path
) -> Mapping[int, DataError]:
    """Decode every picture of a dataset, and split its rows.

    Args:
        name: of the dataset.
        objects: what it holds.
        params: its entry.
        experiment: the project's params.yaml, which says how to split, and what to do with bad files.
        source: names the dataset in errors.

    Returns:
        What is wrong with bad pictures, by their place in the rows; none under ``on_bad_file: stop``.

    Raises:
        DataError: nothing can be learned from it, its rows cannot be split, or a picture is absent or bad under
            ``stop``: then each bad one was named on stderr.
    """
    policy = experiment.on_bad_file
    _check_rows(objects, params, experiment, source)
    bad = bad_pictures(name, objects)
    if not bad:
        return bad
    if len(bad) == len(objects.rows) or (len(bad) == 1 and policy == "stop"):
        raise next(iter(bad.values()))  # if all are bad, one line says why: crop_px is too large for them, say
    for error in list(bad.values())[:_NAMED]:
        click.echo(f"{error.where}: {error.problem}", err=True)
    if len(bad) > _NAMED:
        click.echo(f"and {len(bad) - _NAMED:,} more", err=True)
    if policy == "stop":
        problem = f"{len(bad):,} of its {len(objects.rows):,} pictures cannot be used; they are named above"
        raise DataError(source, problem, "mend or remove them, or set on_bad_file: skip in params.yaml")
    left = [place for place in range(len(objects.rows)) if place not in bad]
    _check_rows(objects.take(left, "bad pictures"), params, experiment, source)
    return bad


def unsmoothed(params: PicturesParams) -> PicturesParams:
    """Return how to read pictures to look at them: smoothing takes long and refuses none."""
    return replace(params, denoise="none", denoise_strength=0.0)


def other_files(folder: Path) -> Counter[str]:
    """Count the files of a folder that are no pictures by their suffix; hidden ones are not looked at.

    Raises:
        DataError: a link that leads out of the folder, or a pipe or device.
    """
    others: Counter[str] = Counter()
    whole = folder.resolve()
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for path in (Path(place, name) for name in (*folders, *names) if not is_hidden(name)):
            if path.is_symlink() and not path.resolve().is_relative_to(whole):
                problem = f"is a link out of the folder, to {path.readlink()}"
                raise DataError(path, problem, "put what it leads to into the folder, or name a folder that holds both")
            mode = path.stat().st_mode if path.exists() else stat.S_IFREG  # of a broken link reading will tell
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise DataError(path, "is no file but a pipe, socket or device", "take it out of the folder")
            if stat.S_ISREG(mode) and not is_picture(PurePath(path.name)):
                others[path.suffix.lower() or path.name] += 1
    return others


def _check_rows(objects: Objects, params: PicturesParams, experiment: Experiment, source: Path) -> None:
    check_objects(objects, params.target, BadFiles(experiment.on_bad_file), source)
    rows = objects.rows.reindex(columns=list(ROW_COLUMNS)).assign(image=range(len(objects.rows)))
    with about(source):
        split_rows(rows, params.group, experiment.split)
