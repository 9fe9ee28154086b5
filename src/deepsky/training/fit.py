"""Fit what learns (a head, or a whole small network) on inputs that a fixed front has prepared."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.errors import ConfigError, DataError

SPLITS = ("train", "val", "test")
HISTORY_COLUMNS = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss")
OPTIMIZERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}


@dataclass(frozen=True, kw_only=True)
class FitParams:
    """What every fit needs.

    Attributes:
        seed: of initial weights and of the order of the examples.
        optimizer: a key of OPTIMIZERS.
        learning_rate: its step size.
        batch_size: examples per step.
        epochs: passes over the training examples.
        keep: whose weights stay: the ``last`` epoch's, or the ``best`` one's by val_loss.
    """

    seed: int
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"]
    learning_rate: float
    batch_size: int
    epochs: int
    keep: Literal["last", "best"]

    def __post_init__(self) -> None:
        """Refuse what Keras would fail on, or silently do nothing with."""
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie between 0 and {2**32 - 1}, not {self.seed}")
        for name in ("learning_rate", "batch_size", "epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} is not above 0")


@dataclass(frozen=True, kw_only=True)
class TrainParams(FitParams):
    """Section ``train``: the head on cached features.

    Attributes:
        hidden_units: width of each hidden layer, in order.
        activation: of the hidden layers.
    """

    hidden_units: tuple[int, ...]
    activation: Literal["relu", "elu", "gelu", "selu", "silu", "tanh"]

    def __post_init__(self) -> None:
        """Refuse a layer without units."""
        super().__post_init__()
        if any(units < 1 for units in self.hidden_units):
            raise ValueError(f"hidden_units {list(self.hidden_units)} must all be above 0")


@dataclass(frozen=True, kw_only=True)
class ScratchParams(FitParams):
    """Section ``scratch.NETWORK``: a network trained from the images.

    Attributes:
        input_size_px: side of the square the images are resized to.
    """

    input_size_px: int

    def __post_init__(self) -> None:
        """Refuse a side that three halvings leave nothing of."""
        super().__post_init__()
        if not 8 <= self.input_size_px <= 1024:
            raise ValueError(f"input_size_px must lie between 8 and 1024, not {self.input_size_px}")


@dataclass(frozen=True)
class Examples:
    """What is learned from; several rows may share one input.

    Attributes:
        inputs: prepared inputs, float32, n first.
        image: which input each row shows, (n_rows,), int64.
        label: class index of each row, (n_rows,), int64.
        split: ``train``, ``val`` or ``test`` of each row, (n_rows,).
        n_classes: number of classes.
    """

    inputs: npt.NDArray[np.float32]
    image: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    split: npt.NDArray[np.str_]
    n_classes: int

    def part(self, split: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return inputs and one-hot labels of one split."""
        rows = np.flatnonzero(self.split == split)
        return self.inputs[self.image[rows]], np.eye(self.n_classes, dtype=np.float32)[self.label[rows]]


def fit(
    model: keras.Model, examples: Examples, params: FitParams, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> pd.DataFrame:
    """Train a model in place by categorical cross-entropy.

    Args:
        model: inputs -> probabilities.
        examples: rows of all splits; ``train`` is fitted, ``val`` is watched.
        params: how.
        callbacks: more of Keras' callbacks.

    Returns:
        One row per epoch with HISTORY_COLUMNS; the first epoch is 1.

    Raises:
        DataError: train or val holds no rows, or an input is not finite.
        ConfigError: the loss or a weight is no longer finite.
    """
    _check(examples)
    keras.utils.set_random_seed(params.seed)  # the order of the examples
    model.compile(
        optimizer=OPTIMIZERS[params.optimizer](learning_rate=params.learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # compiling takes longer than ten epochs of a head
    )
    # Patience beyond the last epoch: it never stops early, it only brings the best weights back at the end.
    best = keras.callbacks.EarlyStopping("val_loss", patience=params.epochs, restore_best_weights=True)
    inputs, targets = examples.part("train")
    history = model.fit(
        inputs,
        targets,
        batch_size=params.batch_size,
        epochs=params.epochs,
        validation_data=examples.part("val"),
        callbacks=[StopOnNonFinite(), *([best] if params.keep == "best" else []), *callbacks],
        verbose=0,
    ).history
    return pd.DataFrame({"epoch": range(1, params.epochs + 1), **history})[list(HISTORY_COLUMNS)]


class StopOnNonFinite(keras.callbacks.Callback):
    """Raise when a loss or a weight is not finite; Keras' own TerminateOnNaN ends the fit as if all were well."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Look at the losses, whose means keep the NaN of any step, and at the weights: ReLU turns their NaN into 0."""
        for name in ("loss", "val_loss"):
            value = (logs or {}).get(name, 0.0)
            if not math.isfinite(value):
                raise ConfigError(f"epoch {epoch + 1}", f"{name} is {value}", "lower learning_rate in params.yaml")
        for weight in self.model.weights:
            if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
                raise ConfigError(
                    f"epoch {epoch + 1}", f"{weight.path} is not finite", "lower learning_rate in params.yaml"
                )


def _check(examples: Examples) -> None:
    for split in ("train", "val"):
        if not (examples.split == split).any():
            raise DataError(
                f"split {split}", "holds no rows", "give more objects, or other fractions in params.yaml: split"
            )
    for number, values in enumerate(examples.inputs):
        if not np.isfinite(values).all():
            raise DataError(f"image {number}", "is not finite", "look for NaN pixels in it, then pack it again")
