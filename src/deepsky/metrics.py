"""How good are the predictions: counts and scores, never silently over missing or malformed rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from deepsky.errors import DataError

_ROW_SUM_TOLERANCE = 1e-3  # probabilities are written with few digits
_NORMAL_QUANTILE_95 = 1.959963984540054


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class; a ratio without denominator is 0.

    Attributes:
        precision: share of the rows called this class that are.
        recall: share of this class' rows that were found.
        f1: harmonic mean of both.
        support: rows of this class.
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Scores:
    """Scores of one split.

    Attributes:
        n: rows.
        accuracy: share of rows whose most probable class is the true one.
        accuracy_low: lower end of its 95 % Wilson interval.
        accuracy_high: upper end of it.
        baseline: accuracy of always answering ``majority_class``.
        f1_macro: mean F1 of the classes that occur as label or answer.
        f1_weighted: mean F1 weighted by support.
        per_class: scores of each class, in class order.
        confusion: (true class, predicted class) counts, int64.
    """

    n: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    baseline: float
    f1_macro: float
    f1_weighted: float
    per_class: dict[str, ClassScores]
    confusion: npt.NDArray[np.int64]


def score(
    labels: Sequence[str], probabilities: npt.ArrayLike, classes: Sequence[str], *, majority_class: str, where: object
) -> Scores:
    """Score the predictions of one split.

    Args:
        labels: true class of each row, (n,).
        probabilities: (n, n classes), each row sums to 1; of equal ones the first counts as the answer.
        classes: class names in the columns' order.
        majority_class: the answer of the baseline: the training split's most frequent class.
        where: the file the rows come from, for messages.

    Raises:
        DataError: no rows, an unknown label, a probability that is not finite or outside 0 to 1, a row that does
            not sum to 1, or shapes that disagree.
    """
    table = np.asarray(probabilities, dtype=np.float64)
    truth = _encode(labels, classes, where)
    _check_probabilities(table, len(truth), len(classes), where)
    answer = table.argmax(axis=1)
    codes = np.arange(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(truth, answer, labels=codes, zero_division=0)
    n_right = int((truth == answer).sum())
    low, high = wilson_interval(n_right, len(truth))
    return Scores(
        n=len(truth),
        accuracy=n_right / len(truth),
        accuracy_low=low,
        accuracy_high=high,
        baseline=float((truth == list(classes).index(majority_class)).mean()),
        f1_macro=float(f1_score(truth, answer, average="macro", zero_division=0)),
        f1_weighted=float(f1_score(truth, answer, average="weighted", zero_division=0)),
        per_class={
            name: ClassScores(float(precision[k]), float(recall[k]), float(f1[k]), int(support[k]))
            for k, name in enumerate(classes)
        },
        confusion=confusion_matrix(truth, answer, labels=codes).astype(np.int64),
    )


def score_heads(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Score many classifiers on the same rows at once.

    Args:
        probabilities: (classifier, row, class); NaN is allowed and gives a NaN loss.
        labels: class index of each row, (row,).

    Returns:
        Cross-entropy with probabilities clipped as Keras does, accuracy, and macro F1 as `score` defines it; each
        (classifier,).
    """
    n_heads, n_rows, n_classes = probabilities.shape
    of_truth = np.clip(probabilities[:, np.arange(n_rows), labels].astype(np.float64), 1e-7, 1 - 1e-7)
    answers = probabilities.argmax(axis=2)
    cells = (np.arange(n_heads)[:, None] * n_classes + labels) * n_classes + answers
    counts = np.bincount(cells.ravel(), minlength=n_heads * n_classes**2).reshape(n_heads, n_classes, n_classes)
    right = counts.diagonal(axis1=1, axis2=2)
    occurring = counts.sum(axis=1) + counts.sum(axis=2)
    f1 = np.divide(2 * right, occurring, out=np.zeros(right.shape), where=occurring > 0)
    f1_macro = f1.sum(axis=1) / (occurring > 0).sum(axis=1)
    return -np.log(of_truth).mean(axis=1), right.sum(axis=1) / n_rows, f1_macro


def wilson_interval(n_right: int, n: int) -> tuple[float, float]:
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


def paired_gain_interval(n_gained: int, n_lost: int, n: int) -> tuple[float, float]:
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
    if n <= 0 or min(n_gained, n_lost) < 0 or n_gained + n_lost > n:
        raise ValueError(f"{n_gained} gained and {n_lost} lost are no counts of {n} rows")
    difference = n_gained - n_lost
    centre = difference / (n + 2)
    deviation = sqrt(n_gained + n_lost + 1 - difference**2 / (n + 2)) / (n + 2)
    half_width = _NORMAL_QUANTILE_95 * deviation
    return max(-1.0, centre - half_width), min(1.0, centre + half_width)


def _encode(labels: Sequence[str], classes: Sequence[str], where: object) -> npt.NDArray[np.int64]:
    """Return the class index of each label."""
    order = {name: code for code, name in enumerate(classes)}
    unknown = next((label for label in labels if label not in order), None)
    if unknown is not None:
        raise DataError(where, f"unknown class {unknown!r}", f"known classes are {', '.join(classes)}: train again")
    if not len(labels):
        raise DataError(where, "has no rows to score", "check the split's fractions in params.yaml")
    return np.array([order[label] for label in labels], dtype=np.int64)


def _check_probabilities(table: npt.NDArray[np.float64], n_rows: int, n_classes: int, where: object) -> None:
    if table.shape != (n_rows, n_classes):
        raise DataError(where, f"probabilities are {table.shape}, not {(n_rows, n_classes)}", "train again")
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if len(bad):
        raise DataError(where, f"prediction {bad[0] + 1} holds a value that is not a number", "train again")
    sums = table.sum(axis=1)
    bad = np.flatnonzero((np.abs(sums - 1) > _ROW_SUM_TOLERANCE) | (table < 0).any(axis=1))
    if len(bad):
        row = ", ".join(f"{value:g}" for value in table[bad[0]])
        raise DataError(
            where, f"prediction {bad[0] + 1} ({row}) is no probability: sum {sums[bad[0]]:g}", "train again"
        )
