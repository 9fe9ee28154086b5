"""Stage evaluate: score every trained network, draw it, and complete its MLflow run."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd

from deepsky.catalogue.tables import read_table
from deepsky.errors import DataError
from deepsky.files import whole_file, whole_folder
from deepsky.metrics import Scores, paired_gain_interval, score
from deepsky.report import figures
from deepsky.tracking import runs
from deepsky.tracking.origin import origin_tags
from deepsky.tuning.adopted import Adopted

SPLITS = ("train", "val", "test")
HISTORY_COLUMNS = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss")
FACTS = (
    "dataset", "network", "weights", "params", "n_parameters", "n_images", "class_counts", "n_skipped", "classes",
)  # fmt: skip
_DIGITS = 6
_REMEDY = "run dvc repro to train it again"


@dataclass(frozen=True)
class Trained:
    """What a train stage wrote about one network.

    Attributes:
        folder: where it stands.
        facts: run.json.
        history: HISTORY_COLUMNS, one row per epoch.
        predictions: id, split, label (str) and p_CLASS (float64) of every object.
    """

    folder: Path
    facts: dict[str, Any]
    history: pd.DataFrame
    predictions: pd.DataFrame

    @property
    def origin(self) -> dict[str, Any] | None:
        """Return network, study and trial that a tuned network comes from; None for a reference."""
        return self.facts["params"].get("tuned")


def run(
    datasets: Sequence[str],
    networks: Sequence[str],
    adopted: Sequence[Adopted],
    experiment: str,
    *,
    trained: Path,
    out: Path,
    metrics: Path,
) -> None:
    """Score each dataset x network on its splits, and each tuned network beside its reference.

    Args:
        datasets: names of the datasets.
        networks: names of the networks.
        adopted: what searches found; trained beside the references.
        experiment: MLflow experiment whose runs get the scores; a run that is not there (its outputs came from the
            DVC cache) is made from the files.
        trained: folder of DATASET/NETWORK folders as the train stages write them.
        out: folder to write: DATASET/NETWORK/ with metrics.json, per_class.csv, confusion.csv and pictures.
        metrics: JSON file to write: dataset -> network -> the main figures.

    Raises:
        DataError: a folder is missing or does not hold what a train stage writes.
        TrackingError: the MLflow store cannot be used.
    """
    folders = [trained / dataset / network for dataset in datasets for network in networks]
    folders += [trained / one.dataset / one.label for one in adopted]
    every = {folder: read_trained(folder) for folder in folders}
    runs.close_dead_runs(experiment)
    summary: dict[str, dict[str, Any]] = {}
    with whole_folder(out) as fresh:
        for folder, one in every.items():
            dataset, network = one.facts["dataset"], one.facts["network"]
            reference = every[folder.parent / one.origin["network"]] if one.origin else None
            scores, gain = _score_splits(one), _gain(one, reference) if reference else {}
            _write_run(fresh / dataset / network, one, scores)
            _track(experiment, one, reference, _tracked_metrics(scores, gain), fresh / dataset / network)
            summary.setdefault(dataset, {})[network] = _headline(one, scores) | gain
    _write_json(metrics, summary, sort_keys=True)


def read_trained(folder: Path) -> Trained:
    """Read DATASET/NETWORK as a train stage writes it.

    Raises:
        DataError: a file is missing, malformed, or belongs to another dataset or network.
    """
    if not folder.is_dir():
        raise DataError(folder, "is missing", "run dvc repro to train it, or take it out of params.yaml")
    facts = _read_facts(folder / "run.json")
    if (facts["dataset"], facts["network"]) != (folder.parent.name, folder.name):
        raise DataError(folder / "run.json", f"is about {facts['dataset']} x {facts['network']}", _REMEDY)
    probability_columns = tuple(f"p_{name}" for name in facts["classes"])
    predictions = read_table(folder / "predictions.csv", required=("id", "split", "label", *probability_columns))
    unknown = predictions.loc[~predictions["split"].isin(SPLITS), "split"]
    if len(unknown):
        known = ", ".join(SPLITS)
        raise DataError(folder / "predictions.csv", f"unknown split {unknown.iloc[0]!r}; known are {known}", _REMEDY)
    history = read_table(folder / "history.csv", required=HISTORY_COLUMNS)
    return Trained(
        folder,
        facts,
        _as_numbers(history[list(HISTORY_COLUMNS)], HISTORY_COLUMNS, folder / "history.csv"),
        _as_numbers(predictions, probability_columns, folder / "predictions.csv"),
    )


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({error})", _REMEDY) from error
    missing = [key for key in FACTS if not isinstance(facts, dict) or key not in facts]
    if missing:
        raise DataError(path, f"has no {missing[0]!r}", _REMEDY)
    return facts


def _as_numbers(table: pd.DataFrame, columns: Sequence[str], path: Path) -> pd.DataFrame:
    """Turn text columns into float64; an empty cell becomes NaN, which scoring refuses."""
    try:
        return table.assign(**{name: pd.to_numeric(table[name]).astype("float64") for name in columns})
    except ValueError as error:
        raise DataError(path, f"holds a value that is not a number ({error})", _REMEDY) from error


def _score_splits(one: Trained) -> dict[str, Scores]:
    """Score each split that has rows; the baseline answers what is most frequent in the training rows."""
    path, rows, classes = one.folder / "predictions.csv", one.predictions, one.facts["classes"]
    for split in ("train", "test"):
        if not (rows["split"] == split).any():
            raise DataError(path, f"has no {split} rows", "check the split's fractions in params.yaml")
    majority = _majority_class(one)
    columns = [f"p_{name}" for name in classes]
    return {
        split: score(part["label"].tolist(), part[columns], classes, majority_class=majority, where=path)
        for split in SPLITS
        if len(part := rows[rows["split"] == split])
    }


def _majority_class(one: Trained) -> str:
    """Return the training rows' most frequent class, the first in class order of equally frequent ones."""
    labels = one.predictions.loc[one.predictions["split"] == "train", "label"].tolist()
    return max(one.facts["classes"], key=labels.count)


