"""A project with one small dataset whose features are drawn instead of computed: a search trains on it in seconds."""

import hashlib
import math
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from deepsky.datasets.packed import DatasetCard, create_images, write_rows
from deepsky.training.examples import Examples
from deepsky.training.recipe import Recipe
from deepsky.training.trials import EpochScore, OnEpoch, Outcome
from deepsky.tuning.params import FloatRange, HeadSpace, ImageSpace, IntRange, TuneParams
from tests.trained_folders import _empty_store

ROOT = Path(__file__).resolve().parents[1]
DATASET, NETWORK = "blobs", "mobilenet"
RUN, SIZE_PX = f"{DATASET}-{NETWORK}", 32
CLASSES = ("GALAXY", "QSO", "STAR")
TUNE: dict[str, Any] = {"run": RUN, "trials": 8, "epochs": 3, "population": 4, "heartbeat_s": 1}
SMALL_HEADS: dict[str, Any] = {
    "layers": {"low": 0, "high": 1}, "units": [8, 16], "activation": ["relu"], "batch_norm": [False],
    "batch_size": [32],
}  # fmt: skip

# For tests of a part: every dimension is searched, and the run lies in the space.
TUNE_PARAMS = TuneParams(
    run=RUN, trials=100, epochs=10, patience=None, seed=1, sampler="tpe", pruner="hyperband",
    objectives=("f1_macro",), folds=1, repeats=1, population=16, backend="jax",
    storage="sqlite:///studies.db", heartbeat_s=1,
    heads=HeadSpace(
        layers=IntRange(0, 4), units=IntRange(16, 1024, log=True), activation=("relu", "gelu", "tanh"),
        dropout=FloatRange(0.0, 0.6), batch_norm=(False, True), l2=FloatRange(1e-7, 1e-2, log=True),
        label_smoothing=FloatRange(0.0, 0.2), optimizer=("adam", "adamw", "adamax", "sgd"),
        learning_rate=FloatRange(1e-5, 1e-1, log=True), schedule=("constant", "cosine"),
        weight_decay=FloatRange(1e-4, 1e-1, log=True), momentum=FloatRange(0.5, 0.99), batch_size=(32, 64, 128),
    ),
    images=ImageSpace(
        label_smoothing=FloatRange(0.0, 0.2), optimizer=("adam", "adamw", "adamax", "sgd"),
        learning_rate=FloatRange(1e-5, 1e-1, log=True), schedule=("constant", "cosine"),
        weight_decay=FloatRange(1e-4, 1e-1, log=True), momentum=FloatRange(0.5, 0.99), batch_size=(16, 32),
        augment_strength=FloatRange(0.0, 2.0), learn=(1, 2, "all"),
    ),
)  # fmt: skip
HEAD = Recipe(dataset=DATASET, network=NETWORK, hidden_units=(64, 32), l2=1e-5)


