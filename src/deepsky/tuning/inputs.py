"""What a search learns from: the files of the pipeline, as dvc.lock has them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.datasets.packed import Packed, open_packed
from deepsky.datasets.splits import fold_splits
from deepsky.errors import DataError
from deepsky.networks import SCRATCH
from deepsky.tracking.lineage import recorded_hashes
from deepsky.training.examples import read_split
from deepsky.training.fit import Examples, FitParams, ScratchParams, TrainParams
from deepsky.training.population import HeadTrainer
from deepsky.training.predict import image_spec, predict_batches, read_features
from deepsky.training.trials import ScratchTrainer, Trainer
from deepsky.tuning.params import TuneParams

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Material:
    """What the candidates of a search are trained by and on.

    Attributes:
        trainer: for candidates of the network's kind.
        folds: the examples, with the split of each fold.
        data: md5 of each input by its path.
    """

    trainer: Trainer[Any]
    folds: Sequence[Examples]
    data: Mapping[str, str]


def read_material(
    dataset: str, network: str, params: TuneParams, reference: FitParams, *, packed: Path, split: Path, features: Path
) -> Material:
    """Read what the candidates learn from.

    Args:
        dataset: its name.
        network: a key of one of the registries.
        params: folds and their seed.
        reference: of the network.
        packed: the dataset.
        split: its split.
        features: of the distinct images, read as a memory map that workers share; not used by a network of SCRATCH.

    Raises:
        DataError: a file is missing, is not the one that dvc.lock has, or does not fit the others.
    """
    stages = {packed: f"split@{dataset}", split: f"split@{dataset}"}
    if isinstance(reference, TrainParams):
        stages[features] = f"features@{dataset}-{network}"
    data = _checked_hashes(stages)
    opened = open_packed(packed)
    assigned = read_split(split, opened)
    if isinstance(reference, ScratchParams):
        chosen = SCRATCH[network]
        front = chosen.build_front(image_spec(opened), reference.input_size_px)
        inputs = predict_batches(front, opened.images, reference.batch_size)
        trainer: Trainer[Any] = ScratchTrainer(chosen.build_tail)
    else:
        inputs, trainer = read_features(features, len(opened.images)), HeadTrainer()
    splits = [assigned]
    if params.folds > 1:
        splits = fold_splits(assigned, opened.labels, _groups(split, opened), params.folds, params.seed)
    image, n_classes = opened.rows["image"].to_numpy(np.int64), len(opened.card.classes)
    folds = [Examples(inputs, image, opened.labels, fold, n_classes) for fold in splits]
    folds[0].check()  # all folds have the same inputs
    return Material(trainer, folds, data)


def _checked_hashes(stages: Mapping[Path, str]) -> dict[str, str]:
    """Return what dvc.lock has of each path, once the files are seen to be those; a stage's name is the remedy."""
    recorded = recorded_hashes([path.as_posix() for path in stages])
    for path, stage in stages.items():
        remedy = f"run dvc repro {stage}"
        if not path.exists():
            raise DataError(path, "does not exist", remedy)
        if path.as_posix() not in recorded:
            raise DataError(path, "is not in dvc.lock", remedy)
        if path.is_file() and _md5(path) != recorded[path.as_posix()]:
            raise DataError(path, "is stale: its hash is not the one in dvc.lock", remedy)
    return recorded


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _groups(split: Path, packed: Packed) -> npt.NDArray[np.str_]:
    """Return the sky group of each row; the split is known to hold every row."""
    table = pd.read_csv(split, dtype=str, keep_default_na=False).set_index("id")
    if "group" not in table:
        raise DataError(split, "has no column group", "run dvc repro to write it again")
    return packed.rows["id"].map(table["group"]).to_numpy(str)
