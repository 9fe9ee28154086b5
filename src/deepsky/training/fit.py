"""Fit what learns, in one phase or several, by batches that never fill the memory."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras.optimizers.schedules import CosineDecay, LearningRateSchedule

from deepsky import progress
from deepsky.errors import ConfigError
from deepsky.interruption import interrupt_here, uninterrupted
from deepsky.networks.precision import on_cpu
from deepsky.training.batches import SplitBatches, TrainBatches
from deepsky.training.examples import Examples
from deepsky.training.input_wait import InputWait
from deepsky.training.recipe import Recipe

HISTORY_COLUMNS = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss")
FRACTION_COLUMNS = ("epoch", "rmse", "loss", "val_rmse", "val_loss")
# Of schedule one_cycle: the share of the steps that rise, and where they start, as a share of learning_rate.
WARM_UP, FIRST_RATE = 0.3, 0.04
PLAIN_LOSS = "plain_loss"  # the metric that is the loss without label smoothing, penalties and weights
MakeBatches = Callable[[Recipe, int], TrainBatches]  # a recipe and its first epoch -> the train rows


@dataclass(frozen=True)
class Phase:
    """Epochs with one optimizer.

    Attributes:
        recipe: how many epochs, and how they learn.
        release: sets what of a tail learns.
    """

    recipe: Recipe
    release: Callable[[keras.Model], None] = lambda tail: None


def fit_phases(
    model: keras.Model,
    tail: keras.Model,
    examples: Examples,
    phases: Sequence[Phase],
    make_batches: MakeBatches,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> pd.DataFrame:
    """Train a model in place: by categorical cross-entropy for classes, by mean squared error for vote fractions.

    Patience and the best weights are a matter of the last phase.

    Args:
        model: inputs -> answer.
        tail: the part of it that learns.
        examples: rows of all splits; ``train`` is fitted, ``val``, if it holds any, is watched.
        phases: one after the other, over the same weights.
        make_batches: gives the train rows.
        callbacks: more of Keras' callbacks; their logs are the history's columns, ``objective``, what was minimised,
            and ``input_wait_share``.

    Returns:
        One row per epoch of all phases with HISTORY_COLUMNS, or FRACTION_COLUMNS; the first epoch is 1. The losses are
        plain ones, without label smoothing, class weights and penalties. The train figures are those of the epoch's
        augmented and blended inputs, against blended targets: with mixup they never come near 1.

    Raises:
        DataError: train, or a val that is needed, holds no rows, or an input is not finite.
        ConfigError: the loss or a weight is no longer finite.
    """
    examples.check(needs_val=phases[-1].recipe.chooses)
    parts: list[pd.DataFrame] = []
    for phase in phases:
        phase.release(tail)
        n_done = sum(map(len, parts))
        stop = [keep_best(phase.recipe)] if phase is phases[-1] and len(examples.rows("val")) else []
        batches = make_batches(phase.recipe, n_done)
        parts.append(fit_batches(model, batches, examples, phase.recipe, [*stop, *callbacks], n_done))
    return pd.concat(parts, ignore_index=True)


def compile_learner(model: keras.Model, recipe: Recipe, optimizer: keras.optimizers.Optimizer) -> None:
    """Give a model its loss, metrics and optimizer."""
    loss: keras.losses.Loss
    if recipe.answer == "softmax":
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
        metrics = [
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.CategoricalCrossentropy(name=PLAIN_LOSS),
        ]
    else:
        loss = keras.losses.MeanSquaredError()
        metrics = [keras.metrics.RootMeanSquaredError(name="rmse"), keras.metrics.MeanSquaredError(name=PLAIN_LOSS)]
    # On a CPU, XLA under TensorFlow trains MobileNet at a tenth of the speed; JAX without it runs step by step.
    jit_compile = "auto" if not on_cpu() else keras.backend.backend() != "tensorflow"
    model.compile(optimizer=optimizer, loss=loss, metrics=metrics, jit_compile=jit_compile)
    optimizer.build(model.trainable_variables)  # TensorFlow traces a first step twice that makes variables


def fit_batches(
    model: keras.Model,
    batches: TrainBatches,
    examples: Examples,
    recipe: Recipe,
    callbacks: Sequence[keras.callbacks.Callback],
    n_done: int = 0,
) -> pd.DataFrame:
    """Fit ``recipe.epochs`` more epochs, in place.

    Args:
        model: inputs -> answer.
        batches: the train rows; they begin with the epoch after ``n_done``.
        examples: where the val rows are.
        recipe: how.
        callbacks: more of Keras' callbacks.
        n_done: epochs before these.

    Returns:
        As ``fit_phases``.
    """
    watched = SplitBatches(examples, "val", recipe.batch_size) if len(examples.rows("val")) else None
    compile_learner(model, recipe, make_optimizer(recipe, n_steps=recipe.epochs * len(batches)))
    own = [Interruptible(), TellProgress(), PlainLosses(), StopOnNonFinite(examples)]
    with uninterrupted():
        history = model.fit(
            batches,
            initial_epoch=n_done,
            epochs=n_done + recipe.epochs,
            shuffle=False,  # TrainBatches does
            validation_data=watched,
            callbacks=[InputWait(batches), *own, *callbacks],
            verbose=0,
        ).history
    columns = HISTORY_COLUMNS if recipe.answer == "softmax" else FRACTION_COLUMNS
    epochs = range(n_done + 1, n_done + 1 + len(history["loss"]))
    return pd.DataFrame({"epoch": epochs, **history}).reindex(columns=list(columns))


def keep_best(recipe: Recipe) -> keras.callbacks.Callback:
    """Return the callback that ends a fit by its patience, and puts the best weights back where they shall stay."""
    patience, restore = recipe.patience or recipe.epochs, recipe.keep == "best"
    mode = "min" if recipe.monitor == "val_loss" else "max"
    return keras.callbacks.EarlyStopping(recipe.monitor, mode=mode, patience=patience, restore_best_weights=restore)


def make_rate(recipe: Recipe, n_steps: int) -> float | LearningRateSchedule:
    """Return the step size of a fit of ``n_steps`` steps.

    Source:
        One cycle: Smith 2018, arXiv:1803.09820, with a cosine for its way down.
    """
    rate = recipe.learning_rate
    if recipe.schedule == "constant":
        return rate
    if recipe.schedule == "cosine":
        return CosineDecay(rate, n_steps)
    n_rising = int(WARM_UP * n_steps)
    return CosineDecay(rate * FIRST_RATE, n_steps - n_rising, warmup_target=rate, warmup_steps=n_rising)


def make_optimizer(recipe: Recipe, n_steps: int) -> keras.optimizers.Optimizer:
    """Return the optimizer of a fit of ``n_steps`` steps."""
    rate = make_rate(recipe, n_steps)
    make: Mapping[str, Callable[[], keras.optimizers.Optimizer]] = {
        "adam": lambda: keras.optimizers.Adam(rate),
        "adamw": lambda: OneRateAdamW(rate, weight_decay=recipe.weight_decay),
        "adamax": lambda: keras.optimizers.Adamax(rate),
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=recipe.momentum),
    }
    return make[recipe.optimizer]()


@keras.saving.register_keras_serializable(package="deepsky")
class OneRateAdamW(keras.optimizers.AdamW):
    """Keras' AdamW, but a schedule is asked for the rate of a step once, and not again for each weight that decays."""

    _rate: Any = None

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Take a step."""
        self._rate = super().learning_rate
        try:
            super().apply(grads, trainable_variables)
        finally:
            self._rate = None  # it belongs to the graph of this step

    @property
    def learning_rate(self) -> Any:
        """The rate of the step that is taken, or of the next one."""
        return super().learning_rate if self._rate is None else self._rate

    @learning_rate.setter
    def learning_rate(self, rate: Any) -> None:
        keras.optimizers.AdamW.learning_rate.fset(self, rate)


class Interruptible(keras.callbacks.Callback):
    """Let Ctrl-C and SIGTERM end a fit that stands in an ``uninterrupted`` block, between two steps."""

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Raise what a signal that came means."""
        interrupt_here()

    def on_test_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Raise what a signal that came means."""
        interrupt_here()


class TellProgress(keras.callbacks.Callback):
    """Tell how many epochs of a fit are done."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Tell; epochs count from 1 there."""
        progress.tell(epoch + 1, self.params["epochs"])


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

    def __init__(self, examples: Examples) -> None:
        super().__init__()
        self._examples = examples

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Look at the losses, whose means keep the NaN of any step, and at the weights: ReLU turns their NaN into 0."""
        assert logs is not None
        for name, value in (("loss", logs["objective"]), ("val_loss", logs.get("val_loss", 0.0))):
            if not math.isfinite(value):
                self._stop(epoch, f"{name} is {value}")
        for weight in self.model.weights:
            if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
                self._stop(epoch, f"{weight.path} is not finite")

    def _stop(self, epoch: int, problem: str) -> None:
        self._examples.check_finite()
        raise ConfigError(f"epoch {epoch + 1}", problem, "lower learning_rate in params.yaml")
