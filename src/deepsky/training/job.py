"""One dataset x network, fitted and written to a folder: what every train stage does, whatever it learns from."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.datasets.packed import Packed
from deepsky.errors import DataError
from deepsky.networks.heads import join
from deepsky.training.features import ROWS_AT_ONCE, image_spec, predict_batches
from deepsky.training.fit import SPLITS, Examples, FitParams, fit
from deepsky.training.saved import ModelCard, save_network

FLOAT_FORMAT = "%.6f"


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """One training.

    Attributes:
        dataset: its name.
        network: a key of the registries, or what the run calls it.
        weights: what it started from; ``scratch`` where it drew them itself.
        way: what of the network learns, and from what.
        packed: the dataset.
        split: ``train``, ``val`` or ``test`` of each row of the dataset, (n_rows,).
        front: image -> inputs of the tail; nothing in it trains.
        tail: inputs -> answer; trained in place.
        params: how the tail is fitted.
        settings: every parameter that shaped the result, nested as in params.yaml.
    """

    dataset: str
    network: str
    weights: Literal["imagenet", "custom", "random", "scratch"]
    way: Literal["frozen", "fine_tune", "from_scratch"]
    packed: Packed
    split: npt.NDArray[np.str_]
    front: keras.Model
    tail: keras.Model
    params: FitParams
    settings: Mapping[str, Any]

    @abstractmethod
    def fit(self, callbacks: Sequence[keras.callbacks.Callback]) -> pd.DataFrame:
        """Train the tail; return the history, one row per epoch."""

    @abstractmethod
    def answers(self) -> npt.NDArray[np.float32]:
        """Return what the whole network says of every distinct image, (n_images, n_outputs)."""

    def plain_answers(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """Return the answers of some images from one view, (n, n_outputs); None where ``answers`` are just these."""
        return None

    def whole(self) -> keras.Model:
        """Return the network to save: image -> answer."""
        return join(self.front, self.tail, self.network)

    def kept_epoch(self, history: pd.DataFrame) -> int:
        """Return the epoch whose weights stayed."""
        last = int(history["epoch"].iloc[-1])
        return last if self.params.keep == "last" else int(history.loc[history["val_loss"].idxmin(), "epoch"])


@dataclass(frozen=True, kw_only=True)
class FeatureJob(Job):
    """A tail that learns from what its front made of every image once.

    Attributes:
        inputs: the front's output for every distinct image, float32.
    """

    inputs: npt.NDArray[np.float32]

    def fit(self, callbacks: Sequence[keras.callbacks.Callback]) -> pd.DataFrame:
        """Train the tail."""
        card, image = self.packed.card, self.packed.rows["image"].to_numpy(np.int64)
        examples = Examples(self.inputs, image, self.packed.labels, self.split, n_classes=len(card.classes))
        return fit(self.tail, examples, self.params, callbacks)

    def answers(self) -> npt.NDArray[np.float32]:
        """Predict from the inputs."""
        return predict_batches(self.tail, self.inputs, max(ROWS_AT_ONCE, self.params.batch_size))


def read_split(path: Path, packed: Packed) -> npt.NDArray[np.str_]:
    """Return the split of each row of a dataset.

    Raises:
        DataError: not a split file, or one of other objects.
    """
    remedy = "run dvc repro to write it again"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("id")["split"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(path, f"is not a split ({error})", remedy) from error
    split = packed.rows["id"].map(table).fillna("").to_numpy(str)
    unknown = np.flatnonzero(~np.isin(split, SPLITS))
    if len(unknown):
        where = packed.rows["id"].iloc[unknown[0]]
        raise DataError(path, f"object {where} has the split {str(split[unknown[0]])!r}", remedy)
    return split


def describe(job: Job) -> dict[str, Any]:
    """Return run.json: parameters and facts, the same at every run; no times, hosts or run ids."""
    card, labels = job.packed.card, job.packed.labels
    counts = {
        split: {name: int(((job.split == split) & (labels == code)).sum()) for code, name in enumerate(card.classes)}
        for split in SPLITS
    }
    return {
        "dataset": job.dataset,
        "network": job.network,
        "weights": job.weights,
        "way": job.way,
        "target": card.target,
        "classes": list(card.classes),
        "kind": card.kind,
        "bands": list(card.bands),
        "image_shape": list(job.packed.images.shape[1:]),
        "n_images": len(job.packed.images),
        "n_objects": len(job.packed.rows),
        "n_skipped": card.n_skipped,
        "n_dropped": sum(card.n_dropped.values()),
        "crop_px": card.crop_px,
        "denoise": card.denoise,
        "denoise_strength": card.denoise_strength,
        "n_parameters": job.front.count_params() + job.tail.count_params(),
        "n_trained_parameters": int(sum(np.prod(weight.shape) for weight in job.tail.trainable_weights)),
        "class_counts": counts,
        "params": json.loads(json.dumps(job.settings)),
    }


def train(job: Job, folder: Path, callbacks: Sequence[keras.callbacks.Callback] = ()) -> dict[str, float]:
    """Fit the tail and write model.h5, history.csv, predictions.csv (and predictions_plain.csv) and run.json.

    Args:
        job: what is trained.
        folder: an empty folder.
        callbacks: Keras' callbacks that watch the fit.

    Returns:
        ``training_s`` (seconds of the fit), ``images_per_s`` (training examples per second, over all epochs) and the
        figures of the epoch whose weights were kept, ``kept_epoch``.

    Raises:
        DataError: train or val holds no rows, or an input is not finite.
        ConfigError: the loss or a weight is no longer finite.
    """
    started = time.perf_counter()
    history = job.fit(callbacks)
    training_s = time.perf_counter() - started
    kept_epoch = job.kept_epoch(history)
    write_csv(history, folder / "history.csv")
    _write_predictions(job, folder)
    facts = describe(job) | {"n_epochs": len(history), "kept_epoch": kept_epoch}
    (folder / "run.json").write_text(json.dumps(facts, indent=2) + "\n")
    save_network(folder / "model.h5", job.whole(), _model_card(job))
    n_fitted = int((job.split == "train").sum()) * len(history)
    kept = history.set_index("epoch").loc[kept_epoch].to_dict()
    return {"training_s": training_s, "images_per_s": n_fitted / training_s, "kept_epoch": kept_epoch, **kept}


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write numbers with a fixed number of digits, so that equal results are equal bytes."""
    table.to_csv(path, index=False, float_format=FLOAT_FORMAT, lineterminator="\n")


