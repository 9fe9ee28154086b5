"""AlexNet with one tower, trained from the images.

Source:
    Krizhevsky 2014, arXiv:1404.5997, in the form of torchvision: 61,100,840 parameters with three channels and 1000
    classes. The maps are averaged to 6 x 6 before the dense layers, so the number does not depend on the input size.
"""

import keras

from deepsky.networks.convolutions import convolved, hidden_layer, named_maps, require_side, standardised
from deepsky.networks.heads import Answer

# Smaller ones leave a single map pixel, which AdaptiveAveragePooling2D cannot read under TensorFlow.
MIN_SIZE_PX = 95
# Number of filters, side of the kernel, stride, padding, in px.
CONVOLUTIONS = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
POOLED_AFTER = (1, 2)
HIDDEN_UNITS = (4096, 4096)
DROPOUT = 0.5


def build_tail(shape: tuple[int, int, int], answer: Answer) -> keras.Model:
    """Build pixels -> answer.

    Args:
        shape: (height, width, channel) of the pixels.
        answer: what the network ends in.

    Raises:
        ConfigError: the images are too small.
    """
    require_side("alexnet", shape, MIN_SIZE_PX)
    pixels = keras.Input(shape, name="pixels")
    maps = standardised(pixels)
    for number, (n_filters, kernel_px, stride, padding_px) in enumerate(CONVOLUTIONS, start=1):
        maps = keras.layers.ZeroPadding2D(padding_px, name=f"pad_{number}")(maps)
        maps = convolved(maps, n_filters, kernel_px, number, stride=stride)
        if number in POOLED_AFTER:
            maps = keras.layers.MaxPooling2D(3, strides=2, name=f"pool_{number}")(maps)
    maps = keras.layers.MaxPooling2D(3, strides=2, name="pool_last")(named_maps(maps))
    maps = keras.layers.AdaptiveAveragePooling2D(6, name="average")(maps)
    hidden = keras.layers.Flatten(name="flat")(maps)
    for number, n_units in enumerate(HIDDEN_UNITS, start=1):
        hidden = keras.layers.Dropout(DROPOUT, name=f"dropout_{number}")(hidden)
        hidden = hidden_layer(hidden, n_units, number)
    return keras.Model(pixels, answer(hidden), name="alexnet")
