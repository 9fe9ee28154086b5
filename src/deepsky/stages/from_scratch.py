"""Stage from_scratch: any network, trained from the images alone."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from deepsky.datasets.packed import Packed, open_packed
from deepsky.errors import ConfigError
from deepsky.evaluation.galleries import draw_pictures
from deepsky.networks import BACKBONES, SCRATCH, choose
from deepsky.networks.finetune import build_tail_of
from deepsky.tracking.training import track_training
from deepsky.training.explain import check_pictures
from deepsky.training.features import image_spec
from deepsky.training.image_fit import Phase
from deepsky.training.image_job import ImageJob, colour_front
from deepsky.training.job import read_split
from deepsky.training.recipes import FromScratchParams, answer_of


def run(
    recipe: str,
    params: FromScratchParams,
    experiment: str,
    data: Mapping[str, Any],
    *,
    packed: Path,
    split: Path,
    out: Path,
) -> None:
    """Train the recipe's network and write it with its history, predictions, facts and pictures.

    Args:
        recipe: its name; so is the run called.
        params: of the recipe.
        experiment: MLflow experiment.
        data: the sections of params.yaml that shaped the split, logged with the run.
        packed: the dataset.
        split: its split.
        out: folder of the trained network.

    Raises:
        DataError: an input is missing or does not fit the others.
        ConfigError: the recipe does not fit the dataset, or the loss is no longer finite.
        TrackingError: the MLflow store cannot be used.
    """
    opened = open_packed(packed)
    job = make_job(recipe, params, data, opened, read_split(split, opened))
    check_pictures(job.tail, job.split)

    def draw(folder: Path) -> None:
        draw_pictures(folder, opened, job.front, job.tail, seed=params.seed)

    figures = track_training(job, experiment, out, network=params.network, tags={"way": job.way}, draw=draw)
    print(job.summary(figures))


def make_job(
    recipe: str, params: FromScratchParams, data: Mapping[str, Any], packed: Packed, split: npt.NDArray[np.str_]
) -> ImageJob:
    """Build what is to be trained.

    Args:
        recipe: its name.
        params: of the recipe.
        data: more settings to write down.
        packed: the dataset.
        split: ``train``, ``val`` or ``test`` of each row; there may be no val where nothing is chosen by it.

    Raises:
        ConfigError: the recipe does not fit the dataset, or there is no such network.
    """
    own, answer, size_px = params.network in SCRATCH, answer_of(params, packed.card), params.input_size_px
    choose({**SCRATCH, **BACKBONES}, params.network)
    if own and (params.hidden_units or params.dropout):
        problem = f"{params.network} ends in layers of its own"
        raise ConfigError(f"recipe {recipe}", problem, "set hidden_units: [] and dropout: 0")
    spec = image_spec(packed)
    front = SCRATCH[params.network].build_front(spec, size_px) if own else colour_front(spec, size_px)

    def build_tail() -> keras.Model:
        if own:
            keras.utils.set_random_seed(params.seed)
            return SCRATCH[params.network].build_tail(front.output_shape[1:], answer)
        return build_tail_of(
            BACKBONES[params.network],
            size_px,
            None,
            frozen_norm=False,
            hidden_units=params.hidden_units,
            dropout=params.dropout,
            seed=params.seed,
            answer=answer,
        )

    return ImageJob(
        dataset=params.dataset,
        network=recipe,
        weights="scratch",
        way="from_scratch",
        packed=packed,
        split=split,
        front=front,
        tail=build_tail(),
        params=params,
        settings={"recipe": asdict(params), **data},
        build_tail=build_tail,
        phases=(Phase(params),),
        top=None if own and spec.kind == "flux" else 1.0 if own else 255.0,
    )
