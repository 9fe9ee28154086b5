"""What learns on top of fixed inputs, and how the two become one network."""

from collections.abc import Sequence

import keras


def build_head(n_features: int, n_classes: int, hidden_units: Sequence[int], activation: str) -> keras.Model:
    """Build features -> probabilities: the reference study's dense layers and a softmax.

    Args:
        n_features: length of a feature vector.
        n_classes: number of probabilities.
        hidden_units: width of each hidden layer, in order.
        activation: Keras' name of their activation.
    """
    features = keras.Input((n_features,), name="pooled")
    hidden = features
    for number, units in enumerate(hidden_units, start=1):
        hidden = keras.layers.Dense(units, activation=activation, name=f"hidden_{number}")(hidden)
    return keras.Model(features, probabilities(hidden, n_classes), name="head")


def probabilities(hidden: keras.KerasTensor, n_classes: int) -> keras.KerasTensor:
    """Return the softmax layer over the classes."""
    return keras.layers.Dense(n_classes, activation="softmax", name="probabilities")(hidden)


def join(front: keras.Model, tail: keras.Model, name: str) -> keras.Model:
    """Make image -> probabilities of a fixed front and a trained tail; both keep their weights."""
    return keras.Model(front.inputs[0], tail(front.outputs[0]), name=name)
