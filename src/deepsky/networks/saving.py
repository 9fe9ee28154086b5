"""Write a network as ``.h5``, the same bytes every time."""

import logging
from pathlib import Path

import keras


def save_h5(model: keras.Model, path: Path) -> None:
    """Write configuration and weights, without the optimizer's state (it would double the file).

    Keras calls ``.h5`` a legacy format at every save; here it is the chosen one, so that warning is held back.
    """
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        model.save(path, include_optimizer=False)
    finally:
        logger.setLevel(level)
