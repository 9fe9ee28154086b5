"""Label new images, or the objects of new frames, with a trained network."""

from collections import Counter
from collections.abc import Container, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from rich.progress import Progress

from deepsky.catalogue.positions import with_positions
from deepsky.catalogue.tables import read_objects
from deepsky.commands.answers import answered, answers_about, appended, printed
from deepsky.commands.frame_options import reading_of
from deepsky.commands.models import find_model
from deepsky.commands.places import named_places
from deepsky.errors import ConfigError, DataError
from deepsky.files import Version
from deepsky.imaging.astrometry import is_inside
from deepsky.imaging.badfiles import BadFiles, OnBadFile
from deepsky.imaging.cutouts import cut_objects, outside, sky_positions
from deepsky.imaging.fields import FieldSearch, SkyField, assign_fields, find_frames, read_field
from deepsky.imaging.params import Reading
from deepsky.imaging.pictures import Picture, find_pictures, read_picture
from deepsky.imaging.preparation import Preparation
from deepsky.networks.views import images_at_once
from deepsky.parallel import KERAS_LOCK, check_address, connected, in_threads, is_helped, mapped
from deepsky.training.predict import batches_of, predict_batch, predict_batches
from deepsky.training.saved import ModelCard, load_network

BATCH_SIZE = 32  # images, or views of images, that go through the network together
_AHEAD = 64  # batches of pictures, or fields, that workers may be ahead
_SCALE_TOLERANCE = 0.05
_SAME = 1e-3  # how far answers of the same network may lie apart on two machines
_DECODED = 4  # batches of pictures that wait, decoded, for the network


@dataclass(frozen=True)
class _Pictures:
    """A batch of pictures: what a worker labels at a time."""

    paths: Sequence[Path]
    n_at_once: int

    @property
    def names(self) -> list[str]:
        return [str(path) for path in self.paths]

    def only(self, names: Container[str]) -> "_Pictures":
        return replace(self, paths=[path for path in self.paths if str(path) in names])


@dataclass(frozen=True)
class _Objects:
    """The objects of one field: what a worker labels at a time."""

    field: SkyField
    objects: pd.DataFrame
    catalogue: Path
    reading: Reading

    @property
    def names(self) -> list[str]:
        return list(self.objects["id"])

    def only(self, names: Container[str]) -> "_Objects":
        return replace(self, objects=self.objects[[name in names for name in self.objects["id"]]])


@dataclass(frozen=True)
class _Seen:
    """What a network is to look at.

    Attributes:
        names: of the images.
        images: (n, height, width, channel).
        bad: what is wrong with those that cannot be used.
        odd: of each image, how it differs from those that the network learned from; empty: not at all.
    """

    names: list[str]
    images: npt.NDArray[Any]
    bad: Sequence[DataError] = ()
    odd: Sequence[str] = ()


@dataclass(frozen=True)
class Catalogue:
    """Which objects of FITS frames are to be labelled.

    Attributes:
        path: their table.
        id_column: its column that names each object; None numbers the rows.
        reading: how frames and table are to be understood, as ``frame_options`` takes it; no ``position_band`` stands
            for r, or the network's first band.
    """

    path: Path
    id_column: str | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)


Task = _Pictures | _Objects
Labelled = tuple[_Seen, npt.NDArray[np.float32]]  # what was seen, without its pixels, and the answers, (n, n_outputs)


def run(
    model: str,
    inputs: Sequence[str],
    out: Path | None,
    *,
    catalogue: Catalogue | None = None,
    listed: Path | None = None,
    on_bad_file: OnBadFile = "stop",
    scheduler: str | None = None,
) -> None:
    """Print, or append to ``out``, one line per image or object: name, class, confidence, probability of each class.

    A network of vote fractions has no classes: its line holds the 37 fractions, named as in the Galaxy Zoo challenge.
    What ``out`` answers already is left out, so that the same command goes on where it was killed.

    Args:
        model: a run, or the ``.h5`` of one, or ``models:/NAME@champion`` of MLflow's registry.
        inputs: image files, folders, patterns or lists of them; with ``catalogue``, FITS frames likewise.
        out: CSV to append to; None prints the table.
        catalogue: of the objects to cut out of the frames; None: the inputs are pictures.
        listed: a text file with an input a line.
        on_bad_file: ``skip`` names bad pictures, or fields with a bad frame, on stderr and goes on.
        scheduler: address of a dask scheduler whose workers (deepsky worker) do the work; None: this process does.

    Raises:
        DataError: a model, image, frame or table that cannot be used; ``out`` keeps the answers before it.
        ConfigError: a network of pictures with a catalogue, or one of flux without; a band it does not know; a wrong
            address.
        DeepSkyError: the scheduler does not answer, or has no worker for this project.
    """
    if scheduler is not None:
        check_address(scheduler)  # before the network is read
    places, bad = named_places(inputs, listed), BadFiles(on_bad_file)
    known = Version.of(find_model(model))
    network, card = _loaded(known)
    if (card.kind == "flux") != (catalogue is not None):
        needs = "FITS frames and --catalogue" if card.kind == "flux" else "images and no --catalogue"
        raise ConfigError(model, f"learned from {card.kind} of bands {', '.join(card.bands)}", f"give it {needs}")
    if catalogue is None:
        first, tasks = "path", _picture_tasks(places, network)
    else:
        first, tasks = "id", _object_tasks(places, catalogue, card.bands, bad)
    for where, problem in bad.skipped:
        click.echo(f"skipped: {where}: {problem}", err=True)
    with _helped_by(scheduler):
        _answer(known, tasks, first, out, bad)


