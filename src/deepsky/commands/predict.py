"""Label new images, or the objects of new frames, with a trained network."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.catalogue.positions import with_positions
from deepsky.catalogue.tables import read_objects
from deepsky.commands.frame_options import reading_of
from deepsky.errors import ConfigError, DataError
from deepsky.files import Version, whole_file
from deepsky.imaging.astrometry import is_inside
from deepsky.imaging.badfiles import BadFiles
from deepsky.imaging.cutouts import cut_objects, outside, sky_positions
from deepsky.imaging.fields import FieldSearch, SkyField, assign_fields, find_frames, read_field
from deepsky.imaging.params import Reading
from deepsky.imaging.pictures import find_pictures, read_picture
from deepsky.imaging.preparation import Preparation
from deepsky.networks.views import images_at_once
from deepsky.parallel import KERAS_LOCK, check_address, connected, mapped
from deepsky.training.predict import batches_of, predict_batch, predict_batches
from deepsky.training.saved import ModelCard, load_network

BATCH_SIZE = 32  # images, or views of images, that go through the network together
CHUNK = 512  # pictures that are cut into batches together
_AHEAD = 64  # batches of pictures, or fields
Labelled = tuple[list[str], npt.NDArray[np.float32]]  # names, and the answers about them


@dataclass(frozen=True)
class _Pictures:
    """A batch of pictures: what a worker labels at a time."""

    paths: Sequence[Path]
    n_at_once: int


@dataclass(frozen=True)
class _Objects:
    """The objects of one field: what a worker labels at a time."""

    field: SkyField
    objects: pd.DataFrame
    catalogue: Path
    reading: Reading


Task = _Pictures | _Objects


def run(
    model: Path,
    inputs: Sequence[Path],
    out: Path | None,
    *,
    catalogue: Path | None,
    id_column: str | None,
    reading: Mapping[str, Any],
    scheduler: str | None = None,
) -> None:
    """Print, or write to ``out``, one line per image or object: its name, class and the probability of each class.

    A network of vote fractions has no classes: its line holds the 37 fractions, named as in the Galaxy Zoo challenge.

    Args:
        model: ``.h5`` of a train stage.
        inputs: image files or folders of them; with ``catalogue``, FITS frames or folders of them.
        out: CSV to write; None prints the table.
        catalogue: table of the objects to cut out of the frames.
        id_column: its column that names each object; None numbers the rows.
        reading: how frames and catalogue are to be understood, as ``frame_options`` takes it; no ``position_band``
            stands for r, or the network's first band.
        scheduler: address of a dask scheduler whose workers (deepsky worker) do the work; None: this process does.

    Raises:
        DataError: a model, image, frame or table that cannot be used; nothing is written then.
        ConfigError: a network of pictures with a catalogue, or one of flux without; a band it does not know; a wrong
            address.
        DeepSkyError: the scheduler does not answer, or has no worker for this project.
    """
    if scheduler is not None:
        check_address(scheduler)  # before the network is read
    known = Version.of(model)
    network, card = _loaded(known)
    if (card.kind == "flux") != (catalogue is not None):
        needs = "FITS frames and --catalogue" if card.kind == "flux" else "images and no --catalogue"
        raise ConfigError(model, f"learned from {card.kind} of bands {', '.join(card.bands)}", f"give it {needs}")
    if catalogue is None:
        first, tasks = "path", _picture_tasks(inputs, network)
    else:
        first, tasks = "id", _object_tasks(inputs, catalogue, id_column, reading_of(reading, card.bands))
    labelled = mapped(partial(_labelled, known), tasks, n_ahead=_AHEAD, locally="here")
    with _helped_by(scheduler), closing(labelled):
        table = _table(first, list(labelled), card)
    if out is None:
        click.echo(table.to_string(index=False))
    else:
        with whole_file(out) as path:
            table.to_csv(path, index=False, float_format="%.6f", lineterminator="\n")


def _helped_by(scheduler: str | None) -> AbstractContextManager[None]:
    if scheduler is None:
        return nullcontext()
    from deepsky.pipeline.worker import resource_of  # dask is slow to import

    return connected(scheduler, resource_of(Path.cwd()))


def _table(first: str, parts: list[Labelled], card: ModelCard) -> pd.DataFrame:
    answers = np.concatenate([values for _, values in parts])
    prefix = "p_" if card.target == "class" else ""
    table = pd.DataFrame(answers, columns=[f"{prefix}{name}" for name in card.outputs])
    table.insert(0, first, [name for names, _ in parts for name in names])
    if card.target == "class":
        table.insert(1, "class", np.array(card.classes)[answers.argmax(axis=1)])
    return table


def _picture_tasks(inputs: Sequence[Path], network: keras.Model) -> list[Task]:
    paths, tasks = find_pictures(inputs), list[Task]()
    for start in range(0, len(paths), CHUNK):
        chunk = paths[start : start + CHUNK]
        batches, n_at_once = batches_of(len(chunk), images_at_once(network, BATCH_SIZE))
        tasks += [_Pictures(chunk[rows], n_at_once) for rows in batches]
    return tasks


def _object_tasks(inputs: Sequence[Path], catalogue: Path, id_column: str | None, reading: Reading) -> list[Task]:
    """Find the field of each object."""
    objects = read_objects(catalogue, id_column=id_column, label_column=None, classes=())
    objects = with_positions(objects, catalogue, reading.position, reading.position_columns)
    bad = BadFiles("stop")
    fields = FieldSearch(reading, bad).group(find_frames(inputs))
    objects["image"] = assign_fields(objects, fields, reading, catalogue, bad)
    lost = objects[objects["image"] < 0]
    if len(lost):
        problem = f"object {lost['id'].iloc[0]} lies in none of the frames ({len(lost)} such)"
        raise DataError(catalogue, problem, "add its frames or drop the row")
    return [
        _Objects(fields[int(number)], group, catalogue, reading)
        for number, group in objects.groupby("image", sort=True)
    ]


def _labelled(known: Version, task: Task) -> Labelled:
    """Let the network answer, in a worker, which loads it once and keeps it until the next."""
    with KERAS_LOCK:
        network, card = _loaded(known)
    if isinstance(task, _Pictures):
        pictures = _prepared(task.paths, card)
        with KERAS_LOCK:
            return [str(path) for path in task.paths], predict_batch(network, pictures, task.n_at_once)
    flux = _cut(task, card)
    with KERAS_LOCK:
        return list(task.objects["id"]), predict_batches(network, flux, images_at_once(network, BATCH_SIZE))


@lru_cache(maxsize=1)
def _loaded(known: Version) -> tuple[keras.Model, ModelCard]:
    return load_network(known.found())


def _prepared(paths: Sequence[Path], card: ModelCard) -> npt.NDArray[np.uint8]:
    """Decode pictures and prepare them as those that the network learned from."""
    height_px, width_px, n_channels = card.image_shape
    preparation = Preparation(
        (height_px, width_px), card.crop_px, card.denoise, card.denoise_strength, gray=n_channels == 1
    )
    images = np.empty((len(paths), *card.image_shape), np.uint8)
    for image, path in zip(images, paths, strict=True):
        image[:] = preparation.apply(path, read_picture(path))
    return images


def _cut(task: _Objects, card: ModelCard) -> npt.NDArray[np.float32]:
    """Cut the objects of a field out of its frames."""
    frames = read_field(task.field, task.reading)
    reference = frames[task.reading.position_band]
    ra_deg, dec_deg = sky_positions(task.objects, reference.astrometry, task.reading.position)
    height, width = reference.flux_nmgy.shape
    lost = ~is_inside(reference.astrometry.depth(ra_deg, dec_deg, (height, width)))
    if lost.any():
        raise outside(task.catalogue, task.objects["id"].to_numpy()[lost][0], reference.path)
    return cut_objects([frames[band] for band in card.bands], ra_deg, dec_deg, card.image_shape[0]).flux_nmgy
