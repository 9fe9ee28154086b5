"""Models 1 and 2 of the Galaxy10 study, trained from the images.

Known of them: three and seven convolution layers, and 122 k to 3.6 M parameters as model and input size (69 to 256 px)
give. The widths are our reconstruction, chosen to hold that span with ten classes: 122,122 parameters train in
model 2 at 69 px, 3,610,450 in model 1 at 256 px. So are the 3 x 3 kernels, the pooling and the dense layer behind
the flattened maps. Batch normalisation lets the seven layers learn within a few epochs; the three do without.
"""

import keras
from keras import KerasTensor

from deepsky.networks.convolutions import MOMENTUM, convolved, hidden_layer, named_maps, require_side, standardised
from deepsky.networks.heads import Answer

FILTERS_1 = (10, 20, 40)
HIDDEN_UNITS_1 = 100
MIN_SIZE_1_PX = 22
FILTERS_2 = (16, 16, 32, 32, 64, 64, 64)
HALVED_AFTER_2 = (2, 4, 6)
HIDDEN_UNITS_2 = 48
MIN_SIZE_2_PX = 52


def build_tail_1(shape: tuple[int, int, int], answer: Answer) -> keras.Model:
    """Build pixels -> answer: three convolutions, each halved, and a dense layer.

    Raises:
        ConfigError: the images are too small.
    """
    require_side("galaxy10_model_1", shape, MIN_SIZE_1_PX)
    pixels = keras.Input(shape, name="pixels")
    maps = standardised(pixels)
    for number, n_filters in enumerate(FILTERS_1, start=1):
        maps = convolved(maps, n_filters, 3, number)
        maps = named_maps(maps) if number == len(FILTERS_1) else maps
        maps = keras.layers.MaxPooling2D(2, name=f"halve_{number}")(maps)
    hidden = hidden_layer(keras.layers.Flatten(name="flat")(maps), HIDDEN_UNITS_1, 1)
    return keras.Model(pixels, answer(hidden), name="galaxy10_model_1")


def build_tail_2(shape: tuple[int, int, int], answer: Answer) -> keras.Model:
    """Build pixels -> answer: seven normalised convolutions, halved four times, and a dense layer.

    Raises:
        ConfigError: the images are too small.
    """
    require_side("galaxy10_model_2", shape, MIN_SIZE_2_PX)
    pixels = keras.Input(shape, name="pixels")
    maps = standardised(pixels)
    for number, n_filters in enumerate(FILTERS_2, start=1):
        maps = _normalised(maps, n_filters, number)
        if number in HALVED_AFTER_2:
            maps = keras.layers.MaxPooling2D(2, name=f"halve_{number}")(maps)
    maps = keras.layers.MaxPooling2D(2, padding="same", name="halve_last")(named_maps(maps))
    hidden = hidden_layer(keras.layers.Flatten(name="flat")(maps), HIDDEN_UNITS_2, 1)
    return keras.Model(pixels, answer(hidden), name="galaxy10_model_2")


def _normalised(maps: KerasTensor, n_filters: int, number: int) -> KerasTensor:
    convolution = keras.layers.Conv2D(
        n_filters, 3, use_bias=False, kernel_initializer="he_normal", name=f"conv_{number}"
    )
    maps = keras.layers.BatchNormalization(momentum=MOMENTUM, name=f"norm_{number}")(convolution(maps))
    return keras.layers.ReLU(name=f"relu_{number}")(maps)
