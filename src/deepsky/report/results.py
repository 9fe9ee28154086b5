"""What stage evaluate found, read back for the report."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from deepsky.errors import DataError
from deepsky.evaluation.figures import NAMED_WEIGHTS

_REMEDY = "run dvc repro to evaluate again"
_SUMMARY_KEYS = {
    "class": (
        "weights", "n_test", "test_accuracy", "test_accuracy_low", "test_accuracy_high", "test_baseline",
        "test_f1_macro", "test_f1_weighted", "train_accuracy",
    ),
    "fractions": (
        "weights", "n_test", "test_rmse", "test_rmse_low", "test_rmse_high", "test_baseline", "test_tree_sum_error",
        "train_rmse",
    ),
}  # fmt: skip
_TUNED_KEYS = ("tuned_from", "study", "trial", "gain", "gain_low", "gain_high")
_DETAIL_KEYS = ("classes", "params", "splits", "history", "class_counts", "n_parameters", "n_images")
_TARGET_DETAIL_KEYS = {"class": ("majority_class", "confused"), "fractions": ()}


@dataclass(frozen=True)
class Result:
    """One evaluated run.

    Attributes:
        dataset: its name.
        network: its name, or that of the recipe.
        summary: its entry of the metrics file (see stage evaluate).
        details: its own metrics.json.
    """

    dataset: str
    network: str
    summary: dict[str, Any]
    details: dict[str, Any]

    @property
    def target(self) -> str:
        """What was learned: ``class`` or ``fractions``."""
        return str(self.summary["target"])

    @property
    def is_recipe(self) -> bool:
        """Whether it stands for itself, not in the matrix of datasets and networks."""
        return "way" in self.summary

    @property
    def score(self) -> tuple[float, float, float]:
        """Test accuracy, or RMSE of fractions, with the ends of its 95 % interval."""
        measure = "accuracy" if self.target == "class" else "rmse"
        value, low, high = (self.summary[f"test_{measure}{end}"] for end in ("", "_low", "_high"))
        return value, low, high

    @property
    def plain_network(self) -> str:
        """Name of the network without regard to how it was fitted."""
        return str(self.summary.get("tuned_from", self.network))

    @property
    def is_tuned(self) -> bool:
        """Whether a search found how the network was fitted."""
        return "tuned_from" in self.summary

    @property
    def beats_baseline(self) -> bool:
        """Whether the whole 95 % interval is better than the baseline."""
        _, low, high = self.score
        baseline = self.summary["test_baseline"]
        return bool(low > baseline if self.target == "class" else high < baseline)

    @property
    def has_random_weights(self) -> bool:
        """Whether the backbone was never pretrained though it should be."""
        return bool(self.summary["weights"] == "random")

    @property
    def has_unusual_weights(self) -> bool:
        """Whether the score must not be read without the name of its weights."""
        return self.summary["weights"] in NAMED_WEIGHTS


@dataclass(frozen=True)
class Tuned:
    """A tuned run beside its reference.

    Attributes:
        run: the tuned one.
        reference: the same network on the same dataset, fitted as the reference is.
        changes: parameter of the fit -> its value in the reference and in the tuned run, where they differ.
    """

    run: Result
    reference: Result
    changes: dict[str, tuple[Any, Any]]


def read_results(evaluation: Path, metrics: Path) -> list[Result]:
    """Read every run, sorted by dataset and network.

    Args:
        evaluation: folder of DATASET/NETWORK/metrics.json.
        metrics: the summary JSON.

    Raises:
        DataError: a file is missing, malformed or lacks a key, or there is no run at all.
    """
    results = []
    for dataset, of_dataset in sorted(_read_json(metrics).items()):
        for network, figures in sorted(of_dataset.items()):
            path = evaluation / dataset / network / "metrics.json"
            details = _read_json(path)
            _check_entry(figures, details, f"{metrics}: {dataset}.{network}", path)
            results.append(Result(dataset, network, figures, details))
    if not results:
        raise DataError(metrics, "holds no run", "name datasets and networks in params.yaml, then run dvc repro")
    return results


def tuned_results(results: list[Result]) -> list[Tuned]:
    """Return every tuned run with its reference.

    Raises:
        DataError: a reference is missing.
    """
    by_name = {(one.dataset, one.network): one for one in results}
    pairs = []
    for run in (one for one in results if one.is_tuned):
        reference = by_name.get((run.dataset, run.plain_network))
        if reference is None:
            raise DataError(f"{run.dataset}.{run.network}", "is evaluated without its reference", _REMEDY)
        before, after = (_fit_params(one) for one in (reference, run))
        changes = {name: (before.get(name), value) for name, value in after.items() if before.get(name) != value}
        pairs.append(Tuned(run, reference, changes))
    return pairs


def results_table(results: list[Result]) -> pd.DataFrame:
    """Return one row per run with the main figures."""
    table = pd.DataFrame(
        [
            {"dataset": one.dataset, "network": one.network}
            | one.summary
            | {key: one.details[key] for key in ("n_parameters", "n_images")}
            for one in results
        ]
    )
    return table.astype({"trial": "Int64"}) if "trial" in table else table


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({error})", _REMEDY) from error
    if not isinstance(value, dict):
        raise DataError(path, "is not a JSON object", _REMEDY)
    return value


def _fit_params(one: Result) -> dict[str, Any]:
    """Return section train, or scratch.NETWORK, as the run has it."""
    params = one.details["params"]
    return dict(params["train"] if "train" in params else params["scratch"])


def _check_entry(figures: dict[str, Any], details: dict[str, Any], where: str, details_path: Path) -> None:
    _check_keys(figures, ("target",), where)
    target = figures["target"]
    if target not in _SUMMARY_KEYS:
        raise DataError(where, f"has an unknown target {target!r}", _REMEDY)
    _check_keys(figures, _SUMMARY_KEYS[target], where)
    _check_keys(figures, _TUNED_KEYS if "tuned_from" in figures else (), where)
    _check_keys(details, _DETAIL_KEYS + _TARGET_DETAIL_KEYS[target], details_path)


def _check_keys(value: dict[str, Any], keys: tuple[str, ...], where: object) -> None:
    missing = [key for key in keys if key not in value]
    if missing:
        raise DataError(where, f"has no {missing[0]!r}", _REMEDY)
