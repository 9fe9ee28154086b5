"""A network that tells classes: scored on every split, drawn, and put into words for MLflow and the summary."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.evaluation import figures
from deepsky.evaluation.by_property import by_property, property_figure
from deepsky.evaluation.certainty import Certainty, certainty, reliability_figure
from deepsky.evaluation.paired import by_group
from deepsky.evaluation.result import (
    Evaluation,
    about,
    beside_each_other,
    compared_rows,
    details_of,
    gain_figures,
    plain_test_rows,
    plot_tables,
    title,
)
from deepsky.evaluation.threshold_curves import ThresholdCurves, threshold_curves
from deepsky.evaluation.trained import SPLITS, Trained
from deepsky.intervals import Resampling, share_gain_interval
from deepsky.metrics import Scores, confused_pairs, one_sidedness, score

SPLIT_MEASURES = ("accuracy", "f1_macro", "loss")
_MEASURES = (
    "accuracy", "accuracy_low", "accuracy_high", "baseline", "loss", "precision_macro", "recall_macro", "f1_macro",
    "f1_macro_low", "f1_macro_high", "precision_weighted", "recall_weighted", "f1_weighted",
)  # fmt: skip


def evaluate_classes(one: Trained, reference: Trained | None) -> Evaluation:
    """Score a run, and its gain over its reference and by its test-time views where it has them.

    Args:
        one: the run.
        reference: what a tuned run is compared with; None for any other.

    Raises:
        DataError: a split without rows, a malformed prediction, or answers to other test objects.
    """
    majority = _majority_class(one)
    scores = {
        split: score(
            part["label"].tolist(),
            part[[f"p_{name}" for name in one.facts["classes"]]],
            one.facts["classes"],
            groups=part["group"],
            majority_class=majority,
            where=one.folder / "predictions.csv",
        )
        for split in SPLITS
        if len(part := one.rows(split))
    }
    gains = (_gain_over(one, reference) if reference else {}) | _views_gain(one)
    counted = {split: s for split, s in scores.items() if split != "test" or one.facts["tested_on"] == "test"}
    counts = {split: {name: c.support for name, c in s.per_class.items()} for split, s in counted.items()}
    details = details_of(one) | {"majority_class": majority, "class_counts": counts}
    details["splits"] = {split: asdict(s) | {"confusion": s.confusion.tolist()} for split, s in scores.items()}
    details["confused"] = confused_pairs(scores["test"].confusion, one.facts["classes"]).to_dict("records")
    curves = _curves(one)
    details["curves"] = {name: asdict(curve) for name, curve in curves.items()}
    sure, rows = certainty(one), one.rows("test")
    of_properties = by_property(rows, _right(one, rows))
    details |= sure.details | {"by_property": of_properties.to_dict("records")}
    more = {f"test_{name}": value for name, value in _areas(curves).items()} | sure.figures
    return Evaluation(
        _summary(one, scores) | more | gains,
        _tracked(scores, gains) | more,
        details,
        _tables(one, scores["test"]) | sure.tables | _property_table(of_properties),
        _figures(one, scores, details, sure) | _property_figure(one, of_properties),
    )


def _property_table(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {"by_property.csv": table} if len(table) else {}


def _property_figure(one: Trained, table: pd.DataFrame) -> dict[str, figures.Figure]:
    heading = f"{title(one)}: accuracy by what is known of the objects"
    return {"by_property.png": property_figure(table, heading)} if len(table) else {}


def _curves(one: Trained) -> dict[str, ThresholdCurves]:
    classes, test = one.facts["classes"], one.rows("test")
    probabilities = test[[f"p_{name}" for name in classes]].to_numpy()
    return threshold_curves(test["label"].tolist(), probabilities, classes)


def _areas(curves: Mapping[str, ThresholdCurves]) -> dict[str, float]:
    """Return the mean over the classes that have curves; nothing where none has."""
    names = ("auc", "average_precision") if curves else ()
    return {f"{name}_macro": fmean(getattr(curve, name) for curve in curves.values()) for name in names}


def _majority_class(one: Trained) -> str:
    """Return the training rows' most frequent class, the first in class order of equally frequent ones."""
    labels = one.rows("train")["label"].tolist()
    return max(one.facts["classes"], key=labels.count)


