"""What a training leaves behind: the network, its history, its predictions and the facts about it."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.datasets.packed import PROPERTIES
from deepsky.datasets.splits import tested_part
from deepsky.networks.portable import portable
from deepsky.training.examples import SPLITS
from deepsky.training.job import Job
from deepsky.training.predict import image_spec
from deepsky.training.saved import ModelCard, save_network

_DIGITS = 6
FLOAT_FORMAT = f"%.{_DIGITS}f"


def describe(job: Job) -> dict[str, Any]:
    """Return run.json: parameters and facts, the same at every run; no times, hosts or run ids."""
    card, labels, tested = job.packed.card, job.packed.labels, tested_part(job.split)
    counts = {
        split: {name: int(((job.split == split) & (labels == code)).sum()) for code, name in enumerate(card.classes)}
        for split in SPLITS
    }
    return {
        "run": job.run,
        "dataset": job.recipe.dataset,
        "network": job.recipe.network,
        "weights": job.weights,
        "start": job.recipe.start,
        "learn": job.recipe.learn,
        "target": card.target,
        "classes": list(card.classes),
        "kind": card.kind,
        "bands": list(card.bands),
        "image_shape": list(job.packed.images.shape[1:]),
        "n_images": len(job.packed.images),
        "n_objects": len(job.packed.rows),
        "n_test_images": len(np.unique(job.packed.rows["image"].to_numpy()[job.split == tested])),
        "tested_on": tested,
        "n_skipped": card.n_skipped,
        "n_dropped": sum(card.n_dropped.values()),
        "crop_px": card.crop_px,
        "denoise": card.denoise,
        "denoise_strength": card.denoise_strength,
        "n_parameters": job.front.count_params() + portable(job.tail).count_params(),
        "n_trained_parameters": int(sum(np.prod(weight.shape) for weight in job.tail.trainable_weights)),
        "class_counts": counts,
        "params": job.recipe.settings(own_head=job.own_head),
    }


def train(
    job: Job, folder: Path, groups: npt.NDArray[np.str_], callbacks: Sequence[keras.callbacks.Callback] = ()
) -> dict[str, float]:
    """Fit the tail and write model.h5, history.csv, predictions.csv (and predictions_plain.csv) and run.json.

    Args:
        job: what is trained.
        folder: an empty folder.
        groups: what of the split's groups each row belongs to, (n_rows,); they are written beside its answer.
        callbacks: Keras' callbacks that watch the fit.

    Returns:
        ``training_s`` (seconds of the fit), ``images_per_s`` (training examples per second, over all epochs), the
        figures of the epoch whose weights were kept, ``kept_epoch``; and ``temperature_applied`` of a calibrated one.

    Raises:
        DataError: train or val holds no rows, or an input is not finite.
        ConfigError: the loss or a weight is no longer finite.
    """
    started = time.perf_counter()
    history = job.fit(callbacks)
    training_s = time.perf_counter() - started
    came_of_it: dict[str, float] = {"kept_epoch": job.kept_epoch(history)}
    if (temperature := job.calibrate()) is not None:
        came_of_it["temperature_applied"] = round(temperature, _DIGITS)
    write_csv(history, folder / "history.csv")
    _write_predictions(job, folder, groups)
    facts = describe(job) | {"n_epochs": len(history)} | came_of_it
    (folder / "run.json").write_text(json.dumps(facts, indent=2) + "\n")
    save_network(folder / "model.h5", job.whole, _model_card(job))
    n_fitted = int((job.split == "train").sum()) * len(history)
    kept = history.set_index("epoch").loc[came_of_it["kept_epoch"]].to_dict()
    return {"training_s": training_s, "images_per_s": n_fitted / training_s, **came_of_it, **kept}


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write numbers with a fixed number of digits, so that equal results are equal bytes."""
    table.to_csv(path, index=False, float_format=FLOAT_FORMAT, lineterminator="\n")


def _write_predictions(job: Job, folder: Path, groups: npt.NDArray[np.str_]) -> None:
    """Write the answers to every row, and to those tested on from one view where they are the mean of many."""
    image = job.packed.rows["image"].to_numpy(np.int64)
    # Rows that share an image share its answer: predict once per image.
    every = np.arange(len(image))
    write_csv(_predictions(job, every, job.answers()[image], groups), folder / "predictions.csv")
    test = np.flatnonzero(job.split == tested_part(job.split))
    images, place = np.unique(image[test], return_inverse=True)
    plain = job.plain_answers(images)
    if plain is not None:
        write_csv(_predictions(job, test, plain[place], groups), folder / "predictions_plain.csv")


def _predictions(
    job: Job, rows: npt.NDArray[np.int64], answers: npt.NDArray[np.float32], groups: npt.NDArray[np.str_]
) -> pd.DataFrame:
    """Table id, split, group, label and the answers of some rows; of vote fractions also the truth.

    Also what is known of each object (PROPERTIES) and, of classes, what is answered, whether that is right, and how
    probable it is said to be.
    """
    card, table = job.packed.card, job.packed.rows.iloc[rows]
    left = pd.DataFrame({"id": table["id"], "split": job.split[rows], "group": groups[rows], "label": table["label"]})
    if card.target == "class":
        written = np.round(answers.astype(np.float64), _DIGITS)  # whoever reads the table finds the same answers
        left["predicted"] = np.array(card.classes, dtype=object)[written.argmax(axis=1)]
        left["correct"] = left["predicted"] == left["label"]
        left["confidence"] = written.max(axis=1)
    known = [name for name in PROPERTIES if job.packed.rows[name].notna().any()]
    left[known] = table[known]
    names = COLUMNS if card.target == "fractions" else card.classes
    parts = [left, pd.DataFrame(answers, columns=[f"p_{name}" for name in names], index=left.index)]
    if job.packed.fractions is not None:
        truth = job.packed.fractions[rows]
        parts.append(pd.DataFrame(truth, columns=[f"t_{name}" for name in names], index=left.index))
    return pd.concat(parts, axis=1)


def _model_card(job: Job) -> ModelCard:
    spec, card = image_spec(job.packed), job.packed.card
    return ModelCard(
        dataset=job.recipe.dataset,
        network=job.recipe.network,
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
        picture_px=card.picture_px,
    )
