"""What the page says of a dataset's audit: one ladder, from the largest class to the best network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from deepsky.evaluation.audit import Audit
from deepsky.report.results import Result

Kind = Literal["baseline", "shortcut", "photometry", "network"]


@dataclass(frozen=True)
class Rung:
    """One line of the table.

    Attributes:
        name: what answers.
        kind: what that is.
        accuracy: on the objects that the networks are scored on.
        low: lower end of its 95 % interval; None where it has none.
        high: upper end of it.
    """

    name: str
    kind: Kind
    accuracy: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Ladder:
    """What the page shows of one dataset's audit.

    Attributes:
        rungs: the best network, photometry, shortcuts and the largest class, the most accurate first.
        near: the shortcuts that are better than the largest class by their whole interval, and alone reach that of the
            best network; in the same order.
    """

    rungs: list[Rung]
    near: list[str]


def ladder(audit: Audit, runs: Sequence[Result]) -> Ladder:
    """Set what an audit found beside the networks.

    Args:
        audit: of a dataset.
        runs: all of the dataset's, at least one.
    """
    best = max(runs, key=lambda one: one.score[0])
    always = Rung(f"always {best.details['majority_class']}", "baseline", best.summary["test_baseline"])
    rungs = [Rung(best.name, "network", *best.score), always]
    rungs += [_rung(name, "shortcut", one) for name, one in audit.shortcuts.items()]
    rungs += [_rung(f"light in circles, {name}", "photometry", one) for name, one in audit.photometry.items()]
    rungs.sort(key=lambda rung: -rung.accuracy)
    found = {name for name, one in audit.shortcuts.items() if one["accuracy_low"] > always.accuracy}
    return Ladder(rungs, [rung.name for rung in rungs if rung.name in found and rung.accuracy >= best.score[1]])


def _rung(name: str, kind: Kind, figures: Mapping[str, float]) -> Rung:
    return Rung(name, kind, *(figures[key] for key in ("accuracy", "accuracy_low", "accuracy_high")))
