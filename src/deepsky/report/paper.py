"""What a study printed, set beside what was measured, and its questions with their answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepsky.evaluation.paired import Comparison
from deepsky.intervals import independent_gain_interval
from deepsky.report.results import Result, Results
from deepsky.report.words import chance

_PARTS = {"test": "test", "val": "validation", "train": "training"}
_MEASURES = {"accuracy": "accuracy", "f1_macro": "macro F1", "rmse": "RMSE"}
_SURE = 0.975  # both ends of the 95 % interval of the difference lie on one side


@dataclass(frozen=True)
class Compared:
    """One printed figure.

    Attributes:
        run: of which; figure: what it is, in words.
        printed: by the study; measured: here.
        interval: the 95 % interval of what was measured; None: there is none of this figure.
    """

    run: Result
    figure: str
    printed: float
    measured: float
    interval: tuple[float, float] | None = None

    @property
    def holds_printed(self) -> bool:
        """Whether the printed figure lies in the interval; it says nothing of how sure the study's own figure is."""
        return self.interval is not None and self.interval[0] <= self.printed <= self.interval[1]


@dataclass(frozen=True)
class Answered:
    """A question of the study, what its runs say, and the runs, linked from the page."""

    asks: str
    answer: str
    runs: list[Result]


@dataclass(frozen=True)
class Study:
    """What the page says of a study; ``chosen`` is what it left open."""

    title: str
    chosen: list[str]
    compared: list[Compared]
    answered: list[Answered]


def read_study(paper: Mapping[str, Any], results: Results) -> Study:
    """Set the printed figures beside the measured ones, of runs that are there.

    Args:
        paper: what ``papers.paper.Paper.compared`` gives.
        results: what was evaluated.
    """
    runs = {one.name: one for one in results.runs}
    compared = [
        line
        for name in {**paper["printed"], **paper["printed_f1"]}
        if name in runs
        for line in _compare(runs[name], paper["printed"].get(name, {}), paper["printed_f1"].get(name, {}))
    ]
    answered = [
        Answered(one["asks"], _answer(one["kind"], of, results.compared), of)
        for one in paper["questions"]
        if len(of := [runs[name] for name in one["runs"] if name in runs]) == len(one["runs"])
    ]
    return Study(paper["title"], paper["chosen"], compared, answered)


def _compare(one: Result, figures: Mapping[str, float], f1: Mapping[str, float]) -> list[Compared]:
    lines = [
        Compared(one, _in_words(name), printed, one.summary[name], _interval(one, name))
        for name, printed in figures.items()
        if name in one.summary
    ]
    per_class = one.details["splits"]["test"].get("per_class", {})
    of_classes = {label: printed for label, printed in f1.items() if label in per_class}
    return lines + [Compared(one, f"F1 of {label}", of, per_class[label]["f1"]) for label, of in of_classes.items()]


def _interval(one: Result, figure: str) -> tuple[float, float] | None:
    """Return the interval of a figure of the objects that the run is tested on; of others there is none."""
    split, _, measure = figure.partition("_")
    name = f"test_{measure}" if split == one.summary["tested_on"] else figure
    low, high = (one.summary.get(f"{name}_{end}") for end in ("low", "high"))
    return None if low is None or high is None else (low, high)


def _in_words(figure: str) -> str:
    split, _, measure = figure.partition("_")
    return f"{_PARTS[split]} {_MEASURES[measure]}"


def _answer(kind: str, runs: Sequence[Result], compared: Mapping[str, Comparison]) -> str:
    if kind == "overfits":
        return _overfits(runs[0])
    one, other = runs
    figures = " against ".join(map(_with_interval, runs))
    if one.dataset == other.dataset:
        return _better_on_same(figures, compared[one.dataset], one.name, other.name)
    return _better_on_others(figures, one, other)


def _better_on_same(figures: str, them: Comparison, one: str, other: str) -> str:
    """Tell whether the first of two runs of a dataset is better; both answer the same objects."""
    first, second = them.runs.index(one), them.runs.index(other)
    if not them.is_told(first, second):
        n_differing = them.n_differing[first][second]
        return f"It cannot be told: {figures}; they differ in {n_differing} of {them.n_groups} groups."
    share = them.better[first][second]
    word = "Yes" if share >= _SURE else "No" if share <= 1 - _SURE else "Not told apart"
    return f"{word}: {figures}; better with a probability of {chance(share)}."


def _better_on_others(figures: str, one: Result, other: Result) -> str:
    """Tell whether the first of two runs is better that were tested on different objects."""
    sign = 1 if one.target == "class" else -1  # less is better of RMSE
    low, high = independent_gain_interval(one.score, other.score)
    digits = 3 if one.target == "class" else 4
    value, lower, upper = (f"{number:+.{digits}f}" for number in (one.score[0] - other.score[0], low, high))
    difference = f"the difference is {value} ({lower} to {upper})"
    if one.unreliable or other.unreliable:
        return f"It cannot be told: {figures}; {difference}, as unreliable."
    word = "Not told apart" if low <= 0 <= high else "Yes" if sign * low > 0 else "No"
    return f"{word}: {figures}; {difference}."


def _with_interval(one: Result) -> str:
    value, low, high = one.score
    return f"{value:.3f} ({low:.3f} – {high:.3f}{', ' if one.unreliable else ''}{one.unreliable})"


def _overfits(one: Result) -> str:
    """Tell whether the val loss rose again after its lowest epoch, by a tenth or more."""
    history = one.details["history"]
    losses, epochs = history["val_loss"], history["epoch"]
    lowest = min(range(len(losses)), key=losses.__getitem__)
    rose = losses[-1] > 1.1 * losses[lowest]
    first = f"the validation loss was lowest in epoch {epochs[lowest]}, {losses[lowest]:.3f}"
    return f"{'Yes' if rose else 'No'}: {first}, and {losses[-1]:.3f} in epoch {epochs[-1]}, the last."
