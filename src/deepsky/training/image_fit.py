"""Fit a network on packed images, in one phase or several, by batches that never fill the memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import pandas as pd

from deepsky.training.fit import (
    HISTORY_COLUMNS,
    PLAIN_LOSS,
    PlainLosses,
    StopOnNonFinite,
    keep_best,
    make_optimizer,
    on_cpu,
)
from deepsky.training.image_batches import ImageBatches, ImageExamples, InputWait, TrainBatches
from deepsky.training.recipes import RecipeParams

FRACTION_COLUMNS = ("epoch", "rmse", "loss", "val_rmse", "val_loss")


@dataclass(frozen=True)
class Phase:
    """Epochs with one optimizer.

    Attributes:
        params: how many epochs, and how they learn.
        release: sets what of a tail learns.
    """

    params: RecipeParams
    release: Callable[[keras.Model], None] = lambda tail: None


def fit_images(
    model: keras.Model,
    tail: keras.Model,
    examples: ImageExamples,
    phases: Sequence[Phase],
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> pd.DataFrame:
    """Train a model in place: by categorical cross-entropy for classes, by mean squared error for vote fractions.

    Patience and the best weights are a matter of the last phase.

    Args:
        model: image -> answer.
        tail: the part of it that learns.
        examples: rows of all splits; ``train`` is fitted, ``val``, if it holds any, is watched.
        phases: one after the other, over the same weights.
        callbacks: more of Keras' callbacks; their logs are the history's columns, ``objective``, what was minimised,
            and ``input_wait_share``.

    Returns:
        One row per epoch of all phases with HISTORY_COLUMNS, or FRACTION_COLUMNS; the first epoch is 1. The losses are
        plain ones, without label smoothing, class weights and penalties. The train figures are those of the epoch's
        augmented and blended images, against blended targets: with mixup they never come near 1.

    Raises:
        DataError: train, or a val that is needed, holds no rows.
        ConfigError: the loss or a weight is no longer finite.
    """
    examples.check(phases[-1].params)
    parts: list[pd.DataFrame] = []
    for phase in phases:
        phase.release(tail)
        n_done = sum(map(len, parts))
        stop = [keep_best(phase.params)] if phase is phases[-1] and len(examples.rows("val")) else []
        batches = TrainBatches(examples, phase.params, first_epoch=n_done)
        parts.append(fit_batches(model, batches, examples, phase.params, [*stop, *callbacks], n_done))
    return pd.concat(parts, ignore_index=True)


def compile_learner(model: keras.Model, params: RecipeParams, optimizer: keras.optimizers.Optimizer) -> None:
    """Give a model its loss, metrics and optimizer."""
    loss: keras.losses.Loss
    if params.answer == "softmax":
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=params.label_smoothing)
        metrics = ["accuracy", keras.metrics.CategoricalCrossentropy(name=PLAIN_LOSS)]
    else:
        loss = keras.losses.MeanSquaredError()
        metrics = [keras.metrics.RootMeanSquaredError(name="rmse"), keras.metrics.MeanSquaredError(name=PLAIN_LOSS)]
    # On a CPU, XLA under TensorFlow trains MobileNet at a tenth of the speed; JAX without it runs step by step.
    jit_compile = "auto" if not on_cpu() else keras.backend.backend() != "tensorflow"
    model.compile(optimizer=optimizer, loss=loss, metrics=metrics, jit_compile=jit_compile)


def fit_batches(
    model: keras.Model,
    batches: TrainBatches,
    examples: ImageExamples,
    params: RecipeParams,
    callbacks: Sequence[keras.callbacks.Callback],
    n_done: int = 0,
) -> pd.DataFrame:
    """Fit ``params.epochs`` more epochs, in place.

    Args:
        model: images -> answer.
        batches: the train rows; they begin with the epoch after ``n_done``.
        examples: where the val rows are.
        params: how.
        callbacks: more of Keras' callbacks.
        n_done: epochs before these.

    Returns:
        As ``fit_images``.
    """
    watched = ImageBatches(examples, "val", params.batch_size) if len(examples.rows("val")) else None
    compile_learner(model, params, make_optimizer(params, n_steps=params.epochs * len(batches)))
    history = model.fit(
        batches,
        initial_epoch=n_done,
        epochs=n_done + params.epochs,
        shuffle=False,  # TrainBatches does
        validation_data=watched,
        callbacks=[InputWait(batches), PlainLosses(), StopOnNonFinite(), *callbacks],
        verbose=0,
    ).history
    columns = HISTORY_COLUMNS if params.answer == "softmax" else FRACTION_COLUMNS
    epochs = range(n_done + 1, n_done + 1 + len(history["loss"]))
    return pd.DataFrame({"epoch": epochs, **history}).reindex(columns=list(columns))
