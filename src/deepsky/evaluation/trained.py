"""What stage train wrote about one run, read back and checked."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.catalogue.tables import read_table
from deepsky.datasets.packed import PROPERTIES
from deepsky.errors import DataError

SPLITS = ("train", "val", "test")
MEASURES = {"class": "accuracy", "fractions": "rmse"}  # by target: what an epoch is judged by, beside its loss
FACTS = (
    "run", "dataset", "network", "weights", "start", "learn", "target", "params", "n_parameters", "n_images",
    "n_test_images", "tested_on", "class_counts", "n_skipped", "n_dropped", "classes",
)  # fmt: skip
REMEDY = "run dvc repro to train it again"
TESTED = {"test": "test", "val": "validation"}  # what the objects are called that a network is scored on


@dataclass(frozen=True)
class Trained:
    """One trained network.

    Attributes:
        folder: where it stands.
        facts: run.json.
        history: epoch, measure, loss, val_measure and val_loss, one row per epoch (see MEASURES).
        predictions: id, split, group, label (str) and the answers of every object, float64: p_CLASS; or p_COLUMN and
            the true t_COLUMN of the 37 vote fractions. Those of PROPERTIES that are known of an object.
        plain: the same of the test objects without test-time views; None where there are none.
    """

    folder: Path
    facts: dict[str, Any]
    history: pd.DataFrame
    predictions: pd.DataFrame
    plain: pd.DataFrame | None

    @property
    def target(self) -> str:
        """Return what is learned: ``class`` or ``fractions``."""
        return str(self.facts["target"])

    @property
    def name(self) -> str:
        """Return dataset and label, for headings."""
        return f"{self.facts['dataset']}, {self.folder.name}"

    @property
    def origin(self) -> dict[str, Any] | None:
        """Return study, trial and reference of what a search found; None for any other run."""
        return self.facts["params"].get("origin")

    @property
    def tested(self) -> str:
        """Say which objects it is scored on."""
        return TESTED[self.facts["tested_on"]]

    def rows(self, split: str) -> pd.DataFrame:
        """Return the predictions of one split; where there is no test part, val rows take its place."""
        part = self.facts["tested_on"] if split == "test" else split
        return self.predictions[self.predictions["split"] == part]


def read_trained(folder: Path, run: str) -> Trained:
    """Read DATASET/LABEL as stage train writes it.

    Args:
        folder: of the run.
        run: its name in the plan.

    Raises:
        DataError: a file is missing, malformed, or belongs to another run.
    """
    facts = read_facts(folder, run)
    measure, plain = MEASURES[facts["target"]], folder / "predictions_plain.csv"
    columns = ("epoch", measure, "loss", f"val_{measure}", "val_loss")
    history = read_table(folder / "history.csv", required=columns)
    one = Trained(
        folder,
        facts,
        _as_numbers(history[list(columns)], columns, folder / "history.csv"),
        _read_predictions(folder / "predictions.csv", facts),
        _read_predictions(plain, facts) if plain.is_file() else None,
    )
    for split in ("train", "test"):
        if not len(one.rows(split)):
            problem = f"has no {split} rows"
            raise DataError(folder / "predictions.csv", problem, "check the split's fractions in params.yaml")
    return one


def read_facts(folder: Path, run: str) -> dict[str, Any]:
    """Read run.json.

    Raises:
        DataError: it cannot be read, lacks a key, or is about another run.
    """
    path = folder / "run.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({error})", REMEDY) from error
    missing = [key for key in FACTS if not isinstance(facts, dict) or key not in facts]
    if missing:
        raise DataError(path, f"has no {missing[0]!r}", REMEDY)
    if facts["target"] not in MEASURES:
        raise DataError(path, f"unknown target {facts['target']!r}; known are {', '.join(MEASURES)}", REMEDY)
    if (facts["run"], facts["dataset"]) != (run, folder.parent.name):
        raise DataError(path, f"is about {facts['run']} of {facts['dataset']}, not about {run}", REMEDY)
    return dict(facts)


def _read_predictions(path: Path, facts: dict[str, Any]) -> pd.DataFrame:
    if facts["target"] == "class":
        numbers = tuple(f"p_{name}" for name in facts["classes"])
    else:
        numbers = tuple(f"{kind}_{column}" for kind in "pt" for column in COLUMNS)
    table = read_table(path, required=("id", "split", "group", "label", *numbers))
    unknown = table.loc[~table["split"].isin(SPLITS), "split"]
    if len(unknown):
        known = ", ".join(SPLITS)
        raise DataError(path, f"unknown split {unknown.iloc[0]!r}; known are {known}", REMEDY)
    return _as_numbers(table, (*numbers, *(name for name in PROPERTIES if name in table)), path)


def _as_numbers(table: pd.DataFrame, columns: Sequence[str], path: Path) -> pd.DataFrame:
    """Turn text columns into float64; an empty cell becomes NaN, which scoring refuses."""
    try:
        return table.assign(**{name: pd.to_numeric(table[name]).astype("float64") for name in columns})
    except ValueError as error:
        raise DataError(path, f"holds a value that is not a number ({error})", REMEDY) from error
