"""The result of evaluating one run: numbers, tables and figures, ready to be written and logged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from deepsky.errors import DataError
from deepsky.evaluation.figures import NAMED_WEIGHTS
from deepsky.evaluation.trained import MEASURES, REMEDY, Trained


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one run.

    Attributes:
        summary: its entry of the summary of all runs.
        tracked: metrics of its MLflow run.
        details: its own metrics.json.
        tables: file name -> table; those of ``plots/`` are what ``dvc plots`` draws.
        figures: file name -> picture.
    """

    summary: dict[str, Any]
    tracked: dict[str, float]
    details: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)

    def with_figures(self, more: dict[str, float]) -> "Evaluation":
        """Return the same with more figures in the summary and in the MLflow run."""
        return replace(self, summary=self.summary | more, tracked=self.tracked | more)

    def with_remark(self, text: str) -> "Evaluation":
        """Return the same with one more remark on what is wrong; of no text, the same."""
        remarks = [one for one in (self.summary.get("remark", ""), text) if one]
        return replace(self, summary=self.summary | {"remark": "; ".join(remarks)}) if text else self


def title(one: Trained) -> str:
    """Return the heading of a picture: weights that make a score another one are named with it."""
    weights = one.facts["weights"]
    return f"{one.name} (weights={weights})" if weights in NAMED_WEIGHTS else one.name


def details_of(one: Trained) -> dict[str, Any]:
    """Return what metrics.json says of every run before its scores.

    Raises:
        DataError: model.h5 is missing.
    """
    path = one.folder / "model.h5"
    if not path.is_file():
        raise DataError(path, "does not exist", REMEDY)
    return one.facts | {"history": history_lists(one), "n_bytes": path.stat().st_size}


def history_lists(one: Trained) -> dict[str, list[float]]:
    """Return the history column by column, epochs as integers."""
    return one.history.astype({"epoch": int}).to_dict("list")


def plain_test_rows(one: Trained) -> pd.DataFrame | None:
    """Return the answers to the test objects without test-time views, in the order of those with; None without any.

    Raises:
        DataError: they are about other objects.
    """
    if one.plain is None:
        return None
    plain, with_views = one.plain.set_index("id"), one.rows("test")["id"]
    if len(plain) != len(with_views) or not plain.index.is_unique or not with_views.isin(plain.index).all():
        path = one.folder / "predictions_plain.csv"
        raise DataError(path, "has other test objects than predictions.csv", REMEDY)
    return plain.loc[with_views].reset_index()


def about(one: Trained, n_test: int, n_test_groups: int) -> dict[str, Any]:
    """Return what the summary says of every run before its scores."""
    names = ("dataset", "network", "target", "weights", "start", "learn", "n_test_images", "tested_on")
    facts = {name: one.facts[name] for name in names}
    origin = {name: one.origin[name] for name in ("study", "trial")} if one.origin else {}
    return facts | origin | {"n_test": n_test, "n_test_groups": n_test_groups}


def plot_tables(one: Trained, actual: Sequence[str], predicted: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return what ``dvc plots`` draws of any run, in the same columns whatever its measure is.

    Args:
        one: the run.
        actual: what each test object is.
        predicted: what the network calls it.
    """
    epochs = {
        name: pd.DataFrame(
            {"epoch": one.history["epoch"].astype(int), "train": one.history[of], "val": one.history[f"val_{of}"]}
        )
        for name, of in (("curves", MEASURES[one.target]), ("loss", "loss"))
    }
    answers = pd.DataFrame({"actual": list(actual), "predicted": list(predicted)})
    return {f"plots/{name}.csv": table for name, table in (epochs | {"confusion": answers}).items()}


def compared_rows(one: Trained, reference: Trained) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the test rows of a run and of its reference.

    Raises:
        DataError: they are about different objects.
    """
    rows, before = one.rows("test"), reference.rows("test")
    if rows["id"].tolist() != before["id"].tolist():
        problem = f"has other test objects than {reference.folder / 'predictions.csv'}"
        raise DataError(one.folder / "predictions.csv", problem, "run dvc repro to train both again")
    return rows, before


def gain_figures(name: str, gain: float, low: float, high: float) -> dict[str, float]:
    """Return a gain and its interval by name."""
    return {name: gain, f"{name}_low": low, f"{name}_high": high}


def beside_each_other(scores: Mapping[str, Any], measures: tuple[str, ...]) -> dict[str, float]:
    """Return ``train_accuracy``, ``val_accuracy``, ``train_loss`` ...: the measures of every split that has rows."""
    return {f"{split}_{measure}": getattr(one, measure) for split, one in scores.items() for measure in measures}
