"""Classical baselines: what established methods make of a table of features, by the same split as a network.

They are fitted on the train rows. The val rows choose how strongly a method is held back, as they choose the epoch of
a network; the test rows only score.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from deepsky.errors import DataError
from deepsky.evaluation.params import Baseline
from deepsky.intervals import Resampling, share_interval

# What val chooses from, the most held back first: of equally good ones the first is taken. Features are highly
# redundant, so logistic regression needs far less freedom than scikit-learn's 1.
_PENALTIES, _SVM_PENALTIES, _ROUNDS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0), (0.1, 1.0, 10.0), (10, 100)
CANDIDATES: Mapping[Baseline, Callable[[int], list[Any]]] = {
    "logistic_regression": lambda seed: [_scaled(LogisticRegression(C=c, max_iter=1000)) for c in _PENALTIES],
    "svm": lambda seed: [_scaled(SVC(C=c)) for c in _SVM_PENALTIES],
    "random_forest": lambda seed: [RandomForestClassifier(random_state=seed)],
    "gradient_boosting": lambda seed: [
        HistGradientBoostingClassifier(max_iter=n, max_leaf_nodes=8, random_state=seed) for n in _ROUNDS
    ],
}


@dataclass(frozen=True)
class BaselineScore:
    """How well a classical method answers the test rows.

    Attributes:
        accuracy: share of right answers.
        accuracy_low: lower end of its 95 % interval, see ``intervals``.
        accuracy_high: upper end of it.
        f1_macro: mean F1 of the classes that occur as label or answer.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    f1_macro: float


def score_baselines(
    names: Sequence[Baseline],
    features: npt.NDArray[Any],
    labels: npt.NDArray[np.str_],
    split: npt.NDArray[np.str_],
    group: npt.NDArray[np.str_],
    *,
    seed: int,
) -> dict[Baseline, BaselineScore]:
    """Fit classical methods to a table of features; the outcome does not depend on the number of threads.

    Args:
        names: the methods.
        features: (n_rows, n_features), finite; each method scales them as it needs. Gradient boosting takes NaN too.
        labels: class of each row, (n_rows,).
        split: ``train``, ``val`` or ``test`` of each row, (n_rows,). Without a test part the val rows score and choose
            nothing, as with networks: then, and without val rows, a method's middle candidate is taken.
        group: of each row in the split, (n_rows,).
        seed: of the forest.

    Raises:
        DataError: the train rows are all of one class, or there are no rows to score.
    """
    if len(set(labels[split == "train"])) < 2 or (split == "train").all():
        problem = "need train rows of two classes, and others to be scored on"
        raise DataError("classical baselines", problem, "give more objects, or set evaluate.baselines: []")
    with threadpool_limits(1):  # sums of another order would be other numbers
        return {name: _scored(CANDIDATES[name](seed), features, labels, split, group) for name in names}


def _scaled(method: Any) -> Any:
    return make_pipeline(StandardScaler(), method)


def _scored(
    candidates: list[Any],
    features: npt.NDArray[Any],
    labels: npt.NDArray[np.str_],
    split: npt.NDArray[np.str_],
    group: npt.NDArray[np.str_],
) -> BaselineScore:
    """Score the candidate that answers the val rows best."""
    train, val, test = (split == name for name in ("train", "val", "test"))
    scored = test if test.any() else val
    if not (val.any() and test.any()):
        candidates = [candidates[len(candidates) // 2]]
    fitted = [one.fit(features[train], labels[train]) for one in candidates]
    best = fitted[0] if len(fitted) == 1 else max(fitted, key=lambda one: one.score(features[val], labels[val]))
    answers, truth = best.predict(features[scored]), labels[scored]
    f1 = float(f1_score(truth, answers, average="macro", zero_division=0))
    low, high = share_interval(answers == truth, Resampling(group[scored]))
    return BaselineScore(float((answers == truth).mean()), low, high, f1)
