"""How sure a score is: intervals that resample the split's groups, because the objects of one group are no strangers.

Objects of one field share its seeing, its background and its calibration, and the rows of one picture share that: a
network that is wrong about one of them is likelier to be wrong about the others. Intervals that take every object for
a draw of its own are then too narrow. The split knows what belongs together, so whole groups are resampled.
"""

from functools import lru_cache
from math import hypot, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

N_REPLICATES = 2000
FEW_GROUPS = 10  # fewer tell next to nothing of how groups differ
_SEED = 20180227
_MOST_BLOCKS = 500
_NORMAL_QUANTILE_95 = 1.959963984540054
Interval = tuple[float, float]
Array = npt.NDArray[np.float64]


class Resampling:
    """The cluster bootstrap of some rows: whole groups are drawn with replacement, N_REPLICATES times.

    The same groups give the same draws, so that the replicates of several runs on the same rows are paired. More than
    500 groups are drawn as 500 blocks of groups, put together at random: blocks differ by chance as groups do, and the
    time does not grow.

    Attributes:
        n: rows.
        n_groups: groups among them.

    Source:
        Davison & Hinkley 1997, Bootstrap Methods and their Application, section 3.8. Blocks: Wolter 2007, Introduction
        to Variance Estimation, chapter 2 (random groups).
    """

    def __init__(self, groups: npt.ArrayLike) -> None:
        """Take the group of each row, (n,).

        Raises:
            ValueError: there are no rows.
        """
        self._group, names = pd.factorize(np.asarray(groups), sort=True)
        self.n, self.n_groups = len(self._group), len(names)
        if not self.n:
            raise ValueError("no rows to resample")
        self._n_blocks = min(self.n_groups, _MOST_BLOCKS)
        self._block = (np.random.default_rng(_SEED).permutation(self.n_groups) % self._n_blocks)[self._group]

    @property
    def inflation(self) -> float:
        """Return by how much the variance of replicates falls short of that of a mean."""
        return self._n_blocks / max(self._n_blocks - 1, 1)

    def counts(self, code: npt.NDArray[np.int64], n_codes: int, values: npt.ArrayLike | None = None) -> Array:
        """Return how often each code occurs in every replicate, (N_REPLICATES, n_codes).

        Args:
            code: of each row, (n,), 0 to n_codes - 1.
            n_codes: how many there are.
            values: what each row counts, (n,); None: one.
        """
        weights = None if values is None else np.asarray(values, np.float64)
        sums = np.bincount(self._block * n_codes + code, weights, self._n_blocks * n_codes)
        return _draws(self._n_blocks) @ sums.reshape(self._n_blocks, n_codes).astype(np.float64)

    def means(self, values: npt.ArrayLike) -> Array:
        """Return the mean of the rows' values in every replicate, (N_REPLICATES,).

        Args:
            values: (n,).
        """
        return self.sums(values) / self.sums(np.ones(self.n))

    def sums(self, values: npt.ArrayLike) -> Array:
        """Return the sum of the rows' values in every replicate, (N_REPLICATES,).

        Args:
            values: (n,).
        """
        return np.asarray(self.counts(np.zeros(self.n, np.int64), 1, values)[:, 0])

    def n_groups_with(self, is_so: npt.NDArray[np.bool_]) -> int:
        """Return in how many groups something is so of a row at least."""
        return len(np.unique(self._group[is_so]))


@lru_cache(maxsize=4)
def _draws(n_blocks: int) -> Array:
    """Return how often each replicate draws each block, (N_REPLICATES, n_blocks)."""
    equally = np.full(n_blocks, 1 / n_blocks)
    return np.random.default_rng(_SEED).multinomial(n_blocks, equally, N_REPLICATES).astype(np.float64)


def unreliable(n_groups: float) -> str:
    """Return what is said, wherever an interval is shown, of one that rests on so few groups; nothing of enough."""
    return "" if n_groups >= FEW_GROUPS else f"unreliable, from {n_groups:.0f} group{'s' if n_groups != 1 else ''}"


