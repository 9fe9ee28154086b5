"""Pack pictures that come one by one."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.datasets.packed import DatasetCard, create_images, write_rows
from deepsky.datasets.params import Change, Target
from deepsky.errors import DataError
from deepsky.files import whole_folder
from deepsky.formats.format import UNNAMED, Objects
from deepsky.imaging.badfiles import BadFiles, keep_images, reserve_space
from deepsky.imaging.picture_files import PictureFiles
from deepsky.imaging.pictures import Picture
from deepsky.imaging.preparation import Preparation
from deepsky.parallel import is_helped, mapped
from deepsky.progress import track

AHEAD = 256  # pictures that may wait to be packed
# Of a cluster: pictures in a task (one is less work than sending it), and tasks that may wait, on the workers.
_N_LOOKED_AT = 5  # pictures that tell the size of all
_AT_ONCE, _TASKS_AHEAD = 32, 64


def objects_of(
    rows: pd.DataFrame,
    classes: tuple[str, ...],
    files: PictureFiles,
    preparation: Preparation,
    *,
    fractions: npt.NDArray[np.float32] | None = None,
    lacking: Sequence[tuple[str, str]] = (),
    n_dropped: Mapping[str, int] | None = None,
) -> Objects:
    """Join rows with the pictures that they name; rows without one are told as absent.

    Args:
        rows: id, label, ``picture`` (its name among ``files``, or missing), and what else is known.
        classes: class names, in the order of the label encoding.
        files: the pictures.
        preparation: of each picture.
        fractions: (n_rows, 37), where they are the target.
        lacking: see ``Objects``.
        n_dropped: see ``Objects``.
    """
    present = rows["picture"].notna().to_numpy()
    names = rows.loc[present, "picture"].to_list()
    kept = rows[present].drop(columns="picture").reset_index(drop=True)
    return Objects(
        rows=kept.assign(file_bytes=files.n_bytes(names)),
        classes=classes,
        decode=partial(_decode, files, preparation, names),
        fractions=None if fractions is None else fractions[present],
        absent=[files.place / identity for identity in rows.loc[~present, "id"]],
        lacking=lacking,
        n_dropped=n_dropped or {},
        picture_px=_size_of(files, names[:: max(1, len(names) // _N_LOOKED_AT)]),
    )


def _size_of(files: PictureFiles, names: Sequence[str]) -> tuple[int, int] | None:
    """Return the (height, width) of some pictures; None where they differ. Bad ones are told when they are packed."""
    sizes = set()
    for name in names:
        with suppress(DataError):
            height, width = files.read(name).shape[:2]
            sizes.add((height, width))
    return sizes.pop() if len(sizes) == 1 else None


def _decode(
    files: PictureFiles, preparation: Preparation, names: Sequence[str], places: Sequence[int]
) -> Generator[Picture | DataError, None, None]:
    """Decode and prepare pictures in threads (OpenCV lets go of the interpreter's lock) or on a cluster, in order."""
    at_once, n_ahead = (_AT_ONCE, _TASKS_AHEAD) if is_helped() else (1, AHEAD)
    wanted = [names[place] for place in places]
    tasks = [wanted[start : start + at_once] for start in range(0, len(wanted), at_once)]
    work = partial(_prepared, files, preparation)
    with closing(mapped(work, tasks, n_ahead=n_ahead, locally="threads")) as parts:
        for part in parts:
            yield from part


def _prepared(files: PictureFiles, preparation: Preparation, names: Sequence[str]) -> list[Picture | DataError]:
    found: list[Picture | DataError] = []
    for name in names:
        try:
            found.append(preparation.apply(files.place / name, files.read(name)))
        except DataError as error:
            found.append(error)
    return found


def picture_card(
    objects: Objects,
    preparation: Preparation,
    *,
    gray: bool = False,
    target: Target = "class",
    mirrored: tuple[tuple[str, str], ...] = (),
    refused: tuple[Change, ...] = (),
) -> DatasetCard:
    """Describe a dataset of prepared pictures.

    Args:
        objects: what it will hold.
        preparation: of its pictures.
        gray: the pictures have one channel before their preparation.
        target: what there is to learn.
        mirrored: pairs of classes that a mirror image turns into each other.
        refused: what must not be done to its pictures.
    """
    return DatasetCard(
        kind="uint8",
        bands=("gray",) if gray or preparation.gray else ("red", "green", "blue"),
        colour_bands=(),
        classes=objects.classes,
        pixel_scale_arcsec=None,
        n_skipped=0,
        crop_px=preparation.crop_px,
        target=target,
        mirrored=mirrored if target == "class" else (),
        denoise=preparation.denoise,
        denoise_strength=preparation.denoise_strength,
        n_dropped=objects.n_dropped,
        picture_px=objects.picture_px,
        refused=refused,
    )


def check_objects(objects: Objects, target: Target, bad: BadFiles, source: Path) -> None:
    """Refuse objects of which nothing can be learned, before any of their pictures is decoded.

    Args:
        objects: what a reader found.
        target: what there is to learn.
        bad: what to do with absent pictures; they are told to it.
        source: names the dataset's source in errors.

    Raises:
        DataError: an absent picture under ``stop``; nothing, or only one class, is left.
    """
    if not len(objects.rows) + len(objects.absent) + len(bad.skipped):
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in objects.n_dropped.items() if number)
        raise DataError(source, f"holds no object to learn from ({reasons or 'it is empty'})", "add some")
    _meet_absent(objects, bad, source)
    _refuse_useless(objects.rows["label"], target, bad, source)
    unseen = [name for name in objects.classes if name not in set(objects.rows["label"])]
    if unseen:
        click.echo(f"{source}: holds no object of the class {', '.join(unseen)}: nothing can learn it", err=True)


