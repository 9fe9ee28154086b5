"""The ``.h5`` of a trained network: the whole network, and a card of what its pixels and probabilities mean."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import keras
import numpy as np

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.config import build
from deepsky.datasets.params import Target
from deepsky.errors import ConfigError, ConfigErrors, DataError
from deepsky.imaging.params import Denoise, check_denoise, check_side
from deepsky.networks import inputs, tree  # noqa: F401 - they register layers that a saved network may hold
from deepsky.networks.portable import fused, portable
from deepsky.networks.saving import save_h5

CARD_ATTRIBUTE = "deepsky_card"
_REMEDY = "give a model.h5 that the train stage wrote"


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
        picture_px: (height, width) of the pictures before they were prepared; None where unknown or of many sizes.
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
    picture_px: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse what no training writes.

        Raises:
            ValueError: says what.
        """
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise ValueError(f"image_shape {self.image_shape} is not height, width, channel")
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes {self.classes} are none, or name one twice")
        if len(self.bands) != self.image_shape[2]:
            raise ValueError(f"bands {self.bands} are not the {self.image_shape[2]} channels of image_shape")
        if self.picture_px is not None and (len(self.picture_px) != 2 or min(self.picture_px) < 1):
            raise ValueError(f"picture_px {self.picture_px} is not height, width")
        check_side("crop_px", self.crop_px)
        check_denoise(self.denoise, self.denoise_strength)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Name each output: the classes, or the columns of the decision tree."""
        return self.classes if self.target == "class" else COLUMNS


def save_network(path: Path, model: keras.Model, card: ModelCard) -> None:
    """Write one self-contained ``.h5``; the same network and card give the same bytes.

    It holds Keras' own layers only, where they can say the same (``networks.portable``).
    """
    save_h5(portable(model), path, {CARD_ATTRIBUTE: json.dumps(asdict(card), sort_keys=True)})


def load_network(path: Path) -> tuple[keras.Model, ModelCard]:
    """Read a network that ``save_network`` wrote, uncompiled; no code in the file is ever run.

    Raises:
        DataError: the file is missing, is not HDF5, has no card or one that does not fit the network, Keras cannot
            build it, or a weight is not finite.
    """
    if not path.is_file():  # a pipe would be waited for
        raise DataError(path, "is not a file" if path.exists() else "does not exist", _REMEDY)
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get(CARD_ATTRIBUTE)
    except OSError as error:
        raise DataError(path, "is not an HDF5 file", _REMEDY) from error
    if text is None:
        raise DataError(path, f"holds no {CARD_ATTRIBUTE}: it is not a network of this project", _REMEDY)
    card = _read_card(path, text)
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
        _check(model, card)
        return fused(model), card
    except Exception as error:  # Keras trips in any way over a file that somebody has changed
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(path, f"cannot be built ({problem})", _REMEDY) from error


def _read_card(path: Path, text: Any) -> ModelCard:
    try:
        card: ModelCard = build(json.loads(text), ModelCard, CARD_ATTRIBUTE)
    except ConfigErrors as error:
        first = error.errors[0]
        raise DataError(path, f"{first.where} is wrong: {first.problem}", _REMEDY) from error
    except ConfigError as error:
        raise DataError(path, f"{error.where} is wrong: {error.problem}", _REMEDY) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(path, f"its {CARD_ATTRIBUTE} is not JSON", _REMEDY) from error
    return card


def _check(model: keras.Model, card: ModelCard) -> None:
    """Refuse a network that is not the one that the card speaks of, or that has no answers.

    Raises:
        ValueError: says what is wrong.
    """
    wanted = (None, *card.image_shape), (None, len(card.outputs))
    if (model.input_shape, model.output_shape) != wanted:
        raise ValueError(
            f"it makes {model.output_shape} of {model.input_shape}, its card says {wanted[1]}, {wanted[0]}"
        )
    for weight in model.weights:
        if not np.isfinite(weight.numpy()).all():
            raise ValueError(f"weight {weight.path} is not finite")