def share_interval(is_so: npt.NDArray[np.bool_], rows: Resampling) -> Interval:
    """Return the 95 % interval of a share of rows, as the accuracy is one.

    The percentile bootstrap over groups, where at least FEW_GROUPS groups hold such rows and as many hold others. Where
    they are rarer, the bootstrap's interval is too narrow, and of a share of 0 or 1 it has no width: there it is
    Wilson's interval on the effective number of rows, which is what a simple random sample of the bootstrap's variance
    would hold; of a variance of 0 that is the number of groups, as if all rows of a group were alike.

    Args:
        is_so: of each row, (n,).
        rows: how they are resampled.

    Source:
        Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13. Effective number: Korn & Graubard 1998,
        Survey Methodology 24, 193; with Wilson's interval: Franco et al. 2019, J. Survey Stat. Methodol. 7, 334.
    """
    return _unit_interval(float(is_so.mean()), rows.means(is_so), is_so, rows)


def f1_interval(
    truth: npt.NDArray[np.int64], answer: npt.NDArray[np.int64], n_classes: int, rows: Resampling
) -> Interval:
    """Return the 95 % interval of the macro F1, by the rule of ``share_interval`` for the share of right answers.

    It holds the truth about as often as that of the accuracy: see benchmarks/intervals.py.

    Args:
        truth: class of each row, (n,).
        answer: what each is called, (n,).
        n_classes: how many classes there are; in each replicate those count that occur as class or answer.
        rows: how they are resampled.
    """
    is_right = truth == answer
    hits = rows.counts(truth, n_classes, is_right)
    both = rows.counts(truth, n_classes) + rows.counts(answer, n_classes)
    counted = (np.bincount(codes, minlength=n_classes) for codes in (truth[is_right], np.append(truth, answer)))
    return _unit_interval(float(_macro_f1(*counted)), _macro_f1(hits, both), is_right, rows)


def rmse_interval(square_errors: Array, rows: Resampling) -> Interval:
    """Return the 95 % interval of an RMSE of fractions: the percentile bootstrap over groups.

    Args:
        square_errors: mean squared error of each row, (n,), 0 to 1; a single group tells nothing: 0 to 1.
        rows: how they are resampled.
    """
    if rows.n_groups < 2:
        return 0.0, 1.0
    return _percentiles(np.sqrt(rows.means(square_errors)))


def share_gain_interval(
    is_so: npt.NDArray[np.bool_], was_so: npt.NDArray[np.bool_], rows: Resampling
) -> tuple[float, float, float]:
    """Return by how much a share of the same rows is greater than before, with its 95 % interval.

    The percentile bootstrap over groups; where the rows that differ lie in fewer than FEW_GROUPS groups, Agresti and
    Min's interval on the effective number of rows, as in ``share_interval``.

    Args:
        is_so: of each row, (n,), as whether a network is right.
        was_so: the same of other answers.
        rows: how they are resampled.

    Returns:
        Gain (above 0: more than before), lower and upper end.
    """
    gained, lost = float((is_so & ~was_so).mean()), float((was_so & ~is_so).mean())
    gain, replicates = gained - lost, rows.means(is_so.astype(np.float64) - was_so)
    if rows.n_groups_with(is_so != was_so) >= FEW_GROUPS:
        return gain, *_percentiles(replicates)
    n_effective = _effective(gained + lost - gain**2, replicates, rows)
    return gain, *paired_gain_interval(gained * n_effective, lost * n_effective, n_effective)


def rmse_gain_interval(square_errors: Array, reference: Array, rows: Resampling) -> tuple[float, float, float]:
    """Return by how much the RMSE is below that of other answers to the same rows, with its 95 % interval.

    Args:
        square_errors: mean squared error of each row, (n,).
        reference: that of the other answers.
        rows: how they are resampled; a single group tells nothing: -1 to 1.

    Returns:
        Gain (above 0: better than the reference), lower and upper end.
    """
    gain = sqrt(reference.mean()) - sqrt(square_errors.mean())
    if rows.n_groups < 2:
        return gain, -1.0, 1.0
    return gain, *_percentiles(np.sqrt(rows.means(reference)) - np.sqrt(rows.means(square_errors)))


