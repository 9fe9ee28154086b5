"""A project folder with its own store, and what stage train writes, for the tests of what comes after training."""

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
from deepsky.datasets.packed import DatasetCard, write_rows
from deepsky.datasets.params import Target
from deepsky.evaluation.planned import PlannedRun
from deepsky.tracking import store

CLASSES = ("GALAXY", "QSO", "STAR")
FINE_TUNED = {"run": "{label}", "network": "mobilenet", "learn": "all", "params": {"test_views": 8, "seed": 1}}
PARAMS = {"seed": 1, "hidden_units": [1024, 1024, 512], "learning_rate": 1e-3, "augment": {"flip": False}}


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
    bias: float = 0.0,
    n_objects: int = 100,
    classes: Sequence[str] = CLASSES,
    weights: str = "imagenet",
    n_groups: int | None = None,
    **facts: Any,
) -> pd.DataFrame:
    """Write DATASET/LABEL as stage train does, a cell of the matrix unless told otherwise; returns the predictions.

    Every object is a group of its own, unless ``n_groups`` says how many there are.
    In a text of ``facts`` {label} stands for the folder's name.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(classes), n_objects)
    logits = rng.normal(size=(n_objects, len(classes)))
    logits[np.arange(n_objects), labels] += skill
    logits[:, 0] += bias
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    split = rng.permutation(["train"] * (n_objects // 2) + ["val"] * (n_objects // 4) + ["test"] * (n_objects // 4))
    predictions = pd.DataFrame(
        {"id": [f"12376{i:014d}" for i in range(n_objects)], "split": split, "label": [classes[k] for k in labels]}
    )
    predictions.insert(2, "group", _groups(predictions["id"], n_groups))
    for k, name in enumerate(classes):
        predictions[f"p_{name}"] = probabilities[:, k]
    folder.mkdir(parents=True)
    predictions.to_csv(folder / "predictions.csv", index=False, float_format="%.6f")
    _write_rest(folder, "accuracy", predictions, list(classes), weights, facts)
    return predictions


def write_fractions(
    folder: Path, *, seed: int = 0, error: float = 0.05, n_objects: int = 80, **facts: Any
) -> pd.DataFrame:
    """Write DATASET/LABEL as a single run of vote fractions; returns the predictions."""
    rng = np.random.default_rng(seed)
    answers = np.concatenate([rng.dirichlet(np.ones(len(q.answers)), n_objects) for q in QUESTIONS], axis=1)
    truth = compose(answers)
    predicted = np.clip(truth + rng.normal(0, error, truth.shape), 0, 1)
    split = rng.permutation(["train"] * (n_objects // 2) + ["val"] * (n_objects // 4) + ["test"] * (n_objects // 4))
    predictions = pd.DataFrame({"id": [str(i) for i in range(n_objects)], "split": split, "label": "galaxy"})
    predictions.insert(2, "group", _groups(predictions["id"], None))
    for kind, table in (("p", predicted), ("t", truth)):
        predictions = predictions.assign(**{f"{kind}_{column}": table[:, k] for k, column in enumerate(COLUMNS)})
    folder.mkdir(parents=True)
    predictions.to_csv(folder / "predictions.csv", index=False)
    single = {"run": "{label}", "target": "fractions", "network": "regression_512", "learn": "all", "start": "scratch"}
    _write_rest(folder, "rmse", predictions, ["galaxy"], "scratch", single | facts)
    return predictions


def _groups(ids: pd.Series, n_groups: int | None) -> pd.Series:
    return ids if n_groups is None else pd.Series([f"field-{i % n_groups}" for i in range(len(ids))])


def _write_rest(
    folder: Path, measure: str, predictions: pd.DataFrame, classes: list[str], weights: str, facts: dict[str, Any]
) -> None:
    epoch = np.arange(1, 4)
    columns = {"epoch": epoch, measure: 0.3 * epoch, "loss": 1 / epoch, f"val_{measure}": 0.2 * epoch}
    pd.DataFrame({**columns, "val_loss": 1.2 / epoch}).to_csv(folder / "history.csv", index=False)
    (folder / "model.h5").write_bytes(b"network")
    _write_packed(folder, predictions, classes, facts.get("target", "class"))
    split = predictions["split"]
    counts = {
        s: {c: int(((split == s) & (predictions["label"] == c)).sum()) for c in classes} for s in sorted(set(split))
    }
    described = {
        "run": f"{facts.get('dataset', folder.parent.name)}-{folder.name}",
        "dataset": folder.parent.name,
        "network": folder.name,
        "weights": weights,
        "start": "scratch" if weights == "scratch" else "pretrained",
        "learn": "all" if weights == "scratch" else "head",
        "target": "class",
        "kind": "uint8",
        "image_shape": [12, 12, 3],
        "params": PARAMS,
        "n_parameters": 3228864,
        "n_images": len(predictions),
        "n_test_images": int((split == "test").sum()),
        "tested_on": "test",
        "class_counts": counts,
        "n_skipped": 2,
        "n_dropped": 1,
        "classes": classes,
    } | {name: value.format(label=folder.name) if isinstance(value, str) else value for name, value in facts.items()}
    (folder / "run.json").write_text(json.dumps(described))


def write_seen(folder: Path, predictions: pd.DataFrame) -> None:
    """Give a run of ``write_trained`` or ``write_fractions`` a network that can be drawn."""
    from tests.tiny_networks import tiny_network  # Keras takes seconds to import

    facts = json.loads((folder / "run.json").read_text())
    (folder / "model.h5").write_bytes(tiny_network(len(facts["classes"]) if facts["target"] == "class" else None))


def _write_packed(folder: Path, predictions: pd.DataFrame, classes: list[str], target: Target) -> None:
    """Write the images that a run answers to, every second one with a position, where another run has not yet."""
    packed = folder.parents[3] / "data/packed" / folder.parent.name
    if packed.exists():
        return
    packed.mkdir(parents=True)
    n = len(predictions)
    np.save(packed / "images.npy", np.random.default_rng(5).integers(0, 256, (n, 12, 12, 3), dtype=np.uint8))
    rows = predictions[["id", "label"]].assign(image=np.arange(n), ra_deg=180.0 + np.arange(n) / n, dec_deg=-1.25)
    rows.loc[1::2, "dec_deg"] = np.nan
    card = DatasetCard("uint8", ("r", "g", "b"), (), tuple(classes), None, 0, target=target)
    truth = [f"t_{column}" for column in COLUMNS]
    write_rows(packed, rows, card, [], None if target == "class" else predictions[truth].to_numpy(np.float32))


def planned(trained: Path, *names: str) -> list[PlannedRun]:
    """Return the plan by which folders, each ``DATASET/LABEL``, were trained; one that is missing is a cell."""
    return [_planned(trained / name) for name in names]


def _planned(folder: Path) -> PlannedRun:
    dataset, label = folder.parent.name, folder.name
    cell = f"{dataset}-{label}"
    path = folder / "run.json"
    facts = json.loads(path.read_text()) if path.exists() else {"run": cell, "params": PARAMS}
    return PlannedRun(
        name=facts["run"],
        dataset=dataset,
        label=label,
        settings=facts["params"],
        reference=facts["params"].get("origin", {}).get("run"),
        is_cell=facts["run"] == cell,
    )