def _answer(known: Version, tasks: list[Task], first: str, out: Path | None, bad: BadFiles) -> None:
    """Print or append the answers of all tasks that ``out`` has none of yet."""
    (_, card), names = _loaded(known), [name for task in tasks for name in task.names]
    before = set() if out is None else answered(out, card, first)
    if out is not None and before:
        _check_same(known, tasks, first, out, before)
        names = [name for name in names if name not in before]
        tasks = _only(tasks, frozenset(names))
        click.echo(f"{out}: goes on behind {len(before):,} answers", err=True)
    n_answered, odd = 0, Counter[str]()
    table = printed(card, first, names) if out is None else appended(out, card, first)
    bar = Progress(console=Console(stderr=True), disable=out is None)
    with bar, table as append, closing(_answers(known, tasks)) as answers:
        shown = bar.add_task("predicting", total=len(names))
        for seen, values in answers:
            if seen.names:
                append(seen.names, values)
            odd.update(seen.odd)
            n_answered += len(seen.names)
            for error in seen.bad:
                bad.meet(error)
                bar.console.print(f"skipped: {error}", markup=False, highlight=False, soft_wrap=True)
            bar.advance(shown, len(seen.names) + len(seen.bad))
    for how, number in odd.items():
        click.echo(f"{number:,} of {n_answered:,} {how}", err=True)
    if bad.skipped:
        click.echo(f"{len(bad.skipped):,} bad files or objects were skipped", err=True)
        bad.refuse_if_nothing_left(len(before) + n_answered, out or "predict")


def _check_same(known: Version, tasks: Sequence[Task], first: str, out: Path, before: set[str]) -> None:
    """Refuse to go on with the answers of another network: some of them are made again and compared.

    Raises:
        DataError: they differ, or ``out`` has none about these inputs.
    """
    again = next(iter(_only(tasks, before)), None)
    if again is None:
        raise DataError(out, "holds answers about other files than these", "give another file as --csv")
    (network, card), seen = _loaded(known), _seen(_loaded(known)[1], again)
    written = answers_about(out, card, first, seen.names)
    if len(seen.names) and np.abs(_values(network, again, seen) - written).max() > _SAME:
        problem = f"holds answers of another network, or about other pixels ({seen.names[0]} for one)"
        raise DataError(out, problem, "delete it, or give another file as --csv")


def _only(tasks: Sequence[Task], names: Container[str]) -> list[Task]:
    return [kept for task in tasks if len((kept := task.only(names)).names)]


def _helped_by(scheduler: str | None) -> AbstractContextManager[None]:
    if scheduler is None:
        return nullcontext()
    from deepsky.pipeline.worker import resource_of  # dask is slow to import

    return connected(scheduler, resource_of(Path.cwd()))


def _answers(known: Version, tasks: Sequence[Task]) -> Generator[Labelled, None, None]:
    """Yield what the network was shown and says, in the tasks' order.

    Alone, threads decode the next pictures while the network works.
    """
    if is_helped():
        yield from mapped(partial(_labelled, known), tasks, n_ahead=_AHEAD, locally="here")
        return
    network, card = _loaded(known)
    look = partial(_seen, card)
    pictures = all(isinstance(task, _Pictures) for task in tasks)
    every = in_threads(look, tasks, n_ahead=_DECODED) if pictures else (look(task) for task in tasks)
    with closing(every):
        for task, seen in zip(tasks, every, strict=True):
            yield _blank(seen), _values(network, task, seen)


def _picture_tasks(places: Sequence[Path], network: keras.Model) -> list[Task]:
    paths: list[Path] = []
    for place in places:
        paths += find_pictures([place]) if place.is_dir() else [place]
    batches, n_at_once = batches_of(len(paths), images_at_once(network, BATCH_SIZE))
    return [_Pictures(paths[rows], n_at_once) for rows in batches]


