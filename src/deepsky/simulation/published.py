"""Simulated stand-ins for three published datasets of galaxies, each in the layout of the real one.

They hold no observation: they are there so that everything works offline, and is tested, before the real files are.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib import Parallel, delayed

from deepsky.catalogue.objid import pack_objid
from deepsky.files import whole_file, whole_folder
from deepsky.progress import track
from deepsky.simulation.galaxies import draw_picture, jpeg
from deepsky.simulation.params import AT_LEAST
from deepsky.simulation.shapes import Shape, draw_shapes, share_out
from deepsky.simulation.votes import draw_galaxies

# The classes of Galaxy Zoo 1, their shares as the real one has them, and the kinds of galaxy they are made of.
ZOO1_SHARES = {
    "elliptical": 0.30,
    "spiral clockwise": 0.18,
    "spiral anticlockwise": 0.18,
    "edge-on": 0.24,
    "don't know": 0.035,
    "merger": 0.065,
}
_SPIRALS = {"tight": 0.35, "loose": 0.4, "barred": 0.25}
_ZOO1_KINDS = {
    "elliptical": {"round": 0.5, "in-between": 0.4, "disc": 0.1},
    "spiral clockwise": _SPIRALS,
    "spiral anticlockwise": _SPIRALS,
    "edge-on": {"thin": 0.45, "bulged": 0.55},
    "don't know": {"faint": 0.7, "star": 0.3},
    "merger": {"merger": 1.0},
}
_CLOCKWISE = {"spiral clockwise": 1, "spiral anticlockwise": -1}
# The kinds in the order of Galaxy10 DECaLS' classes 0 to 9, and how many galaxies of each the real file has.
GALAXY10_COUNTS = {
    "disturbed": 1081,
    "merger": 1853,
    "round": 2645,
    "in-between": 2027,
    "cigar": 334,
    "barred": 2043,
    "tight": 1829,
    "loose": 2628,
    "thin": 1423,
    "bulged": 1873,
}
_ZOO_SIDE_PX, _ZOO1_SIDE_PX, _GALAXY10_SIDE_PX = 424, 423, 256
_GALAXY10_ZOOM = 1.6
_GALAXY10_PIXEL_ARCSEC = 0.262
_AT_ONCE = 128  # pictures that are drawn before the first is taken: a bounded memory, 69 MB
_GALAXY10_CHUNK = (555, 16, 16, 1)  # of the real file: one image alone costs as much reading as 555


def write_galaxy_zoo(n: int, seed: int, out: Path) -> None:
    """Write a stand-in for the Galaxy Zoo challenge.

    Args:
        n: galaxies.
        seed: of everything.
        out: the folder to write: images_training_rev1/GALAXYID.jpg (424 x 424) and training_solutions_rev1.csv.
    """
    votes, shapes = draw_galaxies(n, np.random.default_rng(seed))
    with whole_folder(out) as folder:
        images = folder / "images_training_rev1"
        images.mkdir()
        pictures = _draw_all(shapes, _ZOO_SIDE_PX, seed, "simulate galaxy_zoo")
        for galaxy_id, picture in zip(votes["GalaxyID"], pictures, strict=True):
            (images / f"{galaxy_id}.jpg").write_bytes(jpeg(picture))
        votes.to_csv(folder / "training_solutions_rev1.csv", index=False, float_format="%.6f", lineterminator="\n")


def write_galaxy_zoo1(n: int, seed: int, out: Path) -> None:
    """Write a stand-in for Galaxy Zoo 1 in folders.

    Args:
        n: galaxies.
        seed: of everything.
        out: the folder to write: CLASS/OBJID.jpg (423 x 423), about two galaxies of each SDSS field.
    """
    rng = np.random.default_rng(seed)
    classes = share_out(ZOO1_SHARES, n, at_least=AT_LEAST)
    kinds = [kind for name in ZOO1_SHARES for kind in share_out(_ZOO1_KINDS[name], classes.count(name))]
    shapes = draw_shapes(kinds, rng)
    shapes["clockwise"] = [
        _CLOCKWISE.get(name, either) for name, either in zip(classes, shapes["clockwise"], strict=True)
    ]
    ids = _objids(n, rng)
    with whole_folder(out) as folder:
        for name in ZOO1_SHARES:
            (folder / name).mkdir()
        pictures = _draw_all(shapes, _ZOO1_SIDE_PX, seed, "simulate galaxy_zoo1")
        for name, objid, picture in zip(classes, ids, pictures, strict=True):
            (folder / name / f"{objid}.jpg").write_bytes(jpeg(picture))


def write_galaxy10(n: int, seed: int, out: Path) -> None:
    """Write a stand-in for Galaxy10 DECaLS, keys, types and chunks as in the real file.

    Args:
        n: galaxies.
        seed: of everything.
        out: the .h5 file to write; its bytes follow from n and seed.
    """
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(share_out(GALAXY10_COUNTS, n, at_least=AT_LEAST)).tolist()
    columns: Mapping[str, npt.NDArray[Any]] = {
        "ans": np.array([list(GALAXY10_COUNTS).index(kind) for kind in kinds], np.uint8),
        "ra": rng.uniform(0, 360, n),
        "dec": np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(-15)), np.sin(np.radians(32)), n))),
        "redshift": rng.lognormal(np.log(0.07), 0.5, n),
        "pxscale": np.full(n, _GALAXY10_PIXEL_ARCSEC),
    }
    pictures = _draw_all(draw_shapes(kinds, rng), _GALAXY10_SIDE_PX, seed, "simulate galaxy10", zoom=_GALAXY10_ZOOM)
    shape = (n, _GALAXY10_SIDE_PX, _GALAXY10_SIDE_PX, 3)
    depth = min(n, _GALAXY10_CHUNK[0])
    with whole_file(out) as path, h5py.File(path, "w", locking=False) as file:  # whole_file holds its lock
        chunks = (depth, *_GALAXY10_CHUNK[1:])
        images = file.create_dataset("images", shape, np.uint8, chunks=chunks, compression="gzip", track_times=False)
        start = 0
        while taken := list(islice(pictures, depth)):  # as deep as a chunk: each is compressed once
            images[start : start + len(taken)] = np.stack(taken)
            start += len(taken)
        for key, values in columns.items():
            file.create_dataset(key, data=values, track_times=False)


def _draw_all(
    shapes: pd.DataFrame, side_px: int, seed: int, description: str, *, zoom: float = 1.0
) -> Iterator[npt.NDArray[np.uint8]]:
    """Draw the pictures side by side, in the order of the shapes; each has its own random numbers."""
    rows = [Shape(*row) for row in shapes[list(Shape._fields)].itertuples(index=False, name=None)]

    def drawn() -> Iterator[npt.NDArray[np.uint8]]:
        tasks = (
            delayed(draw_picture)(row, side_px, np.random.default_rng([seed, place]), zoom=zoom)
            for place, row in enumerate(rows)
        )
        # Threads: numpy and OpenCV let go of the interpreter's lock. In slices: joblib's own generator draws on and
        # on, however slowly its pictures are taken.
        while part := list(islice(tasks, _AT_ONCE)):
            yield from Parallel(n_jobs=-1, prefer="threads")(part)

    yield from track(drawn(), description, len(rows))


def _objids(n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw unique objIDs in about n / 2 fields."""
    n_fields = max(n // 2, 1)
    runs = rng.choice([1140, 1755, 2662, 3225, 3918, 4203, 5061, 6162], n_fields)
    camcols, fields = rng.integers(1, 7, n_fields), rng.integers(11, 800, n_fields)
    field = rng.integers(0, n_fields, n)
    numbers = rng.permutation(n) + 15
    return pack_objid(rerun=301, run=runs[field], camcol=camcols[field], field=fields[field], number=numbers)
