"""Whether probabilities are as right as they say, and the one number that makes them so.

Source:
    Guo et al. 2017, On Calibration of Modern Neural Networks, ICML.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_MOST_BINS, _LEAST_ROWS = 15, 10  # the rows of a bin
_SMALLEST_PROBABILITY = 1e-7  # predictions are written with six digits
_LEAST, _MOST = 0.05, 20.0  # temperatures
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Rows that are answered about equally surely.

    Attributes:
        confidence: mean probability of the answer.
        accuracy: share of right answers.
        n: rows.
    """

    confidence: float
    accuracy: float
    n: int


def fit_temperature(probabilities: npt.ArrayLike, truth: npt.NDArray[np.int64]) -> float:
    """Return the temperature T whose softmax(log p / T) has the least cross-entropy, 0.05 to 20.

    Above 1 the network was too sure of itself, below 1 not sure enough.

    Args:
        probabilities: (n, n classes), rows that the network did not learn from.
        truth: class index of each row, (n,).
    """
    from scipy.optimize import minimize_scalar  # slow to import

    logits, rows = _logits(probabilities), np.arange(len(truth))

    def cross_entropy(log_temperature: float) -> float:
        return -float(_log_softmax(logits / np.exp(log_temperature))[rows, truth].mean())

    found = minimize_scalar(cross_entropy, bounds=np.log([_LEAST, _MOST]), method="bounded")
    return float(np.exp(found.x))


def at_temperature(probabilities: npt.ArrayLike, temperature: float) -> Array:
    """Return softmax(log p / T), (n, n classes); the order of the classes of a row stays."""
    return np.asarray(np.exp(_log_softmax(_logits(probabilities) / temperature)))


def reliability(probabilities: npt.ArrayLike, truth: npt.NDArray[np.int64]) -> list[Bin]:
    """Return how often answers are right that are given about equally surely, the least sure first.

    Args:
        probabilities: (n, n classes).
        truth: class index of each row, (n,).

    Returns:
        15 bins of about equally many rows, fewer where one would hold fewer than ten.
    """
    table = np.asarray(probabilities, np.float64)
    confidence, is_right = table.max(axis=1), table.argmax(axis=1) == truth
    n_bins = min(_MOST_BINS, max(len(table) // _LEAST_ROWS, 1))
    parts = np.array_split(np.argsort(confidence, kind="stable"), n_bins)
    return [Bin(float(confidence[p].mean()), float(is_right[p].mean()), len(p)) for p in parts]


def calibration_error(bins: list[Bin]) -> float:
    """Return the expected calibration error: the mean distance of confidence and accuracy of equally large bins.

    Of few rows it is above 0 by chance alone.

    Source:
        Naeini, Cooper & Hauskrecht 2015, AAAI; equally large bins: Nguyen & O'Connor 2015, EMNLP.
    """
    n = sum(one.n for one in bins)
    return sum(one.n * abs(one.confidence - one.accuracy) for one in bins) / n


def brier_score(probabilities: npt.ArrayLike, truth: npt.NDArray[np.int64]) -> float:
    """Return the mean squared distance of a row's probabilities from 1 for its class and 0 for the others, 0 to 2.

    Source:
        Brier 1950, Monthly Weather Review 78, 1.
    """
    table = np.asarray(probabilities, np.float64)
    return float(((table - np.eye(table.shape[1])[truth]) ** 2).sum(axis=1).mean())


def _logits(probabilities: npt.ArrayLike) -> Array:
    return np.asarray(np.log(np.maximum(np.asarray(probabilities, np.float64), _SMALLEST_PROBABILITY)))


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
