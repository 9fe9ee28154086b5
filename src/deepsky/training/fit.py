"""Fit what learns (a head, or a whole small network) on inputs that a fixed front has prepared."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
from keras.optimizers.schedules import CosineDecay, LearningRateSchedule

from deepsky.errors import ConfigError, DataError

SPLITS = ("train", "val", "test")
HISTORY_COLUMNS = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss")
# Of schedule one_cycle: the share of the steps that rise, and where they start, as a share of learning_rate.
WARM_UP, FIRST_RATE = 0.3, 0.04
PLAIN_LOSS = "plain_loss"  # the metric that is the loss without label smoothing, penalties and weights


@dataclass(frozen=True, kw_only=True)
class FitParams:
    """What every fit needs.

    Attributes:
        seed: of initial weights, of dropout and of the order of the examples.
        label_smoothing: how much of each label is spread over all classes, in training only.
        optimizer: whose update rule.
        learning_rate: its step size, at the first step.
        schedule: ``constant``; ``cosine`` from learning_rate down to 0 at the last step; or ``one_cycle``, which first
            rises to learning_rate, for 30 % of the steps.
        weight_decay: of ``adamw``; the other optimizers have none.
        momentum: of ``sgd``; the other optimizers have their own.
        batch_size: examples per step.
        epochs: passes over the training examples, at most.
        patience: stop after this many epochs without a better val_loss; None: never.
        keep: whose weights stay: the ``last`` epoch's, or the ``best`` one's by val_loss.
    """

    seed: int
    label_smoothing: float
    optimizer: Literal["adam", "adamw", "adamax", "sgd"]
    learning_rate: float
    schedule: Literal["constant", "cosine", "one_cycle"]
    weight_decay: float
    momentum: float
    batch_size: int
    epochs: int
    patience: int | None
    keep: Literal["last", "best"]

    def __post_init__(self) -> None:
        """Refuse what Keras would fail on, or silently do nothing with."""
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie between 0 and {2**32 - 1}, not {self.seed}")
        for name in ("learning_rate", "batch_size", "epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} is not above 0")
        for name in ("label_smoothing", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} does not lie in [0, 1)")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay {self.weight_decay} is not a number from 0 upwards")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience {self.patience} is below 1; null means never")


@dataclass(frozen=True, kw_only=True)
class TrainParams(FitParams):
    """Section ``train``: the head on cached features.

    Attributes:
        hidden_units: width of each hidden layer, in order; none: a softmax regression.
        activation: of the hidden layers.
        dropout: share of each hidden layer's outputs left out in training; without such layers it does nothing.
        batch_norm: whether each hidden layer is normalised before its activation.
        l2: this times the sum of the squared kernels is added to the loss.
    """

    hidden_units: tuple[int, ...]
    activation: Literal["relu", "elu", "gelu", "selu", "silu", "tanh"]
    dropout: float
    batch_norm: bool
    l2: float

    def __post_init__(self) -> None:
        """Refuse a layer without units or without outputs."""
        super().__post_init__()
        if any(units < 1 for units in self.hidden_units):
            raise ValueError(f"hidden_units {list(self.hidden_units)} must all be above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} does not lie in [0, 1)")
        if not 0 <= self.l2 < math.inf:
            raise ValueError(f"l2 {self.l2} is not a number from 0 upwards")


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

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Return the rows of one split."""
        return np.flatnonzero(self.split == split)

    def inputs_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return a copy of the inputs of some rows."""
        return np.asarray(self.inputs[self.image[rows]])

    def targets_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return one-hot labels of some rows."""
        return np.eye(self.n_classes, dtype=np.float32)[self.label[rows]]

    def check(self) -> None:
        """Refuse what nothing can be learned from.

        Raises:
            DataError: train or val holds no rows, or an input is not finite.
        """
        for split in ("train", "val"):
            if not len(self.rows(split)):
                raise DataError(
                    f"split {split}", "holds no rows", "give more objects, or other fractions in params.yaml: split"
                )
        for number, values in enumerate(self.inputs):
            if not np.isfinite(values).all():
                raise DataError(f"image {number}", "is not finite", "look for NaN pixels in it, then pack it again")


