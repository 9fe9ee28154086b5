"""Write a network as ``.h5``, the same bytes every time."""

import logging
from collections.abc import Mapping
from pathlib import Path

import h5py
import keras


def save_h5(model: keras.Model, path: Path, attributes: Mapping[str, str] | None = None) -> None:
    """Write configuration and weights, without the optimizer's state (it would double the file).

    The file grows in memory and is written in one go: on a full disk HDF5 itself leaves the process in pieces.
    Keras calls ``.h5`` a legacy format at every save; here it is the chosen one, so that warning is held back.

    Args:
        model: what to write.
        path: the file.
        attributes: more attributes of the file's root.

    Raises:
        OSError: the file cannot be written.
    """
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with _MemoryFile(path.name, "w", driver="core", backing_store=False) as file:
            model.save(file, include_optimizer=False)
            file.attrs.update(attributes or {})
            file.flush()
            image = file.id.get_file_image()
    finally:
        logger.setLevel(level)
    try:
        path.write_bytes(image)
    except OSError as error:  # that of a failed write names no file
        raise OSError(error.errno, error.strerror, str(path)) from error


class _MemoryFile(h5py.File):
    """An HDF5 file in memory; Keras takes an open file but chooses the format by the end of its name."""

    def __str__(self) -> str:
        return "memory.h5"
