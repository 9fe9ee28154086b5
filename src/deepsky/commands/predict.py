"""Label new images, or the objects of new frames, with a trained network."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.catalogue.tables import check_numbers, read_objects
from deepsky.errors import ConfigError, DataError
from deepsky.files import whole_file
from deepsky.imaging.cutouts import cut_objects, inside, sky_positions
from deepsky.imaging.fields import assign_fields, find_frames, group_frames, read_field
from deepsky.imaging.pictures import find_pictures, read_picture
from deepsky.imaging.preparation import Preparation
from deepsky.networks.views import images_at_once
from deepsky.training.predict import predict_batches
from deepsky.training.saved import ModelCard, load_network

BATCH_SIZE = 32  # images, or views of images, that go through the network together
CHUNK = 512  # pictures held in memory at a time
Chunks = Iterator[tuple[list[str], npt.NDArray[Any]]]  # names, and images (n, height, width, channel)


def run(
    model: Path,
    inputs: Sequence[Path],
    out: Path | None,
    *,
    catalogue: Path | None,
    id_column: str | None,
    position: Literal["radec", "xy"],
    position_band: str | None,
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

    Raises:
        DataError: a model, image, frame or table that cannot be used; nothing is written then.
        ConfigError: a network of pictures with a catalogue, or one of flux without; a band it does not know.
    """
    network, card = load_network(model)
    if (card.kind == "flux") != (catalogue is not None):
        needs = "FITS frames and --catalogue" if card.kind == "flux" else "images and no --catalogue"
        raise ConfigError(model, f"learned from {card.kind} of bands {', '.join(card.bands)}", f"give it {needs}")
    if catalogue is None:
        first, chunks = "path", _picture_chunks(inputs, card)
    else:
        position_band = position_band or ("r" if "r" in card.bands else card.bands[0])
        if position_band not in card.bands:
            problem = f"is not among the network's bands {', '.join(card.bands)}"
            raise ConfigError(f"position band {position_band!r}", problem, "give one of them as --position-band")
        first, chunks = "id", _object_chunks(inputs, card, catalogue, id_column, position, position_band)
    n_at_once = images_at_once(network, BATCH_SIZE)
    parts = [(names, predict_batches(network, images, n_at_once)) for names, images in chunks]
    table = _table(first, parts, card)
    if out is None:
        click.echo(table.to_string(index=False))
    else:
        with whole_file(out) as path:
            table.to_csv(path, index=False, float_format="%.6f", lineterminator="\n")


def _table(first: str, parts: list[tuple[list[str], npt.NDArray[np.float32]]], card: ModelCard) -> pd.DataFrame:
    answers = np.concatenate([values for _, values in parts])
    prefix = "p_" if card.target == "class" else ""
    table = pd.DataFrame(answers, columns=[f"{prefix}{name}" for name in card.outputs])
    table.insert(0, first, [name for names, _ in parts for name in names])
    if card.target == "class":
        table.insert(1, "class", np.array(card.classes)[answers.argmax(axis=1)])
    return table


def _picture_chunks(inputs: Sequence[Path], card: ModelCard) -> Chunks:
    """Decode pictures and prepare them as those that the network learned from."""
    paths = find_pictures(inputs)
    height_px, width_px, n_channels = card.image_shape
    preparation = Preparation(
        (height_px, width_px), card.crop_px, card.denoise, card.denoise_strength, gray=n_channels == 1
    )
    for start in range(0, len(paths), CHUNK):
        chunk = paths[start : start + CHUNK]
        images = np.empty((len(chunk), *card.image_shape), np.uint8)
        for image, path in zip(images, chunk, strict=True):
            image[:] = preparation.apply(path, read_picture(path))
        yield [str(path) for path in chunk], images


def _object_chunks(
    inputs: Sequence[Path],
    card: ModelCard,
    catalogue: Path,
    id_column: str | None,
    position: Literal["radec", "xy"],
    position_band: str,
) -> Chunks:
    """Cut the objects of one field after another out of its frames."""
    objects = read_objects(catalogue, id_column=id_column, label_column=None, classes=())
    columns = ("ra", "dec") if position == "radec" else ("x", "y")
    check_numbers(objects, catalogue, columns)
    fields = group_frames(find_frames(inputs), card.bands)
    objects["image"] = assign_fields(
        objects, fields, position=position, position_band=position_band, catalogue=catalogue
    )
    lost = objects[objects["image"] < 0]
    if len(lost):
        problem = f"object {lost['id'].iloc[0]} lies in none of the frames ({len(lost)} such)"
        raise DataError(catalogue, problem, "add its frames or drop the row")
    for number, group in objects.groupby("image", sort=True):
        frames = read_field(fields[int(number)], card.bands)
        reference = frames[position_band]
        first, second = (group[column].to_numpy(float) for column in columns)
        ra_deg, dec_deg = (first, second) if position == "radec" else sky_positions(reference, first, second)
        outside = ~inside(reference, ra_deg, dec_deg)
        if outside.any():
            identity = group["id"].to_numpy()[outside][0]
            raise DataError(catalogue, f"object {identity} lies outside its frame {reference.path}", "drop the row")
        cutouts = cut_objects([frames[band] for band in card.bands], ra_deg, dec_deg, card.image_shape[0])
        yield list(group["id"]), cutouts.flux_nmgy