class Batches(keras.utils.PyDataset):
    """The training rows in steps: an order of its own for each epoch, the same for every network and backend."""

    def __init__(self, examples: Examples, batch_size: int, seed: int, first_epoch: int = 0) -> None:
        """Start with the order of epoch ``first_epoch``, which counts from 0."""
        super().__init__()
        self._examples, self._rows = examples, examples.rows("train")
        self.batch_size, self._seed, self._epoch = batch_size, seed, first_epoch - 1
        self.on_epoch_end()

    def __len__(self) -> int:
        """Return the steps of an epoch."""
        return math.ceil(len(self._rows) / self.batch_size)

    def __getitem__(self, step: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return inputs and one-hot labels of one step."""
        rows = self._order[step * self.batch_size : (step + 1) * self.batch_size]
        return self._examples.inputs_of(rows), self._examples.targets_of(rows)

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's order."""
        self._epoch += 1
        self._order = np.random.default_rng([self._seed, self._epoch]).permutation(self._rows)


def fit(
    model: keras.Model, examples: Examples, params: FitParams, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> pd.DataFrame:
    """Train a model in place by categorical cross-entropy.

    Args:
        model: inputs -> probabilities.
        examples: rows of all splits; ``train`` is fitted, ``val`` is watched.
        params: how.
        callbacks: more of Keras' callbacks; their logs are HISTORY_COLUMNS and ``objective``, what was minimised.

    Returns:
        One row per epoch with HISTORY_COLUMNS; the first epoch is 1. The losses are plain cross-entropy, without
        label smoothing and penalties, so that all fits compare.

    Raises:
        DataError: train or val holds no rows, or an input is not finite.
        ConfigError: the loss or a weight is no longer finite.
    """
    examples.check()
    batches = Batches(examples, params.batch_size, params.seed)
    model.compile(
        optimizer=make_optimizer(params, n_steps=params.epochs * len(batches)),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=params.label_smoothing),
        metrics=["accuracy", keras.metrics.CategoricalCrossentropy(name=PLAIN_LOSS)],
        # XLA under TensorFlow takes longer to compile than ten epochs of a head; JAX without it runs step by step.
        jit_compile=keras.backend.backend() != "tensorflow",
    )
    watched = examples.rows("val")
    history = model.fit(
        batches,
        epochs=params.epochs,
        shuffle=False,  # Batches does
        validation_data=(examples.inputs_of(watched), examples.targets_of(watched)),
        callbacks=[PlainLosses(), StopOnNonFinite(), keep_best(params), *callbacks],
        verbose=0,
    ).history
    return pd.DataFrame({"epoch": range(1, len(history["loss"]) + 1), **history})[list(HISTORY_COLUMNS)]


def keep_best(params: FitParams) -> keras.callbacks.Callback:
    """Return the callback that ends a fit by its patience, and puts the best weights back where they shall stay."""
    patience, restore = params.patience or params.epochs, params.keep == "best"
    return keras.callbacks.EarlyStopping("val_loss", mode="min", patience=patience, restore_best_weights=restore)


def make_rate(params: FitParams, n_steps: int) -> float | LearningRateSchedule:
    """Return the step size of a fit of ``n_steps`` steps.

    Source:
        One cycle: Smith 2018, arXiv:1803.09820, with a cosine for its way down.
    """
    rate = params.learning_rate
    if params.schedule == "constant":
        return rate
    if params.schedule == "cosine":
        return CosineDecay(rate, n_steps)
    n_rising = int(WARM_UP * n_steps)
    return CosineDecay(rate * FIRST_RATE, n_steps - n_rising, warmup_target=rate, warmup_steps=n_rising)


def make_optimizer(params: FitParams, n_steps: int) -> keras.optimizers.Optimizer:
    """Return the optimizer of a fit of ``n_steps`` steps."""
    rate = make_rate(params, n_steps)
    make: Mapping[str, Callable[[], keras.optimizers.Optimizer]] = {
        "adam": lambda: keras.optimizers.Adam(rate),
        "adamw": lambda: keras.optimizers.AdamW(rate, weight_decay=params.weight_decay),
        "adamax": lambda: keras.optimizers.Adamax(rate),
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=params.momentum),
    }
    return make[params.optimizer]()


def on_cpu() -> bool:
    """Tell whether Keras has no accelerator to compute on."""
    return str(keras.distribution.list_devices()[0]).startswith("cpu")


class PlainLosses(keras.callbacks.Callback):
    """Let ``loss`` and ``val_loss`` mean the metric PLAIN_LOSS alone for every callback after this one."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Rename; Keras hands the same dict to all callbacks."""
        assert logs is not None
        logs["objective"] = logs.pop("loss")
        logs["loss"] = logs.pop(PLAIN_LOSS)
        if f"val_{PLAIN_LOSS}" in logs:
            logs["val_loss"] = logs.pop(f"val_{PLAIN_LOSS}")


class StopOnNonFinite(keras.callbacks.Callback):
    """Raise when a loss or a weight is not finite; Keras' own TerminateOnNaN ends the fit as if all were well."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Look at the losses, whose means keep the NaN of any step, and at the weights: ReLU turns their NaN into 0."""
        assert logs is not None
        for name, value in (("loss", logs["objective"]), ("val_loss", logs.get("val_loss", 0.0))):
            if not math.isfinite(value):
                raise ConfigError(f"epoch {epoch + 1}", f"{name} is {value}", "lower learning_rate in params.yaml")
        for weight in self.model.weights:
            if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
                raise ConfigError(
                    f"epoch {epoch + 1}", f"{weight.path} is not finite", "lower learning_rate in params.yaml"
                )
