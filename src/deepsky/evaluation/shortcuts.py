"""What is known of an object without looking at its picture as a network does, as tables of features.

Shortcuts: what stands beside the picture, each by itself. Photometry: how much light falls into a few circles around
the object, which is what catalogues are made of.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.datasets.packed import Packed

Table = npt.NDArray[np.float64]  # (n_rows, n_features); NaN where unknown
_MAGNITUDE = "r_mag"
_COLOURS = ("ug", "gr", "ri", "iz")
_RADII = (1 / 32, 1 / 16, 1 / 8, 1 / 4)  # of the circles, in sides of the picture
_SOFTENING_NMGY = 0.1  # AB magnitude 25: below it a magnitude becomes linear in flux (Lupton et al. 1999)
_AT_ONCE_BYTES = 1 << 26


def shortcuts(packed: Packed, levels: Table) -> dict[str, Table]:
    """Return what stands beside the pictures, by its name; what is not known of the dataset is left out.

    Args:
        packed: the dataset.
        levels: as ``circle_levels`` gives them.
    """
    rows = packed.rows
    outside = levels[rows["image"].to_numpy(np.int64), -1]
    tables = {
        "magnitude": _columns(rows, [_MAGNITUDE]),
        "colours": _colours_of_catalogue(rows),
        "sky level": _columns(rows, _named(rows, "sky_", "noise_")),
        "PSF width": _columns(rows, _named(rows, "psf_")),
        "file size": _columns(rows, ["file_bytes"]),
        "edge flag": _columns(rows, ["edge"]),
        "position in the frame": _columns(rows, ["x_px", "y_px"]),
        "image mean outside the object": outside,
        "row order": np.arange(len(rows), dtype=np.float64)[:, np.newaxis],
    }
    return {name: table for name, table in tables.items() if table.size and np.isfinite(table).any()}


def photometry(packed: Packed, levels: Table) -> dict[str, Table]:
    """Return magnitudes and colours in circles, by the bands that are used: all, and g, r and i of more.

    Magnitudes are asinh magnitudes of flux, and plain levels of pictures; colours are the differences of neighbouring
    bands in each circle. Where pictures are whole frames, which are not square, no object is in their middle: there is
    no photometry.

    Args:
        packed: the dataset.
        levels: as ``circle_levels`` gives them.
    """
    height, width = packed.images.shape[1:3]
    if height != width:
        return {}
    inside = levels[packed.rows["image"].to_numpy(np.int64), :-1]  # (row, circle, band)
    if packed.card.kind == "flux":
        areas = np.array([circle.sum() for circle in circles(height, width)[:-1]])
        inside = np.arcsinh(inside * areas[:, np.newaxis] / (2 * _SOFTENING_NMGY))
    bands = packed.card.bands
    chosen = {"".join(bands) if all(len(band) == 1 for band in bands) else ", ".join(bands): list(range(len(bands)))}
    if len(bands) > 3 and set("gri") <= set(bands):
        chosen["gri"] = [bands.index(band) for band in "gri"]
    return {name: _with_differences(inside[:, :, places]) for name, places in chosen.items()}


def circle_levels(images: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> Table:
    """Return the mean level in each circle around the middle, and outside of the widest that fits, of every image.

    Args:
        images: (n, height, width, band); read in batches of bounded size.

    Returns:
        (n, n circles + 1, band).
    """
    n, height, width, n_bands = images.shape
    masks = circles(height, width).reshape(-1, height * width)
    with np.errstate(invalid="ignore"):  # in tiny pictures nothing is outside: NaN
        means = (masks / masks.sum(axis=1, keepdims=True)).astype(np.float32)
    levels = np.empty((n, len(means), n_bands))
    for start, stop in _batches(n, height * width * n_bands * 4):
        pixels = images[start:stop].reshape(stop - start, height * width, n_bands).astype(np.float32, copy=False)
        levels[start:stop] = means @ pixels
    return levels


def circles(height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return which pixels lie in each circle around the middle; the last row: outside of the widest that fits."""
    y, x = np.ogrid[:height, :width]
    side, distance = min(height, width), np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
    inside = [distance <= max(radius * side, 1.0) for radius in _RADII]
    return np.stack([*inside, distance > side / 2])


def _batches(n: int, image_bytes: int) -> Iterator[tuple[int, int]]:
    step = max(1, _AT_ONCE_BYTES // image_bytes)
    for start in range(0, n, step):
        yield start, min(start + step, n)


def _named(rows: pd.DataFrame, *prefixes: str) -> list[str]:
    return [name for name in rows.columns if name.startswith(prefixes)]


def _columns(rows: pd.DataFrame, names: Sequence[str]) -> Table:
    """Return columns as numbers; a table without columns where one is missing."""
    known = list(names) if set(names) <= set(rows.columns) else []
    return rows[known].astype(np.float64).to_numpy()


def _colours_of_catalogue(rows: pd.DataFrame) -> Table:
    pairs = [[f"{band}_mag" for band in pair] for pair in _COLOURS]
    return np.hstack([-np.diff(_columns(rows, pair), axis=1) for pair in pairs])


def _with_differences(levels: Table) -> Table:
    """Lay out (row, circle, band) with the differences of neighbouring bands as (row, feature)."""
    both = np.concatenate([levels, np.diff(levels, axis=2)], axis=2)
    return both.reshape(len(levels), -1)
