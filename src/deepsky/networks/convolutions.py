"""What the networks trained from the images have in common."""

import keras
from keras import KerasTensor

from deepsky.errors import ConfigError

# Keras' momentum of 0.99 wants thousands of steps; ten epochs on hundreds of images are about a hundred.
MOMENTUM = 0.9


def require_side(network: str, shape: tuple[int, int, int], min_size_px: int) -> None:
    """Refuse pixels of which unpadded convolutions would leave nothing.

    Raises:
        ConfigError: a side is shorter than ``min_size_px``.
    """
    if min(shape[:2]) < min_size_px:
        problem = f"cannot see images of {shape[0]} x {shape[1]} px"
        raise ConfigError(f"network {network}", problem, f"set its input_size_px to {min_size_px} or more")


def standardised(pixels: KerasTensor) -> KerasTensor:
    """Bring each channel to mean 0 and variance 1: pixels come in 0..1, or as stretched flux.

    Nothing in it trains, so that a network keeps the number of parameters that was published.
    """
    norm = keras.layers.BatchNormalization(momentum=MOMENTUM, center=False, scale=False, name="standardise")
    return norm(pixels)


def convolved(maps: KerasTensor, n_filters: int, kernel_px: int, number: int, *, stride: int = 1) -> KerasTensor:
    """Convolve without padding, with bias and ReLU."""
    convolution = keras.layers.Conv2D(n_filters, kernel_px, strides=stride, activation="relu", name=f"conv_{number}")
    return convolution(maps)


def hidden_layer(inputs: KerasTensor, n_units: int, number: int) -> KerasTensor:
    """Return a dense layer with ReLU."""
    return keras.layers.Dense(n_units, activation="relu", name=f"hidden_{number}")(inputs)


def named_maps(maps: KerasTensor) -> KerasTensor:
    """Name the last convolutional maps, for whoever wants to see what they look at."""
    return keras.layers.Activation("linear", name="maps")(maps)
