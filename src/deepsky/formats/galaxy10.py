"""Galaxy10 DECaLS: 17,736 galaxies of the DESI Legacy Imaging Surveys in ten classes, one HDF5 file."""

import hashlib
import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.errors import DataError
from deepsky.formats.format import Format, Objects, preparation_of
from deepsky.formats.packing import AHEAD
from deepsky.formats.params import PicturesParams
from deepsky.imaging.pictures import Picture
from deepsky.imaging.preparation import Preparation
from deepsky.parallel import in_threads

URL = "https://zenodo.org/records/10845026/files/Galaxy10_DECals.h5"
SHA256 = "19aefc477c41bb7f77ff07599a6b82a038dc042f889a111b0d4d98bb755c1571"
# In the order of ``ans``. One widely used library gives class 3 another name.
CLASSES = (
    "Disturbed",
    "Merging",
    "Round Smooth",
    "In-between Round Smooth",
    "Cigar Shaped Smooth",
    "Barred Spiral",
    "Unbarred Tight Spiral",
    "Unbarred Loose Spiral",
    "Edge-on without Bulge",
    "Edge-on with Bulge",
)
SIDE_PX = 256
_SLICE_IMAGES = 256  # read at once, at least
_COLUMNS = ("ans", "ra", "dec", "redshift", "pxscale")
_AGAIN = f"download it again from {URL}"


def read(source: Path, params: PicturesParams) -> Objects:
    """Open the file, check it against the release, and read what is known of its galaxies.

    Args:
        source: ``Galaxy10_DECals.h5`` with images (n, 256, 256, 3) uint8, ans, ra, dec, redshift and pxscale (n,).
        params: ``sha256``: None accepts the release on Zenodo only, ``any`` every file of its structure.

    Returns:
        The galaxies in the file's order; id is the place in the file, from 0.

    Raises:
        DataError: no such file, not HDF5, another structure or hash, a label or position out of range.
        ConfigError: ``crop_px`` is larger than the images.

    Source:
        Leung & Bovy 2019, MNRAS 483, 3255; https://doi.org/10.5281/zenodo.10845026.
    """
    params.check_crop(source, SIDE_PX)
    with _opened(source) as images:
        columns = _read_columns(source, images)
    rows = _check_rows(source, columns)
    _check_release(source, (params.sha256 or SHA256).lower())
    return Objects(rows, CLASSES, partial(_decode, source, preparation_of(params)))


def _decode(source: Path, preparation: Preparation, places: Sequence[int]) -> Generator[Picture, None, None]:
    return in_threads(lambda task: preparation.apply(*task), _read_slices(source, places), n_ahead=AHEAD)


@contextmanager
def _opened(source: Path) -> Iterator[h5py.Dataset]:
    """Give the array of images; what HDF5 refuses is told in one line."""
    try:
        with h5py.File(source) as file:
            images = file.get("images")
            if not isinstance(images, h5py.Dataset):
                raise DataError(source, f"has no array 'images'; its keys are {', '.join(file) or 'none'}", _AGAIN)
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (SIDE_PX, SIDE_PX, 3):
                problem = f"holds images of shape {images.shape} and type {images.dtype}"
                raise DataError(source, f"{problem}, not (n, {SIDE_PX}, {SIDE_PX}, 3) of uint8", _AGAIN)
            yield images
    except OSError as error:
        raise DataError(source, f"cannot be read as HDF5 ({error})", _AGAIN) from error


def _read_columns(source: Path, images: h5py.Dataset) -> dict[str, npt.NDArray[Any]]:
    """Read what stands beside the images, one value for each."""
    columns = {}
    for key in _COLUMNS:
        column = images.parent.get(key)
        if not isinstance(column, h5py.Dataset):
            keys = ", ".join(images.parent)
            raise DataError(source, f"has no array {key!r}; its keys are {keys}", _AGAIN)
        if column.shape != images.shape[:1] or column.dtype.kind not in "iuf":
            problem = f"{key} has the shape {column.shape} and type {column.dtype}"
            raise DataError(source, f"{problem}, not one number for each of {len(images)} images", _AGAIN)
        columns[key] = column[:]
    return columns


def _check_rows(source: Path, columns: Mapping[str, npt.NDArray[Any]]) -> pd.DataFrame:
    ranges = {"ans": (0, len(CLASSES) - 1), "ra": (0, 360), "dec": (-90, 90)}
    for key, (lowest, highest) in ranges.items():
        fits = (columns[key] >= lowest) & (columns[key] <= highest)  # NaN fits nowhere
        if key == "ans":
            fits &= columns[key] == np.floor(columns[key])
        if not fits.all():
            place = int(np.argmin(fits))
            problem = f"{key} of image {place} is {columns[key][place]}, not within {lowest}..{highest}"
            raise DataError(source, problem, _AGAIN)
    labels = np.array(CLASSES, object)[columns["ans"].astype(int)]
    ids = np.arange(len(labels)).astype(str)
    return pd.DataFrame({"id": ids, "label": labels, "ra_deg": columns["ra"], "dec_deg": columns["dec"]})


def _check_release(source: Path, wanted: str) -> None:
    """Compare the file's hash with the one that is wanted; ``any`` is let through, and said."""
    with source.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if wanted == "any":
        kind = "the release" if found == SHA256 else "not the release"
        click.echo(f"{source}: SHA-256 {found}, {kind}; accepted, as sha256 is 'any'", err=True)
    elif found != wanted:
        remedy = f"{_AGAIN}, or --sha256 any (sha256: any in params.yaml) if the file is meant to be another"
        raise DataError(source, f"has the SHA-256 {found}, not {wanted}", remedy)


def _read_slices(source: Path, places: Sequence[int]) -> Iterator[tuple[str, Picture]]:
    """Give the image at each place and its name, out of a slice that was read while the one before was worked on.

    A chunk of the release holds 16 x 16 pixels of one channel of 555 images: one image alone takes as much reading
    as 555 do. So a slice is as deep as the chunks are, 109 MB. Three are in memory at most: the one that is read, and
    two of which pictures wait to be prepared, as ``in_threads`` takes fewer ahead than one slice holds.
    """
    with _opened(source) as images:
        depth = images.chunks[0] if images.chunks else 1
        step = depth * -(-_SLICE_IMAGES // depth)
        slices = {start: list(group) for start, group in itertools.groupby(places, lambda place: place // step * step)}
        with closing(in_threads(lambda start: images[start : start + step], slices, n_ahead=1)) as read:
            for start, pictures in zip(slices, read, strict=True):
                for place in slices[start]:
                    yield f"image {place} of {source}", pictures[place - start]


FORMAT = Format(read)
