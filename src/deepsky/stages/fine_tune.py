"""Stage fine_tune: a pretrained backbone, trained on from its weights: the head first, then as much as is wanted."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from deepsky.datasets.packed import Packed, open_packed
from deepsky.evaluation.galleries import draw_pictures
from deepsky.networks import BACKBONES, choose
from deepsky.networks.finetune import build_tail_of, unfreeze
from deepsky.networks.weights_card import read_weights_card
from deepsky.tracking.training import track_training
from deepsky.training.explain import check_pictures
from deepsky.training.features import image_spec
from deepsky.training.image_fit import Phase
from deepsky.training.image_job import ImageJob, colour_front
from deepsky.training.job import read_split
from deepsky.training.recipes import FineTuneParams, answer_of


def run(
    recipe: str,
    params: FineTuneParams,
    experiment: str,
    data: Mapping[str, Any],
    *,
    packed: Path,
    split: Path,
    weights: Path,
    out: Path,
) -> None:
    """Fine-tune the recipe's network and write it with its history, predictions, facts and pictures.

    Args:
        recipe: its name; so is the run called.
        params: of the recipe.
        experiment: MLflow experiment.
        data: the sections of params.yaml that shaped the split, logged with the run.
        packed: the dataset.
        split: its split.
        weights: folder of the backbone's weights.
        out: folder of the trained network.

    Raises:
        DataError: an input is missing or does not fit the others.
        ConfigError: the recipe does not fit the dataset, or the loss is no longer finite.
        WeightsError: the weights cannot be read or do not fit.
        TrackingError: the MLflow store cannot be used.
    """
    opened = open_packed(packed)
    job = make_job(recipe, params, data, opened, read_split(split, opened), weights)
    check_pictures(job.tail, job.split)

    def draw(folder: Path) -> None:
        draw_pictures(folder, opened, job.front, job.tail, seed=params.seed)

    figures = track_training(job, experiment, out, network=params.network, tags={"way": job.way}, draw=draw)
    print(job.summary(figures))


def make_job(
    recipe: str,
    params: FineTuneParams,
    data: Mapping[str, Any],
    packed: Packed,
    split: npt.NDArray[np.str_],
    weights: Path,
) -> ImageJob:
    """Build what is to be trained.

    Args:
        recipe: its name.
        params: of the recipe.
        data: more settings to write down.
        packed: the dataset.
        split: ``train``, ``val`` or ``test`` of each row; there may be no val where nothing is chosen by it.
        weights: folder of the backbone's weights.

    Raises:
        ConfigError: the recipe does not fit the dataset or the network.
        WeightsError: the weights cannot be read or do not fit.
    """
    backbone, answer = choose(BACKBONES, params.network), answer_of(params, packed.card)
    card = read_weights_card(weights)

    def build_tail() -> keras.Model:
        return build_tail_of(
            backbone,
            params.input_size_px,
            weights / "weights.h5",
            frozen_norm=params.norm == "inference",
            hidden_units=params.hidden_units,
            dropout=params.dropout,
            seed=params.seed,
            answer=answer,
        )

    n_blocks = None if params.unfreeze == "all" else params.unfreeze
    phases = [Phase(params, lambda tail: unfreeze(tail, backbone, n_blocks))]
    if params.head_epochs:
        head = replace(params, epochs=params.head_epochs, learning_rate=params.head_learning_rate, schedule="constant")
        phases.insert(0, Phase(head, lambda tail: unfreeze(tail, backbone, 0)))
    tail = build_tail()
    phases[-1].release(tail)
    return ImageJob(
        dataset=params.dataset,
        network=recipe,
        weights=card.weights,
        way="fine_tune",
        packed=packed,
        split=split,
        front=colour_front(image_spec(packed), params.input_size_px),
        tail=tail,
        params=params,
        settings={"recipe": asdict(params), **data},
        build_tail=build_tail,
        phases=tuple(phases),
        top=255.0,
    )
