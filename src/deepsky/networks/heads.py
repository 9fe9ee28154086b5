"""What learns on top of fixed inputs, what a network answers, and how the parts become one network."""

import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
import numpy.typing as npt

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.networks.dropout import SeededDropout
from deepsky.networks.tree import TreeFractions

# Hidden units (n, unit) -> the output, a layer named after what it holds: "probabilities" or "fractions".
# An answer counts in float32, also in a network of mixed precision: losses and sums need the digits.
Answer = Callable[[keras.KerasTensor], keras.KerasTensor]
# Shape of the pixels and what the network answers -> what learns. Its last convolutional maps are the output of a layer
# named "maps".
BuildTail = Callable[[tuple[int, int, int], Answer], keras.Model]

# Keras' momentum of 0.99 needs hundreds of steps to forget its start; a head has a few hundred in all.
NORM_MOMENTUM = 0.9


def softmax_answer(n_classes: int) -> Answer:
    """Answer with the probability of each class; every call of an answer makes new layers."""
    return lambda hidden: _dense(n_classes, "softmax", "probabilities")(hidden)


def sigmoid_answer(n_outputs: int) -> Answer:
    """Answer with fractions in 0..1 that know nothing of each other."""
    return lambda hidden: _dense(n_outputs, "sigmoid", "fractions")(hidden)


def tree_answer() -> Answer:
    """Answer with vote fractions in the order of ``decision_tree.COLUMNS`` that obey every sum of the tree."""

    def answer(hidden: keras.KerasTensor) -> keras.KerasTensor:
        logits = _dense(len(COLUMNS), "linear", "logits")(hidden)
        return TreeFractions(dtype="float32", name="fractions")(logits)

    return answer


def _dense(units: int, activation: str, name: str) -> keras.layers.Dense:
    return keras.layers.Dense(units, activation=activation, dtype="float32", name=name)


def build_head(
    n_features: int,
    answer: Answer,
    hidden_units: Sequence[int],
    activation: str,
    *,
    dropout: float = 0.0,
    batch_norm: bool = False,
    l2: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Build features -> answer: dense layers and what the answer adds.

    Args:
        n_features: length of a feature vector.
        answer: what the head ends in.
        hidden_units: width of each hidden layer, in order.
        activation: Keras' name of their activation.
        dropout: share of each hidden layer's outputs left out in training; the features are all seen.
        batch_norm: whether each hidden layer is normalised before its activation.
        l2: penalty on every kernel.
        seed: of the initial kernels and of dropout.
    """
    features = keras.Input((n_features,), name="pooled")
    hidden = features
    for layer, units in enumerate(hidden_units, start=1):
        hidden = keras.layers.Dense(units, name=f"hidden_{layer}")(hidden)
        if batch_norm:
            hidden = keras.layers.BatchNormalization(momentum=NORM_MOMENTUM, name=f"norm_{layer}")(hidden)
        hidden = keras.layers.Activation(activation, name=f"{activation}_{layer}")(hidden)
        if dropout:
            hidden = SeededDropout(dropout, layer_seed(seed, layer), name=f"dropout_{layer}")(hidden)
    head = keras.Model(features, answer(hidden), name="head")
    *inner, last = (layer for layer in head.layers if isinstance(layer, keras.layers.Dense))
    for number, dense in enumerate([last, *inner]):
        dense.kernel.assign(first_kernel(seed, number, *dense.kernel.shape))
        if l2:  # here, because an answer is made before its head; the layer keeps it for its configuration
            dense.kernel_regularizer = dense.kernel.regularizer = keras.regularizers.L2(l2)
    return head


def first_kernel(seed: int, layer: int, n_in: int, n_out: int) -> npt.NDArray[np.float32]:
    """Draw the initial kernel of a layer of a head, (n_in, n_out); layer 0 is the last one, of the answer.

    Keras' own initialisers draw other numbers under each backend.

    Source:
        Glorot & Bengio 2010, AISTATS 9, 249: uniform, so that variances stay equal through the layers.
    """
    limit = math.sqrt(6 / (n_in + n_out))
    return np.random.default_rng([seed, layer]).uniform(-limit, limit, (n_in, n_out)).astype(np.float32)


def layer_seed(seed: int, layer: int) -> int:
    """Return a seed of a layer's own dropout."""
    return (seed * 1_000_003 + layer) % 2**31


def join(front: keras.Model, tail: keras.Model, name: str) -> keras.Model:
    """Make image -> answer of a fixed front and a trained tail; both keep their weights."""
    return keras.Model(front.inputs[0], tail(front.outputs[0]), name=name)
