"""Fit many candidates of a search on the same examples, each watched epoch by epoch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeVar

import keras

from deepsky.errors import ConfigError
from deepsky.networks.heads import Answer, softmax_answer
from deepsky.training.fit import Examples, FitParams, ScratchParams, fit
from deepsky.training.predict import ROWS_AT_ONCE, predict_batches
from deepsky.training.scores import score_heads

P = TypeVar("P", bound=FitParams, contravariant=True)


@dataclass(frozen=True)
class EpochScore:
    """How a candidate did on the val rows after one epoch.

    Attributes:
        epoch: counts from 1.
        val_loss: plain cross-entropy.
        val_accuracy: share of rows whose most probable class is the true one.
        val_f1_macro: mean F1 over the classes.
    """

    epoch: int
    val_loss: float
    val_accuracy: float
    val_f1_macro: float


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

    def kept(self, keep: Literal["last", "best"]) -> EpochScore:
        """Return the score of the epoch whose weights stay."""
        return self.scores[-1] if keep == "last" else min(self.scores, key=lambda one: one.val_loss)


OnEpoch = Callable[[int, EpochScore], bool]


class Trainer(Protocol[P]):
    """Fits candidates together."""

    def train(self, candidates: Sequence[P], examples: Examples, on_epoch: OnEpoch) -> list[Outcome]:
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


class ScratchTrainer:
    """Fits whole networks, one after the other."""

    def __init__(self, build_tail: Callable[[tuple[int, int, int], Answer], keras.Model]) -> None:
        """Keep what builds an untrained network from the shape of one input and what it is to answer."""
        self._build_tail = build_tail

    def train(self, candidates: Sequence[ScratchParams], examples: Examples, on_epoch: OnEpoch) -> list[Outcome]:
        """Fit each candidate; see ``Trainer``."""
        outcomes = []
        for number, params in enumerate(candidates):
            keras.utils.clear_session()  # or the graphs of hundreds of networks pile up
            keras.utils.set_random_seed(params.seed)
            network = self._build_tail(examples.inputs.shape[1:], softmax_answer(examples.n_classes))
            watch = _Watch(examples, partial(on_epoch, number))
            try:
                fit(network, examples, params, [watch])
            except ConfigError as error:  # not finite any more
                watch.ended, watch.reason = "diverged", f"{error.where}: {error.problem}"
            outcomes.append(Outcome(tuple(watch.scores), watch.ended, watch.reason))
        return outcomes


class _Watch(keras.callbacks.Callback):
    """Score a network on the val rows after each epoch and stop it when the caller says so."""

    def __init__(self, examples: Examples, on_score: Callable[[EpochScore], bool]) -> None:
        super().__init__()
        rows = examples.rows("val")
        self._inputs, self._labels, self._on_score = examples.inputs_of(rows), examples.label[rows], on_score
        self.scores: list[EpochScore] = []
        self.ended: Literal["finished", "patience", "pruned", "diverged"] = "finished"
        self.reason = ""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Stop after what `fit`'s own early stopping, which came first, has decided."""
        probabilities = predict_batches(self.model, self._inputs, ROWS_AT_ONCE)
        loss, accuracy, f1 = (float(values[0]) for values in score_heads(probabilities[None], self._labels))
        self.scores.append(EpochScore(epoch + 1, loss, accuracy, f1))
        if not self._on_score(self.scores[-1]):
            self.ended, self.model.stop_training = "pruned", True
        elif self.model.stop_training and epoch + 1 < self.params["epochs"]:
            self.ended = "patience"
