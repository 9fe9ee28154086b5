"""What stage evaluate found, read back for the report."""

import json
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from deepsky.errors import DataError
from deepsky.evaluation.album import Album, read_album
from deepsky.evaluation.audit import Audit, photometric_remark, read_audit
from deepsky.evaluation.examples import examples_of
from deepsky.evaluation.figures import NAMED_WEIGHTS
from deepsky.evaluation.paired import Comparison
from deepsky.evaluation.params import Baseline
from deepsky.evaluation.trained import MEASURES, TESTED
from deepsky.intervals import unreliable

_REMEDY = "run dvc repro to evaluate again"
_ABOUT = ("dataset", "network", "label", "is_cell", "is_simulated", "key", "target")
_SUMMARY_KEYS = {
    "class": (
        "weights", "start", "learn", "n_test", "n_test_images", "n_test_groups", "tested_on", "test_accuracy",
        "test_accuracy_low", "test_accuracy_high", "test_baseline", "test_f1_macro", "test_f1_macro_low",
        "test_f1_macro_high", "test_f1_weighted", "test_ece", "test_brier", "train_accuracy", "remark",
    ),
    "fractions": (
        "weights", "start", "learn", "n_test", "n_test_images", "n_test_groups", "tested_on", "test_rmse",
        "test_rmse_low", "test_rmse_high", "test_baseline", "test_tree_sum_error", "train_rmse",
    ),
}  # fmt: skip
_TUNED_KEYS = ("study", "trial")
_GAIN_KEYS = ("gain", "gain_low", "gain_high")
_DETAIL_KEYS = ("classes", "params", "splits", "history", "class_counts", "n_parameters", "n_images", "n_bytes")
_TARGET_DETAIL_KEYS = {
    "class": ("majority_class", "confused", "curves", "calibration", "sets", "by_property"),
    "fractions": ("mean_fractions",),
}


