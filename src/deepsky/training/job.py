"""One dataset x network, fitted and written to a folder: what every train stage does, whatever it learns from."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.datasets.packed import Packed
from deepsky.errors import DataError
from deepsky.networks.heads import join
from deepsky.training.features import image_spec
from deepsky.training.fit import SPLITS, Examples, FitParams, fit
from deepsky.training.saved import ModelCard, save_network

FLOAT_FORMAT = "%.6f"


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        dataset: its name.
        network: a key of the registries.
        weights: what the front started from; ``scratch`` where it has no weights.
        packed: the dataset.
        split: ``train``, ``val`` or ``test`` of each row of the dataset, (n_rows,).
        front: image -> inputs of the tail; nothing in it trains.
        tail: inputs -> probabilities; trained in place.
        inputs: the front's output for every distinct image, float32.
        params: how the tail is fitted.
        settings: every parameter that shaped the result, nested as in params.yaml.
    """

    dataset: str
    network: str
    weights: Literal["imagenet", "custom", "random", "scratch"]
    packed: Packed
    split: npt.NDArray[np.str_]
    front: keras.Model
    tail: keras.Model
    inputs: npt.NDArray[np.float32]
    params: FitParams
    settings: Mapping[str, Any]


def read_split(path: Path, packed: Packed) -> npt.NDArray[np.str_]:
    """Return the split of each row of a dataset.

    Raises:
        DataError: not a split file, or one of other objects.
    """
    remedy = "run dvc repro to write it again"
    try:
        table = pd.read_csv(path, dtype=str).set_index("id")["split"]
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
        "classes": list(card.classes),
        "kind": card.kind,
        "bands": list(card.bands),
        "image_shape": list(job.packed.images.shape[1:]),
        "n_images": len(job.packed.images),
        "n_objects": len(job.packed.rows),
        "n_skipped": card.n_skipped,
        "crop_px": card.crop_px,
        "n_parameters": job.front.count_params() + job.tail.count_params(),
        "n_trained_parameters": int(sum(np.prod(weight.shape) for weight in job.tail.trainable_weights)),
        "class_counts": counts,
        "params": json.loads(json.dumps(job.settings)),
    }


def train(job: Job, folder: Path, callbacks: Sequence[keras.callbacks.Callback] = ()) -> dict[str, float]:
    """Fit the tail and write model.h5, history.csv, predictions.csv and run.json.

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
    rows, card = job.packed.rows, job.packed.card
    examples = Examples(
        job.inputs, rows["image"].to_numpy(np.int64), job.packed.labels, job.split, n_classes=len(card.classes)
    )
    started = time.perf_counter()
    history = fit(job.tail, examples, job.params, callbacks)
    training_s = time.perf_counter() - started
    write_csv(history, folder / "history.csv")
    write_csv(_predictions(job), folder / "predictions.csv")
    (folder / "run.json").write_text(json.dumps(describe(job), indent=2) + "\n")
    save_network(folder / "model.h5", join(job.front, job.tail, job.network), _model_card(job))
    n_fitted = int((job.split == "train").sum()) * job.params.epochs
    kept = history.iloc[-1] if job.params.keep == "last" else history.loc[history["val_loss"].idxmin()]
    kept = kept.rename({"epoch": "kept_epoch"})
    return {"training_s": training_s, "images_per_s": n_fitted / training_s, **kept.to_dict()}


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write numbers with a fixed number of digits, so that equal results are equal bytes."""
    table.to_csv(path, index=False, float_format=FLOAT_FORMAT, lineterminator="\n")


def _predictions(job: Job) -> pd.DataFrame:
    """One row per object of every split: id, split, label and the probability of each class."""
    rows = job.packed.rows
    # Rows that share an image share its probabilities: predict once per image.
    per_image = job.tail.predict(job.inputs, batch_size=max(256, job.params.batch_size), verbose=0)
    probabilities = per_image[rows["image"].to_numpy(np.int64)]
    names = [f"p_{name}" for name in job.packed.card.classes]
    left = pd.DataFrame({"id": rows["id"], "split": job.split, "label": rows["label"]})
    return pd.concat([left, pd.DataFrame(probabilities, columns=names, index=left.index)], axis=1)


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
    )
