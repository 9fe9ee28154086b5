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

from deepsky.tracking import store

CLASSES = ("GALAXY", "QSO", "STAR")


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
    epoch = np.arange(1, 4)
    columns = {"epoch": epoch, "accuracy": 0.3 * epoch, "loss": 1 / epoch, "val_accuracy": 0.2 * epoch}
    pd.DataFrame({**columns, "val_loss": 1.2 / epoch}).to_csv(folder / "history.csv", index=False)
    (folder / "model.h5").write_bytes(b"network")
    counts = {s: {c: int(((split == s) & (predictions["label"] == c)).sum()) for c in classes} for s in set(split)}
    described = {
        "dataset": folder.parent.name,
        "network": folder.name,
        "weights": weights,
        "params": {"train": {"seed": 1, "hidden_units": [1024, 1024, 512], "learning_rate": 1e-3}},
        "n_parameters": 3228864,
        "n_images": n_objects,
        "class_counts": counts,
        "n_skipped": 2,
        "classes": list(classes),
    } | facts
    (folder / "run.json").write_text(json.dumps(described))
    return predictions