def independent_gain_interval(after: tuple[float, float, float], before: tuple[float, float, float]) -> Interval:
    """Return the 95 % interval of the difference of two figures of different objects, from the interval of each.

    If the figures agree more than by chance (many of the objects are the same), it is too wide, never too narrow.

    Args:
        after: a figure, and lower and upper end of its 95 % interval.
        before: the one that is taken from it.

    Source:
        Method of variance estimates recovery: Zou & Donner 2008, Statistics in Medicine 27, 1693; of two Wilson
        intervals this is Newcombe's: 1998, Statistics in Medicine 17, 873, method 10.
    """
    (value, low, high), (other, other_low, other_high) = after, before
    difference = value - other
    return difference - hypot(value - low, other_high - other), difference + hypot(high - value, other - other_low)


def wilson_interval(n_right: float, n: float) -> Interval:
    """Return the 95 % confidence interval of a share ``n_right / n``, both ends in [0, 1].

    Raises:
        ValueError: n is not positive or n_right is not in 0..n.

    Source:
        Wilson 1927, JASA 22, 209; unlike the normal approximation it holds for few rows and for shares near 0 and 1.
    """
    if n <= 0 or not 0 <= n_right <= n:
        raise ValueError(f"{n_right} of {n} is not a share")
    z_squared, share = _NORMAL_QUANTILE_95**2, n_right / n
    centre = (share + z_squared / (2 * n)) / (1 + z_squared / n)
    variance = share * (1 - share) / n + z_squared / (4 * n**2)
    half_width = _NORMAL_QUANTILE_95 / (1 + z_squared / n) * sqrt(variance)
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


def paired_gain_interval(n_gained: float, n_lost: float, n: float) -> Interval:
    """Return the 95 % confidence interval of the gain in accuracy between two answers to the same rows.

    The adjusted Wald interval for matched pairs: half a row is added to each of the four cells (both right, gained,
    lost, both wrong) before Wald's interval is taken.

    Args:
        n_gained: rows that only the new answer gets right.
        n_lost: rows that only the old answer gets right.
        n: all rows; the gain is ``(n_gained - n_lost) / n``.

    Raises:
        ValueError: the counts are negative or more than n, or n is 0.

    Source:
        Agresti & Min 2005, Statistics in Medicine 24, 729.
    """
    if n <= 0 or min(n_gained, n_lost) < 0 or n_gained + n_lost > n * (1 + 1e-12):
        raise ValueError(f"{n_gained} gained and {n_lost} lost are no counts of {n} rows")
    difference = n_gained - n_lost
    centre = difference / (n + 2)
    deviation = sqrt(n_gained + n_lost + 1 - difference**2 / (n + 2)) / (n + 2)
    half_width = _NORMAL_QUANTILE_95 * deviation
    return max(-1.0, centre - half_width), min(1.0, centre + half_width)


def _unit_interval(value: float, replicates: Array, is_so: npt.NDArray[np.bool_], rows: Resampling) -> Interval:
    """Return the interval of a figure between 0 and 1 that follows from which rows are so, see ``share_interval``."""
    if min(rows.n_groups_with(is_so), rows.n_groups_with(~is_so)) >= FEW_GROUPS:
        return _percentiles(replicates)
    n_effective = _effective(value * (1 - value), replicates, rows)
    return wilson_interval(value * n_effective, n_effective)


def _macro_f1(hits: npt.NDArray[Any], both: npt.NDArray[Any]) -> Array:
    """Return the mean F1 of the classes that occur as class or answer.

    Args:
        hits: right answers by class, (..., n_classes).
        both: rows of each class plus answers of it, of the same shape.
    """
    f1 = np.divide(2 * hits, both, out=np.zeros(both.shape), where=both > 0)
    return np.asarray(f1.sum(axis=-1) / (both > 0).sum(axis=-1))


def _percentiles(replicates: Array) -> Interval:
    low, high = np.quantile(replicates, (0.025, 0.975))
    return float(low), float(high)


def _effective(variance_of_row: float, replicates: Array, rows: Resampling) -> float:
    """Return how many rows drawn one by one would have a mean of the replicates' variance, 1 to n."""
    variance = float(replicates.var()) * rows.inflation
    if variance_of_row <= 0 or variance <= 0:
        return float(rows.n_groups)
    return min(max(variance_of_row / variance, 1.0), float(rows.n))
