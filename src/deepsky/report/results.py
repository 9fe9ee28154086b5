"""What stage evaluate found, read back for the report."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from deepsky.errors import DataError
from deepsky.report.figures import NAMED_WEIGHTS

_REMEDY = "run dvc repro to evaluate again"
_SUMMARY_KEYS = (
    "weights", "n_test", "test_accuracy", "test_accuracy_low", "test_accuracy_high", "test_baseline", "test_f1_macro",
    "test_f1_weighted",
)  # fmt: skip
_DETAIL_KEYS = ("classes", "params", "splits", "history", "class_counts", "majority_class", "n_parameters", "n_images")


@dataclass(frozen=True)
class Result:
    """One evaluated run.

    Attributes:
        dataset: its name.
        network: its name.
        summary: its entry of the metrics file (see stage evaluate).
        details: its own metrics.json.
    """

    dataset: str
    network: str
    summary: dict[str, Any]
    details: dict[str, Any]

    @property
    def beats_baseline(self) -> bool:
        """Whether the whole 95 % interval lies above the baseline."""
        return bool(self.summary["test_accuracy_low"] > self.summary["test_baseline"])

    @property
    def has_random_weights(self) -> bool:
        """Whether the backbone was never pretrained though it should be."""
        return bool(self.summary["weights"] == "random")

    @property
    def has_unusual_weights(self) -> bool:
        """Whether the score must not be read without the name of its weights."""
        return self.summary["weights"] in NAMED_WEIGHTS


def read_results(evaluation: Path, metrics: Path) -> list[Result]:
    """Read every run, sorted by dataset and network.

    Args:
        evaluation: folder of DATASET/NETWORK/metrics.json.
        metrics: the summary JSON.

    Raises:
        DataError: a file is missing, malformed or lacks a key, or there is no run at all.
    """
    summary = _read_json(metrics)
    results = []
    for dataset, of_dataset in sorted(summary.items()):
        for network, figures in sorted(of_dataset.items()):
            path = evaluation / dataset / network / "metrics.json"
            details = _read_json(path)
            _check_keys(figures, _SUMMARY_KEYS, f"{metrics}: {dataset}.{network}")
            _check_keys(details, _DETAIL_KEYS, path)
            results.append(Result(dataset, network, figures, details))
    if not results:
        raise DataError(metrics, "holds no run", "name datasets and networks in params.yaml, then run dvc repro")
    return results


def results_table(results: list[Result]) -> pd.DataFrame:
    """Return one row per run with the main figures."""
    return pd.DataFrame(
        [
            {"dataset": one.dataset, "network": one.network}
            | one.summary
            | {key: one.details[key] for key in ("n_parameters", "n_images")}
            for one in results
        ]
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({error})", _REMEDY) from error
    if not isinstance(value, dict):
        raise DataError(path, "is not a JSON object", _REMEDY)
    return value


def _check_keys(value: dict[str, Any], keys: tuple[str, ...], where: object) -> None:
    missing = [key for key in keys if key not in value]
    if missing:
        raise DataError(where, f"has no {missing[0]!r}", _REMEDY)
