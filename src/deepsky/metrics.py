"""How good are the predictions: counts, scores and errors, never silently over missing or malformed rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from deepsky.catalogue.decision_tree import COLUMNS, QUESTIONS, places, sums_wanted
from deepsky.errors import DataError
from deepsky.intervals import Resampling, f1_interval, rmse_interval, share_interval

_ROW_SUM_TOLERANCE = 1e-3  # probabilities are written with few digits
_FRACTION_TOLERANCE = 1e-5  # so are fractions
_SMALLEST_PROBABILITY = 1e-7  # Keras' cross-entropy clips there
# A network has collapsed that gives one answer to more than this share of the objects, and so much more often than it
# is true. It never says a class that has so many objects and no answer.
_COLLAPSED_SHARE, _COLLAPSED_EXCESS = 0.95, 0.15
_MISSED_SUPPORT = 10


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
        n_groups: groups of the split among them; of fewer than ``intervals.FEW_GROUPS`` no interval is reliable.
        accuracy: share of rows whose most probable class is the true one.
        accuracy_low: lower end of its 95 % interval, see ``intervals``.
        accuracy_high: upper end of it.
        baseline: accuracy of always answering ``majority_class``.
        loss: cross-entropy, its probabilities clipped as Keras does.
        precision_macro: mean precision of the classes that occur as label or answer.
        recall_macro: mean recall of them.
        f1_macro: mean F1 of them.
        f1_macro_low: lower end of its 95 % interval.
        f1_macro_high: upper end of it.
        precision_weighted: mean precision weighted by support.
        recall_weighted: mean recall weighted by support: the accuracy.
        f1_weighted: mean F1 weighted by support.
        per_class: scores of each class, in class order.
        confusion: (true class, predicted class) counts, int64.
    """

    n: int
    n_groups: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    baseline: float
    loss: float
    precision_macro: float
    recall_macro: float
    f1_macro: float
    f1_macro_low: float
    f1_macro_high: float
    precision_weighted: float
    recall_weighted: float
    f1_weighted: float
    per_class: dict[str, ClassScores]
    confusion: npt.NDArray[np.int64]


@dataclass(frozen=True)
class FractionScores:
    """Scores of predicted vote fractions on one split; every RMSE is over rows x columns.

    Attributes:
        n: rows.
        n_groups: groups of the split among them, see ``Scores``.
        rmse: over all 37 columns.
        rmse_low: lower end of its 95 % interval, see ``intervals``.
        rmse_high: upper end of it.
        baseline: RMSE of always answering the training rows' mean fractions.
        loss: mean squared error.
        per_question: RMSE over each question's columns, by its number.
        per_answer: RMSE of each column.
        baseline_per_answer: that of the baseline.
        tree_sum_error: greatest difference between the sum of a question's fractions and what it should be.
    """

    n: int
    n_groups: int
    rmse: float
    rmse_low: float
    rmse_high: float
    baseline: float
    loss: float
    per_question: dict[int, float]
    per_answer: dict[str, float]
    baseline_per_answer: dict[str, float]
    tree_sum_error: float