@dataclass(frozen=True)
class Result:
    """One evaluated run.

    Attributes:
        name: of the run, unique.
        summary: its entry of the summary (see stage evaluate).
        details: its own metrics.json.
        album: some of its objects with their pictures.
    """

    name: str
    summary: dict[str, Any]
    details: dict[str, Any]
    album: Album

    @property
    def dataset(self) -> str:
        """What it learned from."""
        return str(self.summary["dataset"])

    @property
    def network(self) -> str:
        """Its architecture."""
        return str(self.summary["network"])

    @property
    def label(self) -> str:
        """What it is called beside the other runs of its dataset."""
        return str(self.summary["label"])

    @property
    def target(self) -> str:
        """What was learned: ``class`` or ``fractions``."""
        return str(self.summary["target"])

    @property
    def is_cell(self) -> bool:
        """Whether it belongs to the matrix of datasets and networks; else it stands for itself."""
        return bool(self.summary["is_cell"])

    @property
    def tested(self) -> str:
        """Which objects it is scored on."""
        return TESTED[self.summary["tested_on"]]

    @property
    def measure(self) -> str:
        """What it is judged by."""
        return MEASURES[self.target]

    @property
    def score(self) -> tuple[float, float, float]:
        """Test accuracy, or RMSE of fractions, with the ends of its 95 % interval."""
        value, low, high = (self.summary[f"test_{self.measure}{end}"] for end in ("", "_low", "_high"))
        return value, low, high

    @property
    def unreliable(self) -> str:
        """What is to be said of its intervals; nothing where they follow from groups enough."""
        return unreliable(self.summary["n_test_groups"])

    @property
    def skill(self) -> float:
        """Share of the baseline's error that is gone: 0 as bad as the baseline, 1 without error, below 0 worse."""
        value, baseline = self.score[0], self.summary["test_baseline"]
        error, before = (1 - value, 1 - baseline) if self.target == "class" else (value, baseline)
        return float(1 - error / before) if before else 0.0

    @property
    def has_positions(self) -> bool:
        """Whether the place on the sky of some shown object is known."""
        return any(one.ra_deg is not None for one in examples_of(self.album.groups))

    @property
    def reference(self) -> str | None:
        """Name of the run that a search started from; None where no search found its settings."""
        return self.summary.get("reference")

    @property
    def is_tuned(self) -> bool:
        """Whether a search found its settings."""
        return self.reference is not None

    @property
    def how(self) -> str:
        """How the network learned, in words."""
        learn = self.summary["learn"]
        if self.summary["start"] == "scratch":
            return "from scratch"
        if learn == "head":
            return "head alone"
        return "fine-tuned" if learn == "all" else f"fine-tuned, last {learn} block{'s' if learn != 1 else ''}"

    @property
    def classical(self) -> dict[str, tuple[float, float, float]]:
        """Test accuracy of each classical method on the same features, with the ends of its interval, by its words."""
        found = {}
        for name in get_args(Baseline):
            key = f"test_{name}_accuracy"
            if key in self.summary:
                value, low, high = (self.summary[f"{key}{end}"] for end in ("", "_low", "_high"))
                found[name.replace("_", " ")] = (value, low, high)
        return found

    @property
    def beats_baseline(self) -> bool:
        """Whether the whole 95 % interval is better than the baseline."""
        _, low, high = self.score
        baseline = self.summary["test_baseline"]
        return bool(low > baseline if self.target == "class" else high < baseline)

    @property
    def remark(self) -> str:
        """Return what is wrong: it gives one answer only, or never some, or is not above photometry; else nothing."""
        return str(self.summary.get("remark", ""))

    @property
    def of_photometry(self) -> str:
        """Return what the remark says of photometry: that it is not better; else nothing."""
        return photometric_remark(self.summary)

    @property
    def defect(self) -> str:
        """Return the rest of the remark: what is wrong with the answers themselves."""
        return "; ".join(one for one in self.remark.split("; ") if one != self.of_photometry)

    @property
    def short_defect(self) -> str:
        """Return it in a few words: ``collapsed``, ``never says STAR``, ``never says 3 classes``."""
        return _shortened(self.defect)

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
        reference: the run that the search started from; None where it is among those left out.
        changes: parameter -> its value in the reference and in the tuned run, where they differ.
    """

    run: Result
    reference: Result | None
    changes: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Results:
    """What stage evaluate found.

    Attributes:
        runs: the evaluated ones, sorted by dataset, cells of the matrix first, and name.
        left_out: reason -> names of the planned runs that could not be evaluated.
        compared: by dataset, how its runs compare; one with a single run is missing.
        audits: of the datasets that have one, by name.
    """

    runs: list[Result]
    left_out: dict[str, list[str]]
    compared: dict[str, Comparison]
    audits: dict[str, Audit] = field(default_factory=dict)

    @property
    def n_planned(self) -> int:
        """Return how many runs there should be."""
        return len(self.runs) + sum(map(len, self.left_out.values()))


def read_results(evaluation: Path) -> Results:
    """Read every run.

    Args:
        evaluation: folder of summary.json, of DATASET/LABEL/metrics.json and examples.json, and of audits.

    Raises:
        DataError: a file is missing, malformed or lacks a key, or there is no run at all.
    """
    path = evaluation / "summary.json"
    summary = _read_json(path)
    _check_keys(summary, ("runs", "left_out"), path)
    runs = []
    for name, figures in summary["runs"].items():
        where = f"{path}: {name}"
        _check_keys(figures, _ABOUT, where)
        details_path = evaluation / figures["dataset"] / figures["label"] / "metrics.json"
        details = _read_json(details_path)
        _check_entry(figures, details, where, details_path)
        runs.append(Result(name, figures, details, read_album(details_path.with_name("examples.json"))))
    if not runs:
        raise DataError(path, "holds no run", "name datasets and networks in params.yaml, then run dvc repro")
    left_out: dict[str, list[str]] = {}
    for one in summary["left_out"]:
        _check_keys(one, ("name", "reason"), path)
        left_out.setdefault(one["reason"], []).append(one["name"])
    datasets = {one.dataset for one in runs}
    return Results(
        sorted(runs, key=lambda one: (one.dataset, not one.is_cell, one.name)),
        left_out,
        _read_compared(evaluation / "paired.json", runs),
        {dataset: audit for dataset in datasets if (audit := read_audit(evaluation / dataset))},
    )


def _read_compared(path: Path, runs: list[Result]) -> dict[str, Comparison]:
    try:
        compared = {dataset: Comparison(**one) for dataset, one in _read_json(path).items()}
    except TypeError as error:
        raise DataError(path, f"is not what evaluate writes ({error})", _REMEDY) from error
    for dataset, found in compared.items():
        if set(found.runs) != {one.name for one in runs if one.dataset == dataset}:
            raise DataError(path, f"compares other runs of {dataset} than were evaluated", _REMEDY)
    return compared


def tuned_results(results: Results) -> list[Tuned]:
    """Return every tuned run with its reference.

    Raises:
        DataError: a reference was neither evaluated nor left out, or its gain is missing.
    """
    by_name = {one.name: one for one in results.runs}
    left_out = {name for names in results.left_out.values() for name in names}
    pairs = []
    for run in (one for one in results.runs if one.is_tuned):
        reference = by_name.get(run.reference or "")
        if reference is None and run.reference not in left_out:
            raise DataError(run.name, f"is evaluated without its reference {run.reference}", _REMEDY)
        if reference:
            _check_keys(run.summary, _GAIN_KEYS, run.name)
        pairs.append(Tuned(run, reference, _changes(reference, run) if reference else {}))
    return pairs


def results_table(results: Results) -> pd.DataFrame:
    """Return one row per run with the main figures."""
    table = pd.DataFrame(
        [
            {"run": one.name, "dataset": one.dataset, "network": one.network}
            | one.summary
            | {"interval_is_reliable": not one.unreliable}
            | _beside_best(one, results.compared.get(one.dataset))
            | {key: one.details[key] for key in ("n_parameters", "n_bytes", "n_images")}
            for one in results.runs
        ]
    )
    return table.astype({"trial": "Int64"}) if "trial" in table else table


def _shortened(remark: str) -> str:
    what, _, names = remark.partition(", ")
    return f"never says {names.count(', ') + 2} classes" if names else what.partition(":")[0]


def _beside_best(one: Result, compared: Comparison | None) -> dict[str, float]:
    """Return by how much a run is worse than the best of its dataset, and how sure that is; nothing of a lone run."""
    if compared is None:
        return {}
    place = compared.runs.index(one.name)
    return {
        "behind_best": compared.behind[place],
        "best_is_better": compared.better[0][place] if compared.is_told(0, place) else nan,
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({error})", _REMEDY) from error
    if not isinstance(value, dict):
        raise DataError(path, "is not a JSON object", _REMEDY)
    return value


def flat_params(params: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested parameters as ``outer.inner`` names."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        flat |= flat_params(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _changes(reference: Result, run: Result) -> dict[str, tuple[Any, Any]]:
    """Return what a search changed, in the order of the run's parameters."""
    before, after = (flat_params(one.details["params"]) for one in (reference, run))
    after = {name: value for name, value in after.items() if not name.startswith("origin.")}
    return {name: (before.get(name), value) for name, value in after.items() if before.get(name) != value}


def _check_entry(figures: dict[str, Any], details: dict[str, Any], where: str, details_path: Path) -> None:
    target = figures["target"]
    if target not in _SUMMARY_KEYS:
        raise DataError(where, f"has an unknown target {target!r}", _REMEDY)
    _check_keys(figures, _SUMMARY_KEYS[target], where)
    _check_keys(figures, _TUNED_KEYS if "reference" in figures else (), where)
    _check_keys(details, _DETAIL_KEYS + _TARGET_DETAIL_KEYS[target], details_path)


def _check_keys(value: dict[str, Any], keys: tuple[str, ...], where: object) -> None:
    missing = [key for key in keys if key not in value]
    if missing:
        raise DataError(where, f"has no {missing[0]!r}", _REMEDY)
