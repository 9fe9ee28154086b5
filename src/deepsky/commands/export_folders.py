"""Write a dataset's pictures into folders of parts and classes, as other software reads them."""

import re
from contextlib import closing
from functools import partial
from pathlib import Path

import click

from deepsky.config import PARAMS
from deepsky.datasets.packed import DatasetCard, Packed, open_packed
from deepsky.datasets.shown import shown
from deepsky.errors import ConfigError, DataError
from deepsky.experiment.experiment import read_experiment
from deepsky.files import whole_folder
from deepsky.imaging.pictures import write_png
from deepsky.parallel import in_threads
from deepsky.progress import track
from deepsky.training.examples import read_split

PACKED, SPLIT = Path("data/packed"), Path("data/splits")
# What some file system does not take in a name, or takes for something else; and %, so that names stay different.
_UNSAFE = re.compile(r'^\.|[/\\:*?"<>|%\x00-\x1f\x7f]|[. ]$')
_AHEAD = 256  # pictures that may wait to be written


def run(dataset: str, folder: Path) -> None:
    """Write FOLDER/{train,val,test}/CLASS/ID.png of every row; of parts that have rows, with a folder of every class.

    The pictures are those that networks learn from; of flux, which no picture file holds, those that the report shows.

    Args:
        dataset: its name.
        folder: to write; it may be there already, but empty.

    Raises:
        ConfigError: there is no such dataset, or it has vote fractions instead of classes.
        DataError: the folder is in use, or the dataset is not packed and split.
    """
    datasets = read_experiment().datasets
    if dataset not in datasets:
        known = ", ".join(datasets) or "none is there"
        raise ConfigError(f"dataset {dataset}", f"is not in {PARAMS}", f"choose one of: {known}")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(folder, "is there already, and is no empty folder", "name a new one")
    packed = open_packed(PACKED / dataset)
    if packed.card.target == "fractions":
        remedy = "choose a dataset of classes (target: class)"
        raise ConfigError(f"dataset {dataset}", "has vote fractions, and no classes to name folders after", remedy)
    classes = {name: _safe(name) for name in packed.card.classes}
    tasks = _tasks(packed, SPLIT / f"{dataset}.csv", classes)
    with whole_folder(folder.absolute()) as temporary:
        parts = {place.parts[0] for _, place in tasks}
        for inner in [Path(part, name) for part in parts for name in classes.values()]:
            (temporary / inner).mkdir(parents=True)
        with closing(in_threads(partial(_write, packed, temporary), tasks, n_ahead=_AHEAD)) as written:
            for _ in track(written, "writing pictures", len(tasks)):
                pass
    _say(packed.card, classes, len(tasks), folder)


def _tasks(packed: Packed, split: Path, classes: dict[str, str]) -> list[tuple[int, Path]]:
    """Return the image of each row, and where its picture goes."""
    rows = packed.rows
    return [
        (image, Path(part, classes[label], f"{_safe(identity)}.png"))
        for image, part, label, identity in zip(
            rows["image"], read_split(split, packed), rows["label"], rows["id"], strict=True
        )
    ]


def _write(packed: Packed, folder: Path, task: tuple[int, Path]) -> None:
    image, place = task
    write_png(folder / place, shown(packed.images[image], packed.card))


def _safe(name: str) -> str:
    """Return a name that every file system takes: other letters as %2F and the like, as in URLs."""
    return _UNSAFE.sub(lambda letter: f"%{ord(letter[0]):02X}", name)


def _say(card: DatasetCard, classes: dict[str, str], n_pictures: int, folder: Path) -> None:
    click.echo(f"{n_pictures} pictures of {len(classes)} classes in {folder}")
    if card.kind == "flux":
        colours, bands = ", ".join(card.colour_bands), ", ".join(card.bands)
        click.echo(f"they show {colours} as red, green and blue; deepsky's networks learn from the flux of {bands}")
    for name, safe in classes.items():
        if name != safe:
            click.echo(f"the folders of class {name!r} are called {safe}")
