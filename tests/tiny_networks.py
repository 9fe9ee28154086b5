"""A network that builds in no time, saved as stage train saves it."""

import functools
import tempfile
from pathlib import Path

import keras

from deepsky.networks.convolutions import named_maps
from deepsky.networks.heads import Answer, join, softmax_answer, tree_answer
from deepsky.networks.inputs import ImageSpec, stretched_front
from deepsky.training.saved import ModelCard, save_network

SIDE_PX = 12


def tiny_tail(answer: Answer, n_channels: int = 3) -> keras.Model:
    """Build pixels -> answer: two convolutions, the layer "maps" and what the answer adds; the same at every call."""
    keras.utils.set_random_seed(3)
    pixels = keras.Input((SIDE_PX, SIDE_PX, n_channels), name="pixels")
    maps = keras.layers.Conv2D(8, 3, activation="relu", name="conv_1")(pixels)
    maps = keras.layers.Conv2D(5, 3, activation="relu", name="conv_2")(maps)
    pooled = keras.layers.GlobalAveragePooling2D(name="average")(named_maps(maps))
    return keras.Model(pixels, answer(pooled), name="tiny_tail")


@functools.cache
def tiny_network(n_classes: int | None) -> bytes:
    """Return the model.h5 of a network that takes images of 12 px; without classes it answers with vote fractions."""
    answer = softmax_answer(n_classes) if n_classes else tree_answer()
    front = stretched_front(ImageSpec((SIDE_PX, SIDE_PX, 3), "uint8", ("r", "g", "b")), SIDE_PX)
    card = ModelCard(
        dataset="toy", network="tiny", weights="scratch", classes=tuple(f"c{k}" for k in range(n_classes or 1)),
        kind="uint8", bands=("r", "g", "b"), colour_bands=(), image_shape=(SIDE_PX, SIDE_PX, 3),
        pixel_scale_arcsec=None, target="class" if n_classes else "fractions",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.h5"
        save_network(path, join(front, tiny_tail(answer), "tiny"), card)
        return path.read_bytes()