def score(
    labels: Sequence[str],
    probabilities: npt.ArrayLike,
    classes: Sequence[str],
    *,
    groups: npt.ArrayLike,
    majority_class: str,
    where: object,
) -> Scores:
    """Score the predictions of one split.

    Args:
        labels: true class of each row, (n,).
        probabilities: (n, n classes), each row sums to 1; of equal ones the first counts as the answer.
        classes: class names in the columns' order.
        groups: group of each row in the split, (n,).
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
    rows = Resampling(groups)
    low, high = share_interval(truth == answer, rows)
    f1_low, f1_high = f1_interval(truth, answer, len(classes), rows)
    of_truth = np.maximum(table[np.arange(len(truth)), truth], _SMALLEST_PROBABILITY)
    return Scores(
        n=len(truth),
        n_groups=rows.n_groups,
        accuracy=float((truth == answer).mean()),
        accuracy_low=low,
        accuracy_high=high,
        baseline=float((truth == list(classes).index(majority_class)).mean()),
        loss=float(-np.log(of_truth).mean()),
        **_averages(truth, answer),
        f1_macro_low=f1_low,
        f1_macro_high=f1_high,
        per_class={
            name: ClassScores(float(precision[k]), float(recall[k]), float(f1[k]), int(support[k]))
            for k, name in enumerate(classes)
        },
        confusion=confusion_matrix(truth, answer, labels=codes).astype(np.int64),
    )


def one_sidedness(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    """Say whether answers leave classes out: ``collapsed: ...``, ``never says ...``, or nothing.

    Args:
        confusion: (true class, predicted class) counts.
        classes: their names.
    """
    n, true, answered = max(int(confusion.sum()), 1), confusion.sum(axis=1), confusion.sum(axis=0)
    most = int(answered.argmax())
    share = answered[most] / n
    if share > _COLLAPSED_SHARE and share - true[most] / n > _COLLAPSED_EXCESS:
        return f"collapsed: answers {classes[most]} to {share:.0%} of the objects"
    never = [classes[int(code)] for code in np.flatnonzero((answered == 0) & (true >= _MISSED_SUPPORT))]
    return f"never says {', '.join(never)}" if never else ""


def confused_pairs(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> pd.DataFrame:
    """Return which classes are taken for which, the most frequent confusion first.

    Args:
        confusion: (true class, predicted class) counts.
        classes: their names.

    Returns:
        Columns true, predicted, n (rows, above 0) and share (of the true class' rows).
    """
    wrong = confusion - np.diag(confusion.diagonal())
    true, predicted = np.nonzero(wrong)
    counts, names = wrong[true, predicted], np.array(classes, dtype=object)
    table = pd.DataFrame(
        {
            "true": names[true],
            "predicted": names[predicted],
            "n": counts,
            "share": counts / confusion.sum(axis=1)[true],
        }
    )
    return table.sort_values(["n", "share"], ascending=False, kind="stable", ignore_index=True)


def score_fractions(
    truth: npt.ArrayLike,
    predicted: npt.ArrayLike,
    training_mean: npt.ArrayLike,
    *,
    groups: npt.ArrayLike,
    where: object,
) -> FractionScores:
    """Score the predicted vote fractions of one split.

    Args:
        truth: (n, 37), in the order of ``decision_tree.COLUMNS``.
        predicted: the same of the answers.
        training_mean: the answer of the baseline, (37,).
        groups: group of each row in the split, (n,).
        where: the file the rows come from, for messages.

    Raises:
        DataError: no rows, a fraction that is not finite or outside 0 to 1, or shapes that disagree.
    """
    wanted, answers = (_checked_fractions(table, where) for table in (truth, predicted))
    if wanted.shape != answers.shape:
        raise DataError(where, f"fractions are {answers.shape}, the true ones {wanted.shape}", "train again")
    squares, of_baseline = (answers - wanted) ** 2, (np.asarray(training_mean) - wanted) ** 2
    rows = Resampling(groups)
    low, high = rmse_interval(squares.mean(axis=1), rows)
    sum_errors = [answers[:, places(q)].sum(axis=1) - sums_wanted(answers, q) for q in QUESTIONS]
    return FractionScores(
        n=len(wanted),
        n_groups=rows.n_groups,
        rmse=sqrt(squares.mean()),
        rmse_low=low,
        rmse_high=high,
        baseline=sqrt(of_baseline.mean()),
        loss=float(squares.mean()),
        per_question={q.number: sqrt(squares[:, places(q)].mean()) for q in QUESTIONS},
        per_answer=dict(zip(COLUMNS, np.sqrt(squares.mean(axis=0)).tolist(), strict=True)),
        baseline_per_answer=dict(zip(COLUMNS, np.sqrt(of_baseline.mean(axis=0)).tolist(), strict=True)),
        tree_sum_error=float(np.abs(sum_errors).max()),
    )


def _checked_fractions(table: npt.ArrayLike, where: object) -> npt.NDArray[np.float64]:
    values = np.asarray(table, dtype=np.float64)
    if not len(values):
        raise DataError(where, "has no rows to score", "check the split's fractions in params.yaml")
    if values.shape[1:] != (len(COLUMNS),):
        raise DataError(where, f"fractions are {values.shape}, not (rows, {len(COLUMNS)})", "train again")
    bad = np.argwhere(~((values >= -_FRACTION_TOLERANCE) & (values <= 1 + _FRACTION_TOLERANCE)))
    if len(bad):
        row, column = bad[0]
        problem = f"{COLUMNS[column]} of prediction {row + 1} is {values[row, column]:g}, no fraction"
        raise DataError(where, problem, "train again")
    return values


def _averages(truth: npt.NDArray[np.int64], answer: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return precision, recall and F1, each averaged over the classes that occur."""
    averages: dict[str, float] = {}
    for kind in ("macro", "weighted"):
        precision, recall, f1, _ = precision_recall_fscore_support(truth, answer, average=kind, zero_division=0)
        averages |= {f"precision_{kind}": precision, f"recall_{kind}": recall, f"f1_{kind}": f1}
    return {name: float(value) for name, value in averages.items()}


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
