"""What the train stages wrote about one network, read back and checked."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.catalogue.tables import read_table
from deepsky.errors import DataError

SPLITS = ("train", "val", "test")
MEASURES = {"class": "accuracy", "fractions": "rmse"}  # by target: what an epoch is judged by, beside its loss
FACTS = (
    "dataset", "network", "weights", "params", "n_parameters", "n_images", "class_counts", "n_skipped",
    "n_dropped", "classes",
)  # fmt: skip
REMEDY = "run dvc repro to train it again"


@dataclass(frozen=True)
class Trained:
    """One trained network.

    Attributes:
        folder: where it stands.
        facts: run.json.
        history: epoch, measure, loss, val_measure and val_loss, one row per epoch (see MEASURES).
        predictions: id, split, label (str) and the answers of every object, float64: p_CLASS; or p_COLUMN and the
            true t_COLUMN of the 37 vote fractions.
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
        return str(self.facts.get("target", "class"))

    @property
    def name(self) -> str:
        """Return dataset and network, for headings."""
        return f"{self.facts['dataset']}, {self.facts['network']}"

    @property
    def origin(self) -> dict[str, Any] | None:
        """Return network, study and trial that a tuned network comes from; None for a reference."""
        return self.facts["params"].get("tuned")

    @property
    def recipe(self) -> dict[str, str]:
        """Return way and architecture of what a recipe trained; nothing for a network of the matrix."""
        recipe = self.facts["params"].get("recipe")
        return {"way": self.facts["way"], "architecture": recipe["network"]} if recipe else {}

    def rows(self, split: str) -> pd.DataFrame:
        """Return the predictions of one split."""
        return self.predictions[self.predictions["split"] == split]


def read_trained(folder: Path) -> Trained:
    """Read DATASET/NETWORK as a train stage writes it.

    Raises:
        DataError: a file is missing, malformed, or belongs to another dataset or network.
    """
    if not folder.is_dir():
        raise DataError(folder, "is missing", "run dvc repro to train it, or take it out of params.yaml")
    facts = _read_facts(folder / "run.json")
    if (facts["dataset"], facts["network"]) != (folder.parent.name, folder.name):
        raise DataError(folder / "run.json", f"is about {facts['dataset']} x {facts['network']}", REMEDY)
    measure, plain = MEASURES[facts.get("target", "class")], folder / "predictions_plain.csv"
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


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({error})", REMEDY) from error
    missing = [key for key in FACTS if not isinstance(facts, dict) or key not in facts]
    if missing:
        raise DataError(path, f"has no {missing[0]!r}", REMEDY)
    if facts.get("target", "class") not in MEASURES:
        raise DataError(path, f"unknown target {facts['target']!r}; known are {', '.join(MEASURES)}", REMEDY)
    return facts


def _read_predictions(path: Path, facts: dict[str, Any]) -> pd.DataFrame:
    if facts.get("target", "class") == "class":
        numbers = tuple(f"p_{name}" for name in facts["classes"])
    else:
        numbers = tuple(f"{kind}_{column}" for kind in "pt" for column in COLUMNS)
    table = read_table(path, required=("id", "split", "label", *numbers))
    unknown = table.loc[~table["split"].isin(SPLITS), "split"]
    if len(unknown):
        known = ", ".join(SPLITS)
        raise DataError(path, f"unknown split {unknown.iloc[0]!r}; known are {known}", REMEDY)
    return _as_numbers(table, numbers, path)


def _as_numbers(table: pd.DataFrame, columns: Sequence[str], path: Path) -> pd.DataFrame:
    """Turn text columns into float64; an empty cell becomes NaN, which scoring refuses."""
    try:
        return table.assign(**{name: pd.to_numeric(table[name]).astype("float64") for name in columns})
    except ValueError as error:
        raise DataError(path, f"holds a value that is not a number ({error})", REMEDY) from error
