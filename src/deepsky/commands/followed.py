"""One object through every stage: its place in the raw frames, its pictures, its features, every run's answer."""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np
import pandas as pd

from deepsky.commands.models import TRAINED
from deepsky.commands.traced import Traced
from deepsky.datasets.packed import Packed, open_packed
from deepsky.datasets.shown import shown
from deepsky.errors import DataError
from deepsky.evaluation.figures import INK, save_png
from deepsky.evaluation.tiles import RIGHT, WRONG, Picture, Row, Tile, in_rows, tiles_figure
from deepsky.files import whole_file
from deepsky.imaging.frame_names import identify_by_name
from deepsky.imaging.frames import Frame, read_frame
from deepsky.imaging.params import Reading
from deepsky.imaging.stretch import asinh_stretch, shrink_to_plot, sky_limits, to_gray

FOLDER = Path("evaluation/objects")
_AROUND_PX = 96  # of the raw frames' pixels
_MARK = (255, 160, 0)


def run(identity: str, traced: Traced, root: Path) -> None:
    """Print where an object came from and what became of it, and write a strip of its pictures.

    Split and raw files are those of the run; pictures and answers are those that stand in the workspace now.

    Raises:
        DataError: the run's dataset has no such object, or nothing of it is in the workspace.
    """
    row = traced.row_of(identity)
    click.echo(f"{identity}: {row['label']}, {row['split']} of {traced.dataset}")
    for one in traced.files_of(identity):
        click.echo(f"  {one.path} {one.digest} {one.url}")
    rows = [
        *_rows_of(_raw_tiles(identity, traced, root), "Raw frames, around the object and whole"),
        *_rows_of(_dataset_tiles(identity, root), "Datasets"),
        *_rows_of(_run_tiles(identity, root), "Runs: features' norm, answer"),
    ]
    if not rows:
        remedy = "run dvc checkout, or dvc repro"
        raise DataError(identity, "has no raw file, picture or answer left in the workspace", remedy)
    strip = FOLDER / f"{_as_file(identity)}.png"
    with whole_file(strip) as file:
        save_png(tiles_figure(rows, f"{identity}, {row['label']}"), file)
    click.echo(f"its pictures: {strip}")


def _rows_of(tiles: Iterator[Tile], heading: str) -> list[Row]:
    return in_rows(list(tiles), heading)


def _raw_tiles(identity: str, traced: Traced, root: Path) -> Iterator[Tile]:
    """Yield the object's surroundings in each raw frame, and where it is in the whole frame; a raw picture as it is."""
    reading, row = traced.reading, traced.row_of(identity)
    for one in traced.files_of(identity):
        path = root / one.path
        if not path.is_file():
            continue
        if _digest(path, one.digest) != one.digest:
            click.echo(f"  {one.path} has changed since the run: not shown")
            continue
        known = identify_by_name(path, reading) if reading else None
        if known is None:
            picture = cv2.imread(str(path))
            if picture is not None:
                yield Tile(picture[..., ::-1], (path.name,))
        elif reading is not None and known.band in reading.bands:
            frame = read_frame(path, known.band, reading, known.sdss)
            x_px, y_px = frame.astrometry.to_pixels(float(row["ra_deg"]), float(row["dec_deg"]))
            yield from _frame_tiles(frame, float(x_px), float(y_px), known.band, reading)


def _frame_tiles(frame: Frame, x_px: float, y_px: float, band: str, reading: Reading) -> Iterator[Tile]:
    flux, half = frame.flux_nmgy, _AROUND_PX // 2
    limits = sky_limits(flux)
    top, left = max(0, round(y_px) - half), max(0, round(x_px) - half)
    near = flux[top : top + _AROUND_PX, left : left + _AROUND_PX]
    yield Tile(_gray(to_gray(asinh_stretch(near, limits))), (f"{band}, {x_px:.0f}, {y_px:.0f} px",))
    if band == reading.position_band:
        whole = _gray(to_gray(asinh_stretch(shrink_to_plot(flux), limits)))
        place = round(x_px * whole.shape[1] / flux.shape[1]), round(y_px * whole.shape[0] / flux.shape[0])
        cv2.circle(whole, place, 22, _MARK, 5)
        yield Tile(whole, (f"{band}, whole",))


def _dataset_tiles(identity: str, root: Path) -> Iterator[Tile]:
    """Yield the object's image in every packed dataset that has it."""
    for name, packed, row in _packed_with(identity, root):
        yield Tile(_picture(packed, row), (name, f"{row['label']}, {_split(root, name, identity)}"))


def _run_tiles(identity: str, root: Path) -> Iterator[Tile]:
    """Yield what every trained run of these datasets answers."""
    for name, packed, row in _packed_with(identity, root):
        for folder in sorted((root / TRAINED / name).glob("*/")):
            answer = _line_of(folder / "predictions.csv", identity)
            if answer is None:
                continue
            network = json.loads((folder / "run.json").read_text(encoding="utf-8"))["network"]
            said = (answer.get("predicted", "fractions"), answer.get("confidence", ""))
            norm = _features_norm(root / "data/features" / name / network, int(row["image"]), len(packed.images))
            caption = (f"{name}", folder.name, " ".join(said), *([f"norm {norm:.3g}"] if norm is not None else []))
            words = {"True": ("right", RIGHT), "False": ("wrong", WRONG)}
            word, ink = words.get(answer.get("correct", ""), ("", INK))
            yield Tile(_picture(packed, row), caption, ink)
            click.echo(f"  {name}/{folder.name}: {answer['split']}, {', '.join(filter(None, (' '.join(said), word)))}")


def _packed_with(identity: str, root: Path) -> Iterator[tuple[str, Packed, "pd.Series[str]"]]:
    for folder in sorted((root / "data/packed").glob("*/")):
        line = _line_of(folder / "rows.csv", identity)
        if line is not None:
            yield folder.name, open_packed(folder), pd.Series(line)


def _line_of(path: Path, identity: str) -> dict[str, str] | None:
    """Return an object's line of a table whose first column is its id, without parsing the others."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    start = content.find(f"\n{identity},".encode())
    if start < 0:
        return None
    header, line = content[: content.find(b"\n")], content[start + 1 :].partition(b"\n")[0]
    names, values = csv.reader([header.decode(), line.decode()])
    return dict(zip(names, values, strict=False))


def _split(root: Path, dataset: str, identity: str) -> str:
    return (_line_of(root / f"data/splits/{dataset}.csv", identity) or {"split": "in no split"})["split"]


def _features_norm(folder: Path, image: int, n_images: int) -> float | None:
    """Return the length of an image's features, of the plain view; None where the network learns from the images."""
    for path in sorted(folder.glob("*/sides.npy")):
        features = np.load(path, mmap_mode="r", allow_pickle=False)
        if features.ndim == 3 and features.shape[1] == n_images:
            return float(np.linalg.norm(features[0, image]))
    return None


def _picture(packed: Packed, row: "pd.Series[str]") -> Picture:
    return _gray(shown(packed.images[int(row["image"])], packed.card))


def _gray(picture: Picture) -> Picture:
    """Give a gray picture its three channels; the memory is its own."""
    return np.ascontiguousarray(picture if picture.ndim == 3 else np.repeat(picture[..., np.newaxis], 3, axis=2))


def _digest(path: Path, like: str) -> str:
    """Return a file's hash: SHA-256 or MD5, as another one is."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256" if len(like) == 64 else "md5").hexdigest()


def _as_file(identity: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in identity)
