"""A project folder with its own store, and what a train stage writes, for the tests of what comes after training."""

import functools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from deepsky.catalogue.decision_tree import COLUMNS, QUESTIONS, compose
from deepsky.tracking import store

CLASSES = ("GALAXY", "QSO", "STAR")
RECIPE = {"target": "class", "way": "fine_tune", "params": {"recipe": {"network": "mobilenet", "test_views": 8}}}


@functools.cache
def _empty_store() -> bytes:
    """A fresh database; making one takes seconds, copying it nothing."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "mlflow.db"
        store._check_or_create_sqlite(database)
        return database.read_bytes()


def make_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make ``folder`` a project with an empty store and enter it."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_STAGE", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / "mlflow.db").write_bytes(_empty_store())
    monkeypatch.chdir(folder)
    return folder


def write_trained(
    folder: Path,
    *,
    seed: int = 0,
    skill: float = 1.5,
    n_objects: int = 100,
    classes: Sequence[str] = CLASSES,
    weights: str = "imagenet",
    **facts: Any,
) -> pd.DataFrame:
    """Write DATASET/NETWORK as a train stage does; returns the predictions."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(classes), n_objects)
    logits = rng.normal(size=(n_objects, len(classes)))
    logits[np.arange(n_objects), labels] += skill
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    split = rng.permutation(["train"] * (n_objects // 2) + ["val"] * (n_objects // 4) + ["test"] * (n_objects // 4))
    predictions = pd.DataFrame(
        {"id": [f"12376{i:014d}" for i in range(n_objects)], "split": split, "label": [classes[k] for k in labels]}
    )
    for k, name in enumerate(classes):
        predictions[f"p_{name}"] = probabilities[:, k]
    folder.mkdir(parents=True)
    predictions.to_csv(folder / "predictions.csv", index=False, float_format="%.6f")
    _write_rest(folder, "accuracy", predictions, list(classes), weights, facts)
    return predictions


def write_fractions(
    folder: Path, *, seed: int = 0, error: float = 0.05, n_objects: int = 80, **facts: Any
) -> pd.DataFrame:
    """Write DATASET/RECIPE as a recipe of vote fractions does; returns the predictions."""
    rng = np.random.default_rng(seed)
    answers = np.concatenate([rng.dirichlet(np.ones(len(q.answers)), n_objects) for q in QUESTIONS], axis=1)
    truth = compose(answers)
    predicted = np.clip(truth + rng.normal(0, error, truth.shape), 0, 1)
    split = rng.permutation(["train"] * (n_objects // 2) + ["val"] * (n_objects // 4) + ["test"] * (n_objects // 4))
    predictions = pd.DataFrame({"id": [str(i) for i in range(n_objects)], "split": split, "label": "galaxy"})
    for kind, table in (("p", predicted), ("t", truth)):
        predictions = predictions.assign(**{f"{kind}_{column}": table[:, k] for k, column in enumerate(COLUMNS)})
    folder.mkdir(parents=True)
    predictions.to_csv(folder / "predictions.csv", index=False)
    recipe = {"target": "fractions", "way": "from_scratch", "params": {"recipe": {"network": "regression_512"}}}
    _write_rest(folder, "rmse", predictions, ["galaxy"], "scratch", recipe | facts)
    return predictions


def _write_rest(
    folder: Path, measure: str, predictions: pd.DataFrame, classes: list[str], weights: str, facts: dict[str, Any]
) -> None:
    epoch = np.arange(1, 4)
    columns = {"epoch": epoch, measure: 0.3 * epoch, "loss": 1 / epoch, f"val_{measure}": 0.2 * epoch}
    pd.DataFrame({**columns, "val_loss": 1.2 / epoch}).to_csv(folder / "history.csv", index=False)
    (folder / "model.h5").write_bytes(b"network")
    split = predictions["split"]
    counts = {s: {c: int(((split == s) & (predictions["label"] == c)).sum()) for c in classes} for s in set(split)}
    described = {
        "dataset": folder.parent.name,
        "network": folder.name,
        "weights": weights,
        "params": {"train": {"seed": 1, "hidden_units": [1024, 1024, 512], "learning_rate": 1e-3}},
        "n_parameters": 3228864,
        "n_images": len(predictions),
        "class_counts": counts,
        "n_skipped": 2,
        "n_dropped": 1,
        "classes": classes,
    } | facts
    (folder / "run.json").write_text(json.dumps(described))