def make_project(root: Path, *, n_rows: int = 120, n_features: int = 8, **tune: Any) -> Path:
    """Write params.yaml, dvc.yaml, dvc.lock, an empty store and the files that a search reads.

    Args:
        root: an empty folder.
        n_rows: objects, half of them for training.
        n_features: length of a feature vector.
        tune: keys of section ``tune`` that differ from TUNE.
    """
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    labels = np.arange(n_rows) % len(CLASSES)
    write_params(root, **tune)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "mlflow.db").write_bytes(_empty_store())
    packed = root / "data" / "packed" / DATASET
    packed.mkdir(parents=True)
    images = create_images(packed, (n_rows, 8, 8, 3), np.uint8)
    images[:] = (60 * labels[:, None, None, None] + rng.integers(0, 60, images.shape)).astype(np.uint8)
    names = [f"o{n:04d}" for n in range(n_rows)]
    rows = pd.DataFrame({"id": names, "label": np.array(CLASSES)[labels], "image": np.arange(n_rows)})
    write_rows(packed, rows, DatasetCard("uint8", ("r", "g", "b"), (), CLASSES, 0.396, 0), [])
    group = [f"g{n // 6}" for n in range(n_rows)]
    split = np.array(["train", "train", "val", "test", "train", "val"])[(np.arange(n_rows) // 6) % 6]
    (root / "data" / "splits").mkdir()
    table = pd.DataFrame({"id": names, "split": split, "group": group})
    table.to_csv(root / "data" / "splits" / f"{DATASET}.csv", index=False)
    features = rng.normal(size=(n_rows, n_features)).astype(np.float32)
    features[:, :3] += 1.5 * np.eye(3, dtype=np.float32)[labels]
    write_features(root, features)
    write_lock(root)
    return root


def write_features(root: Path, plain: np.ndarray, network: str = NETWORK, key: str = "drawn") -> None:
    """Write features of the plain images as stage features does, where there are no random views."""
    folder = root / "data" / "features" / DATASET / network / f"{SIZE_PX}px"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "sides.npy", plain[None])
    (folder / "key.txt").write_text(key)
    np.save(folder / "views.npy", np.empty((0, 0, plain.shape[1]), np.float32))
    np.save(folder / "mirrored.npy", np.empty((0, 0), bool))
    np.save(folder / "viewed.npy", np.empty(0, np.int64))


def write_params(root: Path, **tune: Any) -> None:
    """Write the project's params.yaml with a small search; heads__KEY and images__KEY reach into the spaces."""
    yaml = YAML(typ="safe")
    section = yaml.load(ROOT / "params.yaml")["tune"] | TUNE
    section["heads"] |= SMALL_HEADS
    for key, value in tune.items():
        *parents, last = key.split("__")
        place = section
        for parent in parents:
            place = place[parent]
        place[last] = value
    pictures = {"format": "images", "source": "data/raw/blobs", "id_column": "id", "label_column": "class",
                "classes": list(CLASSES), "size_px": 8, "group_by": "image"}  # fmt: skip
    params = {
        "datasets": {"pictures": {DATASET: pictures}},
        "train": {"input_size_px": SIZE_PX, "hidden_units": [8], "l2": 1e-5},
        "networks": {"cnn_small": {"input_size_px": 8}},
        "compare": {"datasets": {DATASET: None}, "networks": {NETWORK: None}},
        "tune": section,
    }
    yaml.dump(params, root / "params.yaml")


def write_lock(root: Path) -> None:
    """Write dvc.lock as DVC would after the stages that wrote the files."""
    split = f"data/splits/{DATASET}.csv"
    outs = [{"path": split, "md5": hashlib.md5((root / split).read_bytes()).hexdigest()}]
    for folder in (f"data/packed/{DATASET}", f"data/features/{DATASET}", "models/pretrained"):
        content = b"".join(path.read_bytes() for path in sorted((root / folder).rglob("*")) if path.is_file())
        outs.append({"path": folder, "md5": f"{hashlib.md5(content).hexdigest()}.dir"})
    YAML(typ="safe").dump({"schema": "2.0", "stages": {"all": {"cmd": "true", "outs": outs}}}, root / "dvc.lock")


class FormulaTrainer:
    """A trainer whose candidates' scores follow from their parameters at once; real ones take seconds to compile.

    A learning rate above ``diverging`` diverges in the second epoch. ``interrupt_at`` sends this process that signal
    when so many scores have been given.
    """

    def __init__(self, diverging: float = 1.0, interrupt_at: int | None = None, number: int = signal.SIGINT) -> None:
        self.diverging, self.interrupt_at, self.signal = diverging, interrupt_at, number
        self.n_scores, self.fitted = 0, list[Any]()

    def train(self, candidates: Sequence[Any], examples: Examples, on_epoch: OnEpoch) -> list[Outcome]:
        """Give each candidate's scores, one candidate after the other."""
        self.fitted += candidates
        return [self._outcome(index, one, on_epoch) for index, one in enumerate(candidates)]

    def _outcome(self, index: int, candidate: Any, on_epoch: OnEpoch) -> Outcome:
        scores: list[EpochScore] = []
        for epoch in range(1, candidate.epochs + 1):
            if candidate.learning_rate > self.diverging and epoch == 2:
                return Outcome(tuple(scores), "diverged", f"val_loss is nan after epoch {epoch}")
            self.n_scores += 1
            if self.n_scores == self.interrupt_at:
                os.kill(os.getpid(), self.signal)
            f1 = 1 / (1 + abs(math.log10(candidate.learning_rate) + 3)) - 0.1 / epoch + 0.01 * candidate.seed
            scores.append(EpochScore(epoch, 1 - f1, f1 / 2, f1, (1 - f1) / 4))
            if not on_epoch(index, scores[-1]):
                return Outcome(tuple(scores), "pruned")
        return Outcome(tuple(scores), "finished")
