"""Run a fixed front once over the distinct images of a dataset."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from deepsky.datasets.packed import Packed
from deepsky.errors import DataError
from deepsky.files import whole_file
from deepsky.networks.inputs import ImageSpec

ROWS_AT_ONCE = 256  # of features, where nothing else says how many


@dataclass(frozen=True)
class FeaturesParams:
    """Section ``features``.

    Attributes:
        batch_size: images per step; changes speed, not features.
    """

    batch_size: int

    def __post_init__(self) -> None:
        """Refuse what would fail later."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} is below 1")


def image_spec(packed: Packed) -> ImageSpec:
    """Return what a network must know of a dataset's pixels."""
    height, width, channel = packed.images.shape[1:]
    return ImageSpec((height, width, channel), packed.card.kind, packed.card.bands, packed.card.colour_bands)


def predict_batches(
    model: keras.Model,
    images: npt.NDArray[Any],
    batch_size: int,
    *,
    chosen: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float32]:
    """Predict on images that need not fit into memory.

    Under TensorFlow ``keras.Model.predict`` goes through tf.data, whose tuner may keep it for as long again as it took
    (see docs/decisions/0011).

    Args:
        model: takes (n, *images.shape[1:]).
        images: array or memory map, n first.
        batch_size: images per step.
        chosen: which images; None: all.

    Returns:
        Float32, (n, *model.output_shape[1:]).
    """
    n_images = len(images if chosen is None else chosen)
    n_at_once = max(1, min(batch_size, n_images))
    result = np.empty((n_images, *model.output_shape[1:]), np.float32)
    for start in range(0, n_images, n_at_once):
        rows = slice(start, start + n_at_once)
        part = images[rows] if chosen is None else images[chosen[rows]]
        # The last batch is filled up: another size would be compiled anew.
        filled = np.pad(part, [(0, n_at_once - len(part)), *[(0, 0)] * (part.ndim - 1)], mode="edge")
        result[rows] = model.predict_on_batch(filled)[: len(part)]
    return result


def write_features(features: npt.NDArray[np.float32], path: Path) -> None:
    """Write features.npy whole.

    Raises:
        DataError: a feature is not finite; names the first such image.
    """
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise DataError(path, f"features of image {bad[0]} are not finite", "look for NaN pixels in that image")
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, features, allow_pickle=False)


def read_features(path: Path, n_images: int) -> npt.NDArray[np.float32]:
    """Open features.npy of a dataset, memory-mapped: processes beside each other share one copy.

    Raises:
        DataError: not such a file, or of another number of images.
    """
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(path, f"holds no features ({error})", "run dvc repro to write them again") from error
    if features.ndim != 2 or len(features) != n_images:
        raise DataError(path, f"has shape {features.shape} for {n_images} images", "run dvc repro to write it again")
    return features
