"""Fit many candidates of a search on the same examples, each watched epoch by epoch."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal, Protocol

import keras

from deepsky.errors import ConfigError
from deepsky.networks.heads import Answer, sigmoid_answer, softmax_answer, tree_answer
from deepsky.training import fit
from deepsky.training.batches import TrainBatches
from deepsky.training.build import head_of as built_head
from deepsky.training.examples import Examples
from deepsky.training.job import Job
from deepsky.training.predict import ROWS_AT_ONCE, predict_batches
from deepsky.training.recipe import Recipe
from deepsky.training.scores import score_heads

MakeBatches = Callable[[Examples, Recipe, int], TrainBatches]  # examples, a recipe and its first epoch -> train rows


@dataclass(frozen=True)
class EpochScore:
    """How a candidate did on the val rows after one epoch.

    Attributes:
        epoch: counts from 1; the epochs in which only the head of a pretrained network learns do not count.
        val_loss: without label smoothing and penalties: cross-entropy, or mean squared error of vote fractions.
        val_accuracy: of classes: share of rows whose most probable class is the true one.
        val_f1_macro: of classes: mean F1 over them.
        val_rmse: of vote fractions: root of the mean squared error.
    """

    epoch: int
    val_loss: float
    val_accuracy: float | None = None
    val_f1_macro: float | None = None
    val_rmse: float | None = None

    @property
    def figures(self) -> dict[str, float]:
        """Return what there is, by name."""
        return {name: value for name, value in asdict(self).items() if name != "epoch" and value is not None}


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate.

    Attributes:
        scores: of every epoch that left it finite.
        ended: ``finished`` all epochs, stopped by its ``patience``, ``pruned`` by the caller, or ``diverged``.
        reason: why it diverged, empty otherwise.
    """

    scores: tuple[EpochScore, ...]
    ended: Literal["finished", "patience", "pruned", "diverged"]
    reason: str = ""

    def kept(self, recipe: Recipe) -> EpochScore:
        """Return the score of the epoch whose weights stay."""
        return self.scores[-1] if recipe.keep == "last" else best_epoch(self.scores, recipe)


OnEpoch = Callable[[int, EpochScore], bool]


def best_epoch(scores: Sequence[EpochScore], recipe: Recipe) -> EpochScore:
    """Return the first of the epochs that are best by what the recipe monitors, as Keras' EarlyStopping does."""
    if recipe.monitor == "val_loss":
        return min(scores, key=lambda one: one.val_loss)
    return max(scores, key=lambda one: one.val_accuracy or 0.0)


class Trainer(Protocol):
    """Fits candidates."""

    def train(self, candidates: Sequence[Recipe], examples: Examples, on_epoch: OnEpoch) -> list[Outcome]:
        """Fit each candidate on the train rows.

        Args:
            candidates: how each is built and fitted; the outcome of each does not depend on the others.
            examples: ``train`` is fitted, ``val`` scored after every epoch, ``test`` never touched.
            on_epoch: called with the candidate's index and its score; False ends it there.

        Returns:
            One outcome per candidate.

        Raises:
            DataError: train or val holds no rows, or an input is not finite; only where that costs no pass over the
                inputs, so call ``Examples.check`` once before.
        """


@dataclass(frozen=True)
class Fit:
    """What is fitted of one candidate; see ``fit.fit_phases``."""

    model: keras.Model
    tail: keras.Model
    phases: Sequence[fit.Phase]
    make_batches: fit.MakeBatches


def fit_of_job(job: Job) -> Fit:
    """Return what a job fits."""
    return Fit(*job.prepared(), job.phases, job.batches)


def fit_of_head(recipe: Recipe, examples: Examples, make_batches: MakeBatches) -> Fit:
    """Return the fit of a head by itself, for which no pretrained network need be built.

    Args:
        recipe: of which only a head learns.
        examples: its features.
        make_batches: gives the train rows.
    """
    head = head_of(recipe, examples.inputs.shape[1], examples.targets.shape[1])
    return Fit(head, head, (fit.Phase(recipe),), partial(make_batches, examples))


def head_of(recipe: Recipe, n_features: int, n_outputs: int) -> keras.Model:
    """Build the head of a recipe: features -> answer."""
    named: Mapping[str, Answer] = {
        "softmax": softmax_answer(n_outputs),
        "sigmoid": sigmoid_answer(n_outputs),
        "tree": tree_answer(),
    }
    return built_head(recipe, n_features, named[recipe.answer])


class SerialTrainer:
    """Fits candidates one after the other, each as a run of its recipe is fitted."""

    def __init__(self, prepare: Callable[[Recipe, Examples], Fit]) -> None:
        """Keep what prepares the fit of a candidate."""
        self._prepare = prepare

    def train(self, candidates: Sequence[Recipe], examples: Examples, on_epoch: OnEpoch) -> list[Outcome]:
        """Fit each candidate; see ``Trainer``.

        Raises:
            ConfigError: a candidate does not fit the dataset or the network.
        """
        return [self._fit(one, examples, partial(on_epoch, number)) for number, one in enumerate(candidates)]

    def _fit(self, recipe: Recipe, examples: Examples, on_score: Callable[[EpochScore], bool]) -> Outcome:
        keras.utils.clear_session()  # or the graphs of hundreds of networks pile up
        made = self._prepare(recipe, examples)
        watch = _Watch(examples, recipe, sum(phase.recipe.epochs for phase in made.phases[:-1]), on_score)
        try:
            fit.fit_phases(made.model, made.tail, examples, made.phases, made.make_batches, [watch])
        except ConfigError as error:  # not finite any more
            watch.ended, watch.reason = "diverged", f"{error.where}: {error.problem}"
        return Outcome(tuple(watch.scores), watch.ended, watch.reason)


class _Watch(keras.callbacks.Callback):
    """Score a network on the val rows after each epoch of its last phase and stop it when the caller says so."""

    def __init__(
        self, examples: Examples, recipe: Recipe, n_before: int, on_score: Callable[[EpochScore], bool]
    ) -> None:
        super().__init__()
        self._examples, self._recipe, self._n_before, self._on_score = examples, recipe, n_before, on_score
        self.scores: list[EpochScore] = []
        self.ended: Literal["finished", "patience", "pruned", "diverged"] = "finished"
        self.reason = ""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Stop after what the early stopping of the fit, which came first, has decided."""
        number = epoch + 1 - self._n_before
        if number < 1:
            return
        assert logs is not None
        self.scores.append(
            self._of_classes(number) if self._recipe.answer == "softmax" else _of_fractions(number, logs)
        )
        if not self._on_score(self.scores[-1]):
            self.ended, self.model.stop_training = "pruned", True
        elif self.model.stop_training and number < self._recipe.epochs:
            self.ended = "patience"

    def _of_classes(self, number: int) -> EpochScore:
        rows = self._examples.rows("val")
        images = self._examples.image[rows]
        n_at_once = ROWS_AT_ONCE if self._examples.inputs.ndim == 2 else self._recipe.batch_size
        probabilities = predict_batches(self.model, self._examples.inputs, n_at_once, chosen=images)
        scores = score_heads(probabilities[None], self._examples.labels[rows])
        return EpochScore(number, *(float(values[0]) for values in scores))


def _of_fractions(number: int, logs: Mapping[str, float]) -> EpochScore:
    return EpochScore(number, logs["val_loss"], val_rmse=math.sqrt(logs["val_loss"]))
