"""Where a backbone's weights come from: a folder, Keras' cache, a download, or a seed."""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import numpy.typing as npt

from deepsky.archives.http import download
from deepsky.errors import DataError, WeightsError
from deepsky.networks import BACKBONES
from deepsky.networks.backbone import Backbone, load_weights
from deepsky.networks.saving import save_h5

WEIGHTS_FOLDER_VARIABLE = "DEEPSKY_WEIGHTS"
WEIGHTS_URL_VARIABLE = "DEEPSKY_WEIGHTS_URL"
KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
CALIBRATION_SIZE_PX = 96
N_CALIBRATION_IMAGES = 16


@dataclass(frozen=True)
class WeightsParams:
    """Section ``weights``.

    Attributes:
        source: ``imagenet`` stops without the real weights, ``imagenet-or-random`` then draws random ones,
            ``random`` always draws them.
        folder: a folder with Keras' no-top ``.h5`` files; the environment variable DEEPSKY_WEIGHTS overrides it.
        download: whether ``imagenet-or-random`` may use the network too; ``imagenet`` always may.
        seed: of the random weights.
    """

    source: Literal["imagenet", "imagenet-or-random", "random"]
    folder: str | None
    download: bool
    seed: int


@dataclass(frozen=True)
class WeightsCard:
    """What ``weights.json`` says about the ``weights.h5`` beside it.

    Attributes:
        weights: ``imagenet`` or ``random``.
        source: Keras' file name, or the seed; never a path, so that every machine writes the same card.
        sha256: of ``weights.h5``.
    """

    weights: Literal["imagenet", "random"]
    source: str
    sha256: str


def write_weights(network: str, params: WeightsParams, folder: Path) -> tuple[WeightsCard, str]:
    """Write ``weights.h5`` and ``weights.json`` of one backbone into an empty folder.

    Returns:
        The card, and a line about where the weights were found or why they are random.

    Raises:
        WeightsError: a named folder is missing, a file does not fit, or ``imagenet`` found none.
    """
    backbone, target = BACKBONES[network], folder / "weights.h5"
    found, looked_in = None, []
    if params.source != "random":
        found, looked_in = _find(backbone, params)
    if found is not None:
        # A file that stands there but does not fit is an error, whatever the source: it was meant to be used.
        load_weights(backbone.build(backbone.min_size_px), found)
        shutil.copyfile(found, target)
        card = WeightsCard("imagenet", backbone.weights_file, _hash(target, "sha256"))
        note = f"{found}{_doubt(found, backbone)}"
    else:
        found_by_download = params.source != "random" and _downloaded(network, backbone, params, target, looked_in)
        card, note = (
            _card_of_download(backbone, target) if found_by_download else _draw(network, params, target, looked_in)
        )
    (folder / "weights.json").write_text(json.dumps(asdict(card), indent=2) + "\n")
    return card, note


