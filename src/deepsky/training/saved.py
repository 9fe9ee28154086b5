"""The ``.h5`` of a trained network: the whole network, and a card of what its pixels and probabilities mean."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import keras

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.datasets.packed import Target, tuples_of
from deepsky.errors import DataError
from deepsky.imaging.preparation import Denoise
from deepsky.networks import (  # noqa: F401 - each registers layers that a saved network may hold
    augment,
    dropout,
    inputs,
    tree,
    views,
)
from deepsky.networks.saving import save_h5

CARD_ATTRIBUTE = "deepsky_card"


@dataclass(frozen=True)
class ModelCard:
    """What a saved network was made for.

    Attributes:
        dataset: name of the dataset it learned from.
        network: name of the architecture.
        weights: what it started from.
        classes: class names, in the order of the probabilities.
        kind: ``uint8`` pictures, or ``flux`` in nanomaggies.
        bands: name of each channel of an image.
        colour_bands: the bands shown as red, green and blue; empty for uint8.
        image_shape: (height, width, channel) of one image.
        pixel_scale_arcsec: arcsec per pixel; None where unknown.
        crop_px: side of the middle square kept of each picture before resizing to image_shape; None kept all.
        target: what the outputs are: the probability of each ``class``, or the 37 vote ``fractions``.
        denoise: how the pictures were smoothed, and how much (see ``imaging.preparation``).
    """

    dataset: str
    network: str
    weights: Literal["imagenet", "custom", "random", "scratch"]
    classes: tuple[str, ...]
    kind: Literal["uint8", "flux"]
    bands: tuple[str, ...]
    colour_bands: tuple[str, ...]
    image_shape: tuple[int, int, int]
    pixel_scale_arcsec: float | None
    crop_px: int | None = None
    target: Target = "class"
    denoise: Denoise = "none"
    denoise_strength: float = 0.0

    @property
    def outputs(self) -> tuple[str, ...]:
        """Name each output: the classes, or the columns of the decision tree."""
        return self.classes if self.target == "class" else COLUMNS


def save_network(path: Path, model: keras.Model, card: ModelCard) -> None:
    """Write one self-contained ``.h5``; the same network and card give the same bytes."""
    save_h5(model, path, {CARD_ATTRIBUTE: json.dumps(asdict(card), sort_keys=True)})


def load_network(path: Path) -> tuple[keras.Model, ModelCard]:
    """Read a network that ``save_network`` wrote, uncompiled; no code in the file is ever run.

    Raises:
        DataError: the file is missing, is not HDF5, has no card, or Keras cannot build it.
    """
    remedy = "give a model.h5 that the train stage wrote"
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get(CARD_ATTRIBUTE)
    except OSError as error:
        problem = "does not exist" if not path.exists() else "is not an HDF5 file"
        raise DataError(path, problem, remedy) from error
    if text is None:
        raise DataError(path, f"holds no {CARD_ATTRIBUTE}: it is not a network of this project", remedy)
    try:
        fields: dict[str, Any] = json.loads(text)
        card = ModelCard(**{key: tuples_of(value) for key, value in fields.items()})
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(path, f"cannot be built ({problem})", remedy) from error
    return model, card
