"""What learns on top of fixed inputs, and how the two become one network."""

import math
from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt

from deepsky.networks.dropout import SeededDropout

# Keras' momentum of 0.99 needs hundreds of steps to forget its start; a head has a few hundred in all.
NORM_MOMENTUM = 0.9


def build_head(
    n_features: int,
    n_classes: int,
    hidden_units: Sequence[int],
    activation: str,
    *,
    dropout: float = 0.0,
    batch_norm: bool = False,
    l2: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Build features -> probabilities: dense layers and a softmax.

    Args:
        n_features: length of a feature vector.
        n_classes: number of probabilities.
        hidden_units: width of each hidden layer, in order.
        activation: Keras' name of their activation.
        dropout: share of each hidden layer's outputs left out in training.
        batch_norm: whether each hidden layer is normalised before its activation.
        l2: penalty on every kernel.
        seed: of the initial kernels and of dropout.
    """
    penalty = keras.regularizers.L2(l2) if l2 else None
    features = keras.Input((n_features,), name="pooled")
    hidden = features
    for layer, units in enumerate(hidden_units, start=1):
        hidden = keras.layers.Dense(units, kernel_regularizer=penalty, name=f"hidden_{layer}")(hidden)
        if batch_norm:
            hidden = keras.layers.BatchNormalization(momentum=NORM_MOMENTUM, name=f"norm_{layer}")(hidden)
        hidden = keras.layers.Activation(activation, name=f"{activation}_{layer}")(hidden)
        if dropout:
            hidden = SeededDropout(dropout, layer_seed(seed, layer), name=f"dropout_{layer}")(hidden)
    last = keras.layers.Dense(n_classes, activation="softmax", kernel_regularizer=penalty, name="probabilities")
    head = keras.Model(features, last(hidden), name="head")
    for layer in range(len(hidden_units) + 1):
        kernel = head.get_layer(f"hidden_{layer}" if layer else "probabilities").kernel
        kernel.assign(first_kernel(seed, layer, *kernel.shape))
    return head


def first_kernel(seed: int, layer: int, n_in: int, n_out: int) -> npt.NDArray[np.float32]:
    """Draw the initial kernel of a layer of a head, (n_in, n_out); layer 0 is the last one, the softmax.

    Keras' own initialisers draw other numbers under each backend.

    Source:
        Glorot & Bengio 2010, AISTATS 9, 249: uniform, so that variances stay equal through the layers.
    """
    limit = math.sqrt(6 / (n_in + n_out))
    return np.random.default_rng([seed, layer]).uniform(-limit, limit, (n_in, n_out)).astype(np.float32)


def layer_seed(seed: int, layer: int) -> int:
    """Return a seed of a layer's own dropout."""
    return (seed * 1_000_003 + layer) % 2**31


def probabilities(hidden: keras.KerasTensor, n_classes: int) -> keras.KerasTensor:
    """Return the softmax layer over the classes."""
    return keras.layers.Dense(n_classes, activation="softmax", name="probabilities")(hidden)


def join(front: keras.Model, tail: keras.Model, name: str) -> keras.Model:
    """Make image -> probabilities of a fixed front and a trained tail; both keep their weights."""
    return keras.Model(front.inputs[0], tail(front.outputs[0]), name=name)
