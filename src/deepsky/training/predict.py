"""Predict on the images of a dataset, which need not fit into memory."""

from contextlib import closing
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from deepsky.datasets.packed import Packed
from deepsky.interruption import uninterrupted
from deepsky.networks.inputs import ImageSpec
from deepsky.parallel import in_threads

ROWS_AT_ONCE = 256  # of features, where nothing else says how many


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

    While the network looks at a batch, the next one is read and goes to the device.

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
    batches, n_at_once = batches_of(n_images, batch_size)
    result = np.empty((n_images, *model.output_shape[1:]), np.float32)

    def read(rows: slice) -> Any:
        return _on_device(images[rows] if chosen is None else images[chosen[rows]], n_at_once)

    with closing(in_threads(read, batches, n_ahead=1)) as batches_read:
        for rows, batch in zip(batches, batches_read, strict=True):
            result[rows] = _answers(model, batch)[: len(result[rows])]
    return result


def batches_of(n_images: int, batch_size: int) -> tuple[list[slice], int]:
    """Cut images into batches as ``predict_batches`` does; return them, and how many images make one."""
    n_at_once = max(1, min(batch_size, n_images))
    return [slice(start, start + n_at_once) for start in range(0, n_images, n_at_once)], n_at_once


def predict_batch(model: keras.Model, images: npt.NDArray[Any], n_at_once: int) -> npt.NDArray[np.float32]:
    """Predict on one batch.

    Args:
        model: takes (n, *images.shape[1:]).
        images: at most ``n_at_once``, n first.
        n_at_once: images that go through the model: fewer are filled up, as another size would be compiled anew.
    """
    return _answers(model, _on_device(images, n_at_once))[: len(images)]


def _on_device(images: npt.NDArray[Any], n_at_once: int) -> Any:
    """Fill a batch up and bring it to where Keras computes."""
    filled = np.pad(images, [(0, n_at_once - len(images)), *[(0, 0)] * (images.ndim - 1)], mode="edge")
    return keras.ops.convert_to_tensor(filled)


def _answers(model: keras.Model, batch: Any) -> npt.NDArray[np.float32]:
    with uninterrupted():
        answers: npt.NDArray[np.float32] = model.predict_on_batch(batch)
    return answers