def _write_predictions(job: Job, folder: Path) -> None:
    """Write what the network says of every row, and of the test rows from one view where it takes the mean of many."""
    image = job.packed.rows["image"].to_numpy(np.int64)
    # Rows that share an image share its answer: predict once per image.
    write_csv(_predictions(job, np.arange(len(image)), job.answers()[image]), folder / "predictions.csv")
    test = np.flatnonzero(job.split == "test")
    images, place = np.unique(image[test], return_inverse=True)
    plain = job.plain_answers(images)
    if plain is not None:
        write_csv(_predictions(job, test, plain[place]), folder / "predictions_plain.csv")


def _predictions(job: Job, rows: npt.NDArray[np.int64], answers: npt.NDArray[np.float32]) -> pd.DataFrame:
    """Table id, split, label and the answers of some rows; of vote fractions also the truth."""
    card, table = job.packed.card, job.packed.rows.iloc[rows]
    left = pd.DataFrame({"id": table["id"], "split": job.split[rows], "label": table["label"]})
    names = COLUMNS if card.target == "fractions" else card.classes
    parts = [left, pd.DataFrame(answers, columns=[f"p_{name}" for name in names], index=left.index)]
    if job.packed.fractions is not None:
        truth = job.packed.fractions[rows]
        parts.append(pd.DataFrame(truth, columns=[f"t_{name}" for name in names], index=left.index))
    return pd.concat(parts, axis=1)


def _model_card(job: Job) -> ModelCard:
    spec, card = image_spec(job.packed), job.packed.card
    return ModelCard(
        dataset=job.dataset,
        network=job.network,
        weights=job.weights,
        classes=card.classes,
        kind=card.kind,
        bands=card.bands,
        colour_bands=card.colour_bands,
        image_shape=spec.shape,
        pixel_scale_arcsec=card.pixel_scale_arcsec,
        crop_px=card.crop_px,
        target=card.target,
        denoise=card.denoise,
        denoise_strength=card.denoise_strength,
    )