def bad_pictures(name: str, objects: Objects) -> dict[int, DataError]:
    """Decode and prepare every picture once, as packing will, and keep none.

    Returns:
        What is wrong with each bad picture, by its place in the rows.
    """
    bad: dict[int, DataError] = {}
    with closing(objects.pictures()) as pictures:
        for place, picture in enumerate(track(pictures, f"checking {name}", len(objects.rows))):
            if isinstance(picture, DataError):
                bad[place] = picture
    return bad


def pack_objects(
    name: str, objects: Objects, card: DatasetCard, shape_px: tuple[int, int], bad: BadFiles, *, source: Path, out: Path
) -> None:
    """Write a packed dataset, and count on stderr what it left out.

    Args:
        name: of the dataset.
        objects: rows, and their pictures, (*shape_px, channel), decoded one after another.
        card: what the numbers mean; its ``n_skipped`` is counted here.
        shape_px: (height, width).
        bad: what to do with objects that have no picture.
        source: names the dataset's source in errors.
        out: the folder to write.

    Raises:
        DataError: an absent or bad picture under ``stop``; nothing, or only one class, is left.
    """
    bad.leave_out(objects.lacking, name)
    check_objects(objects, card.target, bad, source)
    with whole_folder(out) as packed:
        kept = _fill(name, objects, (len(objects.rows), *shape_px, len(card.bands)), bad, packed)
        rows = objects.rows.iloc[kept].assign(image=np.arange(len(kept)))
        _refuse_useless(rows["label"], card.target, bad, source)
        fractions = None if objects.fractions is None else objects.fractions[kept]
        write_rows(packed, rows, replace(card, n_skipped=len(bad.skipped)), bad.skipped, fractions)
    counts = {**card.n_dropped, "absent or bad images skipped": len(bad.skipped)}
    left_out = "".join(f"; {number:,} {reason}" for reason, number in counts.items() if number)
    click.echo(f"{name}: {len(kept):,} images packed{left_out}", err=True)


def _meet_absent(objects: Objects, bad: BadFiles, source: Path) -> None:
    absent, n_present, n_unnamed = objects.absent, len(objects.rows), objects.n_dropped.get(UNNAMED, 0)
    if absent and (bad.policy == "stop" or not n_present):
        problem = f"{len(absent)} of its {len(absent) + n_present} images are absent from {absent[0].parent}"
        problem += f", the first is {absent[0].name}" + (f"; {n_unnamed} {UNNAMED} are there" if n_unnamed else "")
        remedy = f"name each image by its id, {absent[0].name}.jpg for one, or drop those rows"
        skip = ", or set on_bad_file: skip in params.yaml for dvc repro" if n_present else ""
        raise DataError(source, problem, remedy + skip)
    for path in absent:
        bad.meet(DataError(path, "image is absent", "add it"))


def _refuse_useless(labels: pd.Series, target: Target, bad: BadFiles, source: Path) -> None:
    """Refuse when no object is left, or only one class."""
    bad.refuse_if_nothing_left(len(labels), source)
    if target == "class" and labels.nunique() == 1:
        problem = f"every object ({len(labels)}) is of the class {labels.iloc[0]!r}"
        raise DataError(source, problem, "add objects of another class: one alone teaches nothing")


def _fill(name: str, objects: Objects, shape: tuple[int, int, int, int], bad: BadFiles, packed: Path) -> list[int]:
    """Fill images.npy; return the places in the rows of the images that it holds, in its order."""
    images: np.memmap = create_images(packed, shape, np.uint8)
    reserve_space(packed / "images.npy")
    kept: list[int] = []
    with closing(objects.pictures()) as pictures:
        for place, picture in enumerate(track(pictures, f"packing {name}", len(objects.rows))):
            if isinstance(picture, DataError):
                bad.meet(picture)
            else:
                images[len(kept)] = picture
                kept.append(place)
    if kept:
        images.flush()
        keep_images(packed / "images.npy", range(len(kept)))
    return kept
