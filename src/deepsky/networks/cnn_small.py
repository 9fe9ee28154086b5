"""A small network trained from scratch, on pictures or on every band of the flux."""

import keras

from deepsky.networks.convolutions import MOMENTUM, named_maps
from deepsky.networks.heads import Answer

FILTERS = (16, 32, 64)


def build_tail(shape: tuple[int, int, int], answer: Answer) -> keras.Model:
    """Build stretched pixels -> answer: three convolution blocks, average and maximum pooling.

    Args:
        shape: (height, width, channel) of the stretched pixels.
        answer: what the network ends in.
    """
    pixels = keras.Input(shape, name="pixels")
    maps = keras.layers.BatchNormalization(momentum=MOMENTUM, name="standardise")(pixels)
    for number, n_filters in enumerate(FILTERS, start=1):
        maps = keras.layers.Conv2D(n_filters, 3, padding="same", use_bias=False, name=f"conv_{number}")(maps)
        maps = keras.layers.BatchNormalization(momentum=MOMENTUM, name=f"norm_{number}")(maps)
        maps = keras.layers.ReLU(name=f"relu_{number}")(maps)
        maps = keras.layers.MaxPooling2D(2, padding="same", name=f"halve_{number}")(maps)
    maps = named_maps(maps)
    # The mean alone drowns an object of a few pixels in its sky; the maximum keeps its colour.
    average = keras.layers.GlobalAveragePooling2D(name="average")(maps)
    brightest = keras.layers.GlobalMaxPooling2D(name="brightest")(maps)
    pooled = keras.layers.Concatenate(name="pooled")([average, brightest])
    return keras.Model(pixels, answer(pooled), name="cnn_small")
