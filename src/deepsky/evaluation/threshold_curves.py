"""How well the probability of each class ranks the objects: ROC and precision-recall, one class against the rest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

_N_PLACES = 30  # along a curve, a point kept on either side of each: more cannot be seen
_DIGITS = 4


@dataclass(frozen=True)
class ThresholdCurves:
    """One class against the rest, at every threshold of its probability.

    Attributes:
        auc: area under the ROC curve.
        average_precision: mean precision, weighted by the steps of recall.
        roc: (false positive rate, true positive rate) from (0, 0) to (1, 1), points that tell the shape.
        precision_recall: (recall, precision), the same; recall rises.
    """

    auc: float
    average_precision: float
    roc: list[tuple[float, float]]
    precision_recall: list[tuple[float, float]]


def threshold_curves(
    labels: Sequence[str], probabilities: npt.NDArray[np.float64], classes: Sequence[str]
) -> dict[str, ThresholdCurves]:
    """Return the curves of each class; one that all or none of the objects are of has none.

    Args:
        labels: true class of each object, (n,).
        probabilities: (n, class).
        classes: their names, in the columns' order.
    """
    truth = np.asarray(labels)
    curves = {}
    for name, of_class in zip(classes, probabilities.T, strict=True):
        is_of_class = truth == name
        if 0 < is_of_class.sum() < len(truth):
            false_positives, true_positives, _ = roc_curve(is_of_class, of_class)
            precision, recall, _ = precision_recall_curve(is_of_class, of_class, drop_intermediate=True)
            curves[name] = ThresholdCurves(
                float(auc(false_positives, true_positives)),
                float(average_precision_score(is_of_class, of_class)),
                _thinned(false_positives, true_positives),
                _thinned(recall[::-1], precision[::-1]),
            )
    return curves


def _thinned(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> list[tuple[float, float]]:
    """Keep the points around places at equal distances along a curve, with both ends."""
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    after = np.searchsorted(along, np.linspace(0, along[-1], _N_PLACES) - 1e-12)
    kept = np.unique(np.concatenate([after, np.maximum(after - 1, 0)]))
    return [(round(float(x[k]), _DIGITS), round(float(y[k]), _DIGITS)) for k in kept]