def _headline(one: Trained, scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Return the figures of the summary."""
    test = scores["test"]
    figures_of_run: dict[str, Any] = {
        "weights": one.facts["weights"],
        "n_test": test.n,
        "test_accuracy": test.accuracy,
        "test_accuracy_low": test.accuracy_low,
        "test_accuracy_high": test.accuracy_high,
        "test_baseline": test.baseline,
        "test_f1_macro": test.f1_macro,
        "test_f1_weighted": test.f1_weighted,
    }
    figures_of_run |= {f"{split}_accuracy": s.accuracy for split, s in scores.items() if split != "test"}
    if one.origin:
        figures_of_run |= {"tuned_from": one.origin["network"], "study": one.origin["study"]}
        figures_of_run["trial"] = one.origin["trial"]
    return figures_of_run


def _gain(tuned: Trained, reference: Trained) -> dict[str, float]:
    """Return the gain in test accuracy with its 95 % interval, from the answers to the same objects.

    Raises:
        DataError: the two were not tested on the same objects.
    """
    right, was_right = _right_answers(tuned), _right_answers(reference)
    if not right.index.equals(was_right.index):
        problem = f"has other test objects than {reference.folder / 'predictions.csv'}"
        raise DataError(tuned.folder / "predictions.csv", problem, "run dvc repro to train both again")
    n, n_gained, n_lost = len(right), int((right & ~was_right).sum()), int((was_right & ~right).sum())
    low, high = paired_gain_interval(n_gained, n_lost, n)
    return {"gain": (n_gained - n_lost) / n, "gain_low": low, "gain_high": high}


def _right_answers(one: Trained) -> pd.Series:
    """Return by id whether each test object's most probable class is the true one."""
    rows, classes = one.predictions[one.predictions["split"] == "test"].set_index("id"), one.facts["classes"]
    answer = rows[[f"p_{name}" for name in classes]].to_numpy().argmax(axis=1)
    return rows["label"] == [classes[code] for code in answer]


def _write_run(folder: Path, one: Trained, scores: Mapping[str, Scores]) -> None:
    """Write the tables and pictures of one run."""
    classes, name = one.facts["classes"], f"{one.facts['dataset']}, {one.facts['network']}"
    if one.facts["weights"] in figures.NAMED_WEIGHTS:
        name += f" (weights={one.facts['weights']})"
    folder.mkdir(parents=True)
    details = {key: value for key, value in one.facts.items() if key != "class_counts"}
    details |= {"majority_class": _majority_class(one), "class_counts": _class_counts(scores)}
    details["splits"] = {split: asdict(s) | {"confusion": s.confusion.tolist()} for split, s in scores.items()}
    details["history"] = one.history.astype({"epoch": int}).to_dict("list")
    _write_json(folder / "metrics.json", details)
    test = scores["test"]
    per_class = pd.DataFrame([{"class": key} | asdict(value) for key, value in test.per_class.items()])
    per_class.round(_DIGITS).to_csv(folder / "per_class.csv", index=False, lineterminator="\n")
    table = pd.DataFrame(
        test.confusion, index=pd.Index(classes, name="true"), columns=[f"predicted_{c}" for c in classes]
    )
    table.to_csv(folder / "confusion.csv", lineterminator="\n")
    figures.save_png(
        figures.confusion_figure(test.confusion, classes, f"{name}\n{test.n} test objects"), folder / "confusion.png"
    )
    figures.save_png(figures.curves_figure(details["history"], name), folder / "curves.png")
    figures.save_png(
        figures.class_distribution_figure(details["class_counts"], f"{one.facts['dataset']}: objects per class"),
        folder / "class_distribution.png",
    )


def _class_counts(scores: Mapping[str, Scores]) -> dict[str, dict[str, int]]:
    return {split: {name: c.support for name, c in s.per_class.items()} for split, s in scores.items()}


def _track(
    experiment: str, one: Trained, reference: Trained | None, metrics: Mapping[str, float], folder: Path
) -> None:
    """Log the scores into the run that made these files, once; a gain also depends on the reference's files."""
    key = runs.run_key(one.folder)
    evaluated = key if reference is None else f"{key} against {runs.run_key(reference.folder)}"
    found = runs.find_run(experiment, key)
    if found is None:
        found = runs.restored_run(
            experiment=experiment, trained=one.folder, facts=one.facts, history=list(_epochs(one.history))
        )
        if one.origin:
            for name, value in origin_tags(experiment, one.origin["study"], one.origin["trial"]).items():
                found.set_tag(name, value)
    elif found.tags().get("deepsky.evaluated") == evaluated:
        return
    found.log_metrics(metrics)
    found.log_artifact(folder, "evaluation")
    found.set_tag("deepsky.evaluated", evaluated)


def _epochs(history: pd.DataFrame) -> Iterator[tuple[int, dict[str, float]]]:
    for row in history.to_dict("records"):
        yield int(row.pop("epoch")), {str(k): float(v) for k, v in row.items() if isfinite(v)}


def _tracked_metrics(scores: Mapping[str, Scores], gain: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of the MLflow run; ``final_`` keeps them apart from the curves of the same name."""
    test = scores["test"]
    names = ("accuracy", "accuracy_low", "accuracy_high", "baseline", "f1_macro", "f1_weighted")
    logged: dict[str, float] = {f"test_{name}": getattr(test, name) for name in names}
    logged |= {f"test_{name}": value for name, value in gain.items()}
    logged |= {f"final_{split}_accuracy": scores[split].accuracy for split in scores if split != "test"}
    for label, safe in _metric_labels(list(test.per_class)).items():
        for name in ("precision", "recall", "f1"):
            logged[f"test_{name}_{safe}"] = getattr(test.per_class[label], name)
    return logged


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


def _write_json(path: Path, value: object, *, sort_keys: bool = False) -> None:
    with whole_file(path) as temporary:
        text = json.dumps(_rounded(value), indent=2, sort_keys=sort_keys, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Round every float: the last digits differ between machines and tell nothing. JSON has no NaN: None."""
    if isinstance(value, float):
        return round(value, _DIGITS) if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
