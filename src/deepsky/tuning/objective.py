"""How good a candidate is: the kept epoch's figures on the val rows, over all folds and repeats."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import Any, Literal

import keras
import numpy as np

from deepsky.training.examples import Examples
from deepsky.training.recipe import Recipe
from deepsky.training.trials import EpochScore, Outcome, Trainer, head_of
from deepsky.tuning.params import TuneParams

# Name of an objective -> figure of an epoch.
FIGURES = {"f1_macro": "val_f1_macro", "accuracy": "val_accuracy", "cross_entropy": "val_loss", "rmse": "val_rmse"}
_TIMED_ROWS, _TIMED_CALLS = 256, 15
OnStep = Callable[[int, int, float], bool]  # candidate, epochs spent over all rounds, value -> go on?
OnEnd = Callable[[int, "Result"], None]


@dataclass(frozen=True)
class Result:
    """What became of a candidate.

    Attributes:
        state: how it ended; FAIL where it diverged.
        values: of the objectives; empty unless it is complete.
        curve: epochs spent over all rounds, and the figures after each.
        reason: why it diverged, empty otherwise.
    """

    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    values: tuple[float, ...]
    curve: tuple[tuple[int, Mapping[str, float]], ...]
    reason: str = ""


@dataclass
class _Progress:
    """A candidate on its way through the rounds."""

    candidate: Recipe
    kept: list[float] = field(default_factory=list)  # of each finished round
    curve: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)
    state: Literal["", "PRUNED", "FAIL"] = ""


class Objective:
    """Judges candidates that are trained together."""

    def __init__(self, params: TuneParams, trainer: Trainer, folds: Sequence[Examples]) -> None:
        """Set up the rounds: every fold with every seed.

        Args:
            params: objectives and repeats.
            trainer: trains.
            folds: the examples, with the split of each fold.
        """
        self._params, self._trainer, self._folds = params, trainer, folds

    def judge(self, candidates: Sequence[Recipe], on_step: OnStep, on_end: OnEnd) -> None:
        """Train candidates in every round.

        Args:
            candidates: of one population.
            on_step: asked after every epoch whether the candidate shall go on.
            on_end: told of each candidate that has come to its end, as soon as that is known.

        Raises:
            DataError: a fold holds no train or val rows, or an input is not finite.
        """
        progress = {number: _Progress(candidate) for number, candidate in enumerate(candidates)}
        rounds = [(fold, repeat) for repeat in range(self._params.repeats) for fold in self._folds]
        for done, (examples, repeat) in enumerate(rounds):
            left = [number for number, one in progress.items() if not one.state]
            if left:
                self._round({number: progress[number] for number in left}, examples, (done, repeat), on_step, on_end)
        for number, one in progress.items():
            if not one.state:
                on_end(number, self._complete(one))

    def _round(
        self,
        progress: Mapping[int, _Progress],
        examples: Examples,
        place: tuple[int, int],
        on_step: OnStep,
        on_end: OnEnd,
    ) -> None:
        done, repeat = place
        numbers, figure = list(progress), FIGURES[self._params.objectives[0]]
        seen: dict[int, list[EpochScore]] = {number: [] for number in numbers}

        def on_epoch(index: int, score: EpochScore) -> bool:
            one, scores = progress[numbers[index]], seen[numbers[index]]
            scores.append(score)
            step = done * self._params.epochs + score.epoch
            one.curve.append((step, score.figures))
            now = Outcome(tuple(scores), "finished").kept(one.candidate).figures[figure]
            if on_step(numbers[index], step, fmean([*one.kept, now])):
                return True
            one.state = "PRUNED"
            on_end(numbers[index], Result("PRUNED", (), tuple(one.curve)))
            return False

        fits = [replace(one.candidate, seed=one.candidate.seed + repeat) for one in progress.values()]
        outcomes = self._trainer.train(fits, examples, on_epoch)
        for number, outcome in zip(numbers, outcomes, strict=True):
            one = progress[number]
            if outcome.ended == "diverged":
                one.state = "FAIL"
                on_end(number, Result("FAIL", (), tuple(one.curve), outcome.reason))
            elif outcome.ended != "pruned":
                one.kept.append(outcome.kept(one.candidate).figures[figure])

    def _complete(self, one: _Progress) -> Result:
        costs = [self._cost(name, one.candidate) for name in self._params.objectives[1:]]
        return Result("COMPLETE", (fmean(one.kept), *costs), tuple(one.curve))

    def _cost(self, name: str, candidate: Recipe) -> float:
        assert candidate.of_head  # the command refuses other networks
        examples = self._folds[0]
        head = head_of(candidate, examples.inputs.shape[1], examples.targets.shape[1])
        return float(head.count_params()) if name == "parameters" else _inference_ms(head, examples.inputs)


def _inference_ms(head: keras.Model, features: Any) -> float:
    """Return the median time of a batch of features through a head; the first call, which compiles, does not count."""
    batch = np.resize(features[:_TIMED_ROWS], (_TIMED_ROWS, features.shape[1]))
    times_s = []
    for _ in range(_TIMED_CALLS):
        started = time.perf_counter()
        head.predict_on_batch(batch)
        times_s.append(time.perf_counter() - started)
    return 1000 * median(times_s[1:])
