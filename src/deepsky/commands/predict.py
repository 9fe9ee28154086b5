"""Label new images, or the objects of new frames, with a trained network."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import click
import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.catalogue.tables import check_numbers, read_objects
from deepsky.errors import ConfigError, DataError
from deepsky.files import Version, whole_file
from deepsky.imaging.cutouts import cut_objects, inside, sky_positions
from deepsky.imaging.fields import SkyField, assign_fields, find_frames, group_frames, read_field
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
    position: Literal["radec", "xy"]
    position_band: str


Task = _Pictures | _Objects
COLUMNS = {"radec": ("ra", "dec"), "xy": ("x", "y")}


def run(
    model: Path,
    inputs: Sequence[Path],
    out: Path | None,
    *,
    catalogue: Path | None,
    id_column: str | None,
    position: Literal["radec", "xy"],
    position_band: str | None,
    scheduler: str | None = None,
) -> None:
    """Print, or write to ``out``, one line per image or object: its name, class and the probability of each class.

    A network of vote fractions has no classes: its line holds the 37 fractions, named as in the Galaxy Zoo challenge.

    Args:
        model: ``.h5`` of a train stage.
        inputs: image files or folders of them; with ``catalogue``, FITS frames or folders of them.
        out: CSV to write; None prints the table.
        catalogue: CSV of the objects to cut out of the frames.
        id_column: its column that names each object; None numbers the rows.
        position: ``radec`` (columns ra, dec in degrees) or ``xy`` (columns x, y in pixels of ``position_band`` from 0).
        position_band: see ``position``; None takes r, or the network's first band.
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
        position_band = position_band or ("r" if "r" in card.bands else card.bands[0])
        if position_band not in card.bands:
            problem = f"is not among the network's bands {', '.join(card.bands)}"
            raise ConfigError(f"position band {position_band!r}", problem, "give one of them as --position-band")
        first, tasks = "id", _object_tasks(inputs, card, catalogue, id_column, position, position_band)
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


def _object_tasks(
    inputs: Sequence[Path],
    card: ModelCard,
    catalogue: Path,
    id_column: str | None,
    position: Literal["radec", "xy"],
    position_band: str,
) -> list[Task]:
    """Find the field of each object."""
    objects = read_objects(catalogue, id_column=id_column, label_column=None, classes=())
    check_numbers(objects, catalogue, COLUMNS[position])
    fields = group_frames(find_frames(inputs), card.bands)
    objects["image"] = assign_fields(
        objects, fields, position=position, position_band=position_band, catalogue=catalogue
    )
    lost = objects[objects["image"] < 0]
    if len(lost):
        problem = f"object {lost['id'].iloc[0]} lies in none of the frames ({len(lost)} such)"
        raise DataError(catalogue, problem, "add its frames or drop the row")
    return [
        _Objects(fields[int(number)], group, catalogue, position, position_band)
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
    frames = read_field(task.field, card.bands)
    reference = frames[task.position_band]
    first, second = (task.objects[column].to_numpy(float) for column in COLUMNS[task.position])
    ra_deg, dec_deg = (first, second) if task.position == "radec" else sky_positions(reference, first, second)
    outside = ~inside(reference, ra_deg, dec_deg)
    if outside.any():
        identity = task.objects["id"].to_numpy()[outside][0]
        raise DataError(task.catalogue, f"object {identity} lies outside its frame {reference.path}", "drop the row")
    return cut_objects([frames[band] for band in card.bands], ra_deg, dec_deg, card.image_shape[0]).flux_nmgy