def _summary(one: Trained, scores: Mapping[str, Scores]) -> dict[str, Any]:
    test = scores["test"]
    names = (
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "baseline",
        "f1_macro",
        "f1_macro_low",
        "f1_macro_high",
        "f1_weighted",
    )
    of_test = {f"test_{name}": getattr(test, name) for name in names}
    remark = one_sidedness(test.confusion, one.facts["classes"])
    return about(one, test.n, test.n_groups) | of_test | beside_each_other(scores, SPLIT_MEASURES) | {"remark": remark}


def _tracked(scores: Mapping[str, Scores], gains: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of the MLflow run: of the network that was kept, by part of the dataset."""
    test = scores["test"]
    logged = {f"test_{name}": value for name, value in {**figures_of(test), **gains}.items()}
    others = {split: s for split, s in scores.items() if split != "test"}
    return logged | beside_each_other(others, SPLIT_MEASURES)


def figures_of(scores: Scores) -> dict[str, float]:
    """Return what MLflow is told of one split: overall, and of every class, ``f1_CLASS`` for one."""
    return {name: getattr(scores, name) for name in _MEASURES} | {
        f"{name}_{safe}": getattr(scores.per_class[label], name)
        for label, safe in _metric_labels(list(scores.per_class)).items()
        for name in ("precision", "recall", "f1")
    }


def _metric_labels(labels: Sequence[str]) -> dict[str, str]:
    """Name each class as MLflow allows, no two alike; a class that may keep its own name does."""
    allowed = {label: re.sub(r"[^\w.\- /]", "_", label) for label in labels}
    taken, names = {"macro", "weighted"}, {}
    for label in sorted(labels, key=lambda label: allowed[label] != label):
        name, number = allowed[label], 2
        while name in taken:
            name, number = f"{allowed[label]}_{number}", number + 1
        taken.add(name)
        names[label] = name
    return names


def _gain_over(one: Trained, reference: Trained) -> dict[str, float]:
    """Return the gain in test accuracy with its 95 % interval, from the answers to the same objects."""
    rows, before = compared_rows(one, reference)
    return _gain("gain", _right(one, rows), _right(reference, before), rows)


def _views_gain(one: Trained) -> dict[str, float]:
    """Return what averaging the test-time views gained, and the accuracy without them."""
    plain = plain_test_rows(one)
    if plain is None:
        return {}
    was_right, rows = _right(one, plain), one.rows("test")
    return {"plain_accuracy": float(was_right.mean())} | _gain("views_gain", _right(one, rows), was_right, rows)


def _gain(
    name: str, right: npt.NDArray[np.bool_], was_right: npt.NDArray[np.bool_], rows: pd.DataFrame
) -> dict[str, float]:
    return gain_figures(name, *share_gain_interval(right, was_right, Resampling(rows["group"])))


def _right(one: Trained, rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return for each row whether the most probable class is the true one."""
    return np.array(_answers(one, rows)) == rows["label"].to_numpy(str)


def _answers(one: Trained, rows: pd.DataFrame) -> list[str]:
    """Return the most probable class of each row."""
    classes = one.facts["classes"]
    return [classes[code] for code in rows[[f"p_{name}" for name in classes]].to_numpy().argmax(axis=1)]


def _tables(one: Trained, test: Scores) -> dict[str, pd.DataFrame]:
    classes = one.facts["classes"]
    confusion = pd.DataFrame(test.confusion, columns=[f"predicted_{name}" for name in classes])
    confusion.insert(0, "true", classes)
    rows = one.rows("test")
    return plot_tables(one, rows["label"].tolist(), _answers(one, rows)) | {
        "groups.csv": by_group(rows["group"], _right(one, rows), "accuracy"),
        "per_class.csv": pd.DataFrame([{"class": name} | asdict(scores) for name, scores in test.per_class.items()]),
        "confusion.csv": confusion,
        "confused.csv": confused_pairs(test.confusion, classes),
    }


def _figures(
    one: Trained, scores: Mapping[str, Scores], details: Mapping[str, Any], sure: Certainty
) -> dict[str, figures.Figure]:
    test, name = scores["test"], title(one)
    splits = {split: {measure: getattr(s, measure) for measure in SPLIT_MEASURES} for split, s in scores.items()}
    return {
        "confusion.png": figures.confusion_figure(
            test.confusion, one.facts["classes"], f"{name}\n{test.n} {one.tested} objects"
        ),
        "curves.png": figures.curves_figure(details["history"], name),
        "reliability.png": reliability_figure(sure.bins, f"{name}\nhow right it is when how sure"),
        "splits.png": figures.splits_figure(splits, name),
        "class_distribution.png": figures.class_distribution_figure(
            details["class_counts"], f"{one.facts['dataset']}: objects per class"
        ),
    }
