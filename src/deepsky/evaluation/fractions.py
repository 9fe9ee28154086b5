"""A network that predicts the 37 vote fractions: scored on every split, per question and per answer."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from deepsky.catalogue.decision_tree import COLUMNS, QUESTIONS, places
from deepsky.evaluation import figures, fraction_figures
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
from deepsky.evaluation.trained import SPLITS, Trained
from deepsky.intervals import Resampling, rmse_gain_interval
from deepsky.metrics import FractionScores, score_fractions


def evaluate_fractions(one: Trained, reference: Trained | None) -> Evaluation:
    """Score a run, and its gain over its reference and by its test-time views where it has them.

    Args:
        one: the run.
        reference: what a tuned run is compared with; None for any other.

    Raises:
        DataError: a split without rows, a malformed fraction, or answers to other test objects.
    """
    training_mean = _fractions(one.rows("train"), "t").mean(axis=0)
    scores = {
        split: score_fractions(
            _fractions(part, "t"),
            _fractions(part, "p"),
            training_mean,
            groups=part["group"],
            where=one.folder / "predictions.csv",
        )
        for split in SPLITS
        if len(part := one.rows(split))
    }
    gains = (_gain("gain", *compared_rows(one, reference)) if reference else {}) | _views_gain(one)
    summary = about(one, scores["test"].n, scores["test"].n_groups)
    summary |= _test_figures(scores["test"]) | beside_each_other(scores, ("rmse", "loss")) | gains
    details = details_of(one) | {"splits": {key: asdict(s) for key, s in scores.items()}}
    details["mean_fractions"] = dict(zip(COLUMNS, training_mean.tolist(), strict=True))
    return Evaluation(
        summary,
        _tracked(scores, gains),
        details,
        {"rmse.csv": _rmse_table(scores["test"]), "groups.csv": _by_group(one.rows("test"))} | _plots(one),
        _figures(one, scores, details["history"]),
    )


def _fractions(rows: pd.DataFrame, kind: str) -> npt.NDArray[np.float64]:
    """Return (row, 37): the predicted (``p``) or the true (``t``) fractions."""
    return rows[[f"{kind}_{column}" for column in COLUMNS]].to_numpy(np.float64)


def _test_figures(test: FractionScores) -> dict[str, float]:
    names = ("rmse", "rmse_low", "rmse_high", "baseline", "tree_sum_error")
    return {f"test_{name}": getattr(test, name) for name in names}


def _tracked(scores: Mapping[str, FractionScores], gains: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of the MLflow run: of the network that was kept, by part of the dataset."""
    others = {split: s for split, s in scores.items() if split != "test"}
    return (
        _test_figures(scores["test"])
        | {"test_loss": scores["test"].loss}
        | {f"test_rmse_q{number}": value for number, value in scores["test"].per_question.items()}
        | beside_each_other(others, ("rmse", "loss"))
        | {f"test_{name}": value for name, value in gains.items()}
    )


def _views_gain(one: Trained) -> dict[str, float]:
    """Return by how much the test-time views lowered the RMSE, and the RMSE without them."""
    plain = plain_test_rows(one)
    if plain is None:
        return {}
    gain = _gain("views_gain", one.rows("test"), plain)
    return {"plain_rmse": float(np.sqrt(row_errors(plain).mean()))} | gain


def _gain(name: str, rows: pd.DataFrame, before: pd.DataFrame) -> dict[str, float]:
    """Return by how much the RMSE is below that of other answers to the same objects, with its 95 % interval."""
    return gain_figures(name, *rmse_gain_interval(row_errors(rows), row_errors(before), Resampling(rows["group"])))


def row_errors(rows: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the mean squared error of each row, (row,)."""
    errors: npt.NDArray[np.float64] = _fractions(rows, "p") - _fractions(rows, "t")
    return (errors**2).mean(axis=1)


def _by_group(rows: pd.DataFrame) -> pd.DataFrame:
    return by_group(rows["group"], row_errors(rows), "rmse")


def _plots(one: Trained) -> dict[str, pd.DataFrame]:
    """Return what ``dvc plots`` draws; its confusion is that of the first question's most voted answers."""
    first, test = QUESTIONS[0], one.rows("test")
    actual, predicted = (
        [first.answers[place] for place in _fractions(test, kind)[:, places(first)].argmax(axis=1)] for kind in "tp"
    )
    return plot_tables(one, actual, predicted)


def _rmse_table(test: FractionScores) -> pd.DataFrame:
    """Return one row per question (its ``column`` empty) and one per answer."""
    rows: list[dict[str, Any]] = []
    for question in QUESTIONS:
        of_baseline = [test.baseline_per_answer[column] ** 2 for column in question.columns]
        rmse, baseline = test.per_question[question.number], float(np.sqrt(np.mean(of_baseline)))
        about = {"question": question.number, "text": question.text}
        rows.append(about | {"column": "", "answer": "", "rmse": rmse, "baseline": baseline})
        rows += [
            about | {"column": c, "answer": a, "rmse": test.per_answer[c], "baseline": test.baseline_per_answer[c]}
            for c, a in zip(question.columns, question.answers, strict=True)
        ]
    return pd.DataFrame(rows)


def _figures(
    one: Trained, scores: Mapping[str, FractionScores], history: Mapping[str, list[float]]
) -> dict[str, Figure]:
    name, test = title(one), one.rows("test")
    truth, predicted = _fractions(test, "t"), _fractions(test, "p")
    splits = {split: {"rmse": s.rmse, "loss": s.loss} for split, s in scores.items()}
    return {
        "rmse.png": fraction_figures.rmse_figure(
            scores["test"].per_answer, scores["test"].baseline_per_answer, f"{name}\n{len(test)} {one.tested} objects"
        ),
        "fractions.png": fraction_figures.scatter_figure(truth, predicted, f"{name}: true and predicted fractions"),
        "curves.png": figures.curves_figure(history, name),
        "splits.png": figures.splits_figure(splits, name),
        "fraction_distribution.png": fraction_figures.distribution_figure(
            {split: _fractions(one.rows(split), "t") for split in scores}, f"{one.facts['dataset']}: mean fractions"
        ),
    }
