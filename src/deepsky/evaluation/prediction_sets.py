"""Prediction sets: as many classes of each object as it takes to hold the true one in nine of ten cases.

Source:
    Split conformal prediction with the score 1 - p (LAC): Sadinle, Lei & Wasserman 2019, JASA 114, 223. The quantile:
    Angelopoulos & Bates 2023, Foundations and Trends in Machine Learning 16, 494.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from deepsky.intervals import Resampling, share_interval

LEVEL = 0.9
_ROUNDED = 1e-9
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Coverage:
    """How a class' prediction sets, or all of them, turned out.

    Attributes:
        n: objects.
        n_groups: groups of the split among them, see ``intervals.unreliable``.
        coverage: share of them whose set holds the true class.
        coverage_low: lower end of its 95 % interval, see ``intervals``.
        coverage_high: upper end of it.
        size: mean number of classes in a set; a set may be empty.
    """

    n: int
    n_groups: int
    coverage: float
    coverage_low: float
    coverage_high: float
    size: float


def threshold(probabilities: Array, truth: npt.NDArray[np.int64]) -> float:
    """Return the probability from which on a class belongs to a set.

    Args:
        probabilities: (n, n classes), of objects that the network did not learn from.
        truth: class index of each object, (n,).

    Returns:
        0 where there are too few objects to leave any class out.
    """
    n, of_truth = len(truth), probabilities[np.arange(len(truth)), truth]
    rank = ceil((n + 1) * LEVEL)
    return float(np.sort(of_truth)[n - rank]) if rank <= n else 0.0


def prediction_sets(probabilities: Array, least: float) -> npt.NDArray[np.bool_]:
    """Return which classes are in the set of each object, (n, n classes)."""
    return probabilities >= least - _ROUNDED


def coverage(
    sets: npt.NDArray[np.bool_], truth: npt.NDArray[np.int64], groups: npt.NDArray[np.str_], of: int | None = None
) -> Coverage | None:
    """Return how the sets turned out.

    Args:
        sets: (n, n classes).
        truth: class index of each object, (n,).
        groups: group of each object in the split, (n,).
        of: of the objects of this class; None: of all.

    Returns:
        None: there is no such object.
    """
    rows = np.arange(len(truth)) if of is None else np.flatnonzero(truth == of)
    if not len(rows):
        return None
    is_held = sets[rows, truth[rows]]
    drawn = Resampling(groups[rows])
    low, high = share_interval(is_held, drawn)
    size = float(sets[rows].sum(axis=1).mean())
    return Coverage(drawn.n, drawn.n_groups, float(is_held.mean()), low, high, size)
