"""The convolutional networks of the regression study, which predicts 37 vote fractions, trained from the images.

The widths are the study's: convolutions of 32, 64, 128, 128 filters with 512 dense units, and of 32, 96, 128, 128
filters with 96 and 64 dense units; it fed them images of 100 and 70 px. The rest is our
reconstruction, as such networks commonly were: 3 x 3 kernels without padding, ReLU, maxima over 2 x 2 behind each
convolution, all maps flattened.
"""

from collections.abc import Sequence

import keras

from deepsky.networks.convolutions import convolved, hidden_layer, named_maps, require_side, standardised
from deepsky.networks.heads import Answer

MIN_SIZE_PX = 46


def build_tail_512(shape: tuple[int, int, int], answer: Answer) -> keras.Model:
    """Build pixels -> answer: 32-64-128-128 filters, 512 units.

    Raises:
        ConfigError: the images are too small.
    """
    return _build_tail("regression_512", (32, 64, 128, 128), (512,), shape, answer)


def build_tail_96_64(shape: tuple[int, int, int], answer: Answer) -> keras.Model:
    """Build pixels -> answer: 32-96-128-128 filters, 96 and 64 units.

    Raises:
        ConfigError: the images are too small.
    """
    return _build_tail("regression_96_64", (32, 96, 128, 128), (96, 64), shape, answer)


def _build_tail(
    name: str, n_filters: Sequence[int], hidden_units: Sequence[int], shape: tuple[int, int, int], answer: Answer
) -> keras.Model:
    require_side(name, shape, MIN_SIZE_PX)
    pixels = keras.Input(shape, name="pixels")
    maps = standardised(pixels)
    for number, n in enumerate(n_filters, start=1):
        maps = convolved(maps, n, 3, number)
        maps = named_maps(maps) if number == len(n_filters) else maps
        maps = keras.layers.MaxPooling2D(2, name=f"halve_{number}")(maps)
    hidden = keras.layers.Flatten(name="flat")(maps)
    for number, n_units in enumerate(hidden_units, start=1):
        hidden = hidden_layer(hidden, n_units, number)
    return keras.Model(pixels, answer(hidden), name=name)
