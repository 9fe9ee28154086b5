"""What a study printed, set beside what was measured, and its questions with their answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepsky.report.results import Result

_PARTS = {"test": "test", "val": "validation", "train": "training"}
_MEASURES = {"accuracy": "accuracy", "f1_macro": "macro F1", "rmse": "RMSE"}


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


def read_study(paper: Mapping[str, Any], results: Sequence[Result]) -> Study:
    """Set the printed figures beside the measured ones, of runs that are there.

    Args:
        paper: what ``papers.paper.Paper.compared`` gives.
        results: the evaluated runs.
    """
    runs = {one.name: one for one in results}
    compared = [
        line
        for name in {**paper["printed"], **paper["printed_f1"]}
        if name in runs
        for line in _compare(runs[name], paper["printed"].get(name, {}), paper["printed_f1"].get(name, {}))
    ]
    answered = [
        Answered(one["asks"], _answer(one["kind"], of), of)
        for one in paper["questions"]
        if len(of := [runs[name] for name in one["runs"] if name in runs]) == len(one["runs"])
    ]
    return Study(paper["title"], paper["chosen"], compared, answered)


def _compare(one: Result, figures: Mapping[str, float], f1: Mapping[str, float]) -> list[Compared]:
    with_interval = {f"test_{one.measure}", f"{one.summary['tested_on']}_{one.measure}"}
    lines = [
        Compared(one, _in_words(name), printed, one.summary[name], one.score[1:] if name in with_interval else None)
        for name, printed in figures.items()
        if name in one.summary
    ]
    per_class = one.details["splits"]["test"].get("per_class", {})
    of_classes = {label: printed for label, printed in f1.items() if label in per_class}
    return lines + [Compared(one, f"F1 of {label}", of, per_class[label]["f1"]) for label, of in of_classes.items()]


def _in_words(figure: str) -> str:
    split, _, measure = figure.partition("_")
    return f"{_PARTS[split]} {_MEASURES[measure]}"


def _answer(kind: str, runs: Sequence[Result]) -> str:
    return _overfits(runs[0]) if kind == "overfits" else _better(*runs)


def _better(one: Result, other: Result) -> str:
    """Tell whether the first run is better: only where the intervals lie apart."""
    sign = 1 if one.target == "class" else -1  # less is better of RMSE
    figures = " against ".join(map(_with_interval, (one, other)))
    if max(one.score[1], other.score[1]) <= min(one.score[2], other.score[2]):
        return f"Not told apart: {figures}; the intervals overlap."
    return f"{'Yes' if sign * (one.score[0] - other.score[0]) > 0 else 'No'}: {figures}."


def _with_interval(one: Result) -> str:
    value, low, high = one.score
    return f"{value:.3f} ({low:.3f} – {high:.3f}{'' if one.is_reliable else ', unreliable'})"


def _overfits(one: Result) -> str:
    """Tell whether the val loss rose again after its lowest epoch, by a tenth or more."""
    history = one.details["history"]
    losses, epochs = history["val_loss"], history["epoch"]
    lowest = min(range(len(losses)), key=losses.__getitem__)
    rose = losses[-1] > 1.1 * losses[lowest]
    first = f"the validation loss was lowest in epoch {epochs[lowest]}, {losses[lowest]:.3f}"
    return f"{'Yes' if rose else 'No'}: {first}, and {losses[-1]:.3f} in epoch {epochs[-1]}, the last."