def _object_tasks(inputs: Sequence[Path], catalogue: Catalogue, bands: Sequence[str], bad: BadFiles) -> list[Task]:
    """Find the field of each object."""
    table, reading = catalogue.path, reading_of(catalogue.reading, bands)
    objects = read_objects(table, id_column=catalogue.id_column, label_column=None, classes=())
    objects = with_positions(objects, table, reading.position, reading.position_columns)
    fields = FieldSearch(reading, bad).group(find_frames(inputs))
    objects["image"] = assign_fields(objects, fields, reading, table, bad)
    lost = objects[objects["image"] < 0]
    for identity in lost["id"]:
        problem = f"object {identity} lies in none of the frames ({len(lost)} such)"
        bad.meet(DataError(table, problem, "add its frames or drop the row"))
    return [
        _Objects(fields[int(number)], group, table, reading)
        for number, group in objects[objects["image"] >= 0].groupby("image", sort=True)
    ]


def _labelled(known: Version, task: Task) -> Labelled:
    """Let the network answer, in a worker, which loads it once and keeps it until the next."""
    with KERAS_LOCK:
        network, card = _loaded(known)
    seen = _seen(card, task)
    with KERAS_LOCK:
        return _blank(seen), _values(network, task, seen)


def _values(network: keras.Model, task: Task, seen: _Seen) -> npt.NDArray[np.float32]:
    if not seen.names:
        return np.empty((0, network.output_shape[1]), np.float32)
    if isinstance(task, _Pictures):
        return predict_batch(network, seen.images, task.n_at_once)
    return predict_batches(network, seen.images, images_at_once(network, BATCH_SIZE))


def _blank(seen: _Seen) -> _Seen:
    """Forget the pixels."""
    return replace(seen, images=seen.images[:0])


@lru_cache(maxsize=1)
def _loaded(known: Version) -> tuple[keras.Model, ModelCard]:
    return load_network(known.found())


def _seen(card: ModelCard, task: Task) -> _Seen:
    if isinstance(task, _Pictures):
        return _prepared(task.paths, card)
    try:
        flux, scale_arcsec = _cut(task, card)
        return _Seen(task.names, flux, odd=[_other_scale(card)] * len(flux) if _differs(scale_arcsec, card) else [])
    except DataError as error:
        return _Seen([], np.empty((0, *card.image_shape), np.float32), [error])


def _prepared(paths: Sequence[Path], card: ModelCard) -> _Seen:
    """Decode pictures and prepare them as those that the network learned from."""
    preparation = preparation_of(card)
    images, good, bad, odd = np.empty((len(paths), *card.image_shape), np.uint8), list[str](), list[DataError](), []
    for path in paths:
        try:
            picture = _read(path)
            images[len(good)] = preparation.apply(path, picture)
        except DataError as error:
            bad.append(error)
            continue
        good.append(str(path))
        if card.picture_px is not None and picture.shape[:2] != card.picture_px:
            height, width = card.picture_px
            odd.append(f"pictures are not {width} x {height} px, as those that the network learned from")
    return _Seen(good, images[: len(good)], bad, odd)


def preparation_of(card: ModelCard) -> Preparation:
    """Return how pictures are prepared for a network."""
    height_px, width_px, n_channels = card.image_shape
    return Preparation((height_px, width_px), card.crop_px, card.denoise, card.denoise_strength, gray=n_channels == 1)


def _read(path: Path) -> Picture:
    """Decode a picture, but of a regular file only: a pipe or a device would be read for ever."""
    if "\n" in str(path):
        raise DataError(path, "has a line break in its name", "rename it: every answer is a line")
    if path.exists() and not path.is_file():
        raise DataError(path, "is no file but a folder, pipe or device", "take it out of the list")
    return read_picture(path)


def _differs(scale_arcsec: float, card: ModelCard) -> bool:
    learned = card.pixel_scale_arcsec
    return learned is not None and abs(scale_arcsec - learned) > _SCALE_TOLERANCE * learned


def _other_scale(card: ModelCard) -> str:
    return f"objects lie in frames of another scale than the {card.pixel_scale_arcsec:.3g} arcsec/px learned from"


def _cut(task: _Objects, card: ModelCard) -> tuple[npt.NDArray[np.float32], float]:
    """Cut the objects of a field out of its frames; return their flux, and the scale of the frames, arcsec/px."""
    frames = read_field(task.field, task.reading)
    reference = frames[task.reading.position_band]
    ra_deg, dec_deg = sky_positions(task.objects, reference.astrometry, task.reading.position)
    height, width = reference.flux_nmgy.shape
    lost = ~is_inside(reference.astrometry.depth(ra_deg, dec_deg, (height, width)))
    if lost.any():
        raise outside(task.catalogue, task.objects["id"].to_numpy()[lost][0], reference.path)
    flux_nmgy = cut_objects([frames[band] for band in card.bands], ra_deg, dec_deg, card.image_shape[0]).flux_nmgy
    return flux_nmgy, reference.astrometry.pixel_scale_arcsec
