"""What is known of a backbone's weights: the card beside the file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deepsky.errors import WeightsError


@dataclass(frozen=True)
class WeightsCard:
    """What ``weights.json`` says about the ``weights.h5`` beside it.

    Attributes:
        weights: ``imagenet``, ``custom`` (a file of that name that is not Keras' own), ``random``; or
            ``scratch`` where no run starts from pretrained weights, and so there is no file.
        source: the file's name, or the seed; never a path, so that every machine writes the same card.
        sha256: of ``weights.h5``.
    """

    weights: Literal["imagenet", "custom", "random", "scratch"]
    source: str
    sha256: str


def read_weights_card(folder: Path) -> WeightsCard:
    """Read ``weights.json`` of a folder that the weights stage wrote.

    Raises:
        WeightsError: the folder holds none.
    """
    try:
        return WeightsCard(**json.loads((folder / "weights.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        remedy = "run dvc repro weights"
        raise WeightsError(folder, f"holds no weights ({error})", remedy) from error
