"""Stage frozen: a head on the cached features of a frozen backbone and of augmented views."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deepsky.datasets.packed import Packed, open_packed
from deepsky.evaluation.galleries import draw_pictures
from deepsky.networks import BACKBONES, choose
from deepsky.networks.backbone import BackboneParams, build_features
from deepsky.networks.heads import build_head
from deepsky.networks.weights_card import read_weights_card
from deepsky.tracking.training import track_training
from deepsky.training.explain import check_pictures, frozen_tail
from deepsky.training.features import image_spec
from deepsky.training.job import read_split
from deepsky.training.recipes import FrozenParams, answer_of
from deepsky.training.view_features import ViewFeatures, read_views
from deepsky.training.view_job import ViewJob, as_image_recipe


def run(
    recipe: str,
    params: FrozenParams,
    experiment: str,
    data: Mapping[str, Any],
    *,
    packed: Path,
    split: Path,
    features: Path,
    weights: Path,
    out: Path,
) -> None:
    """Fit the recipe's head and write the whole network with its history, predictions, facts and pictures.

    Args:
        recipe: its name; so is the run called.
        params: of the recipe.
        experiment: MLflow experiment.
        data: the sections of params.yaml that shaped the split, logged with the run.
        packed: the dataset.
        split: its split.
        features: folder that stage frozen_features wrote.
        weights: folder of the backbone's weights.
        out: folder of the trained network.

    Raises:
        DataError: an input is missing or does not fit the others.
        ConfigError: the recipe does not fit the dataset, or the loss is no longer finite.
        WeightsError: the weights cannot be read or do not fit.
        TrackingError: the MLflow store cannot be used.
    """
    opened = open_packed(packed)
    views = read_views(features, len(opened.images))
    job = make_job(recipe, params, data, opened, read_split(split, opened), views, weights)
    shown = frozen_tail(job.front, job.tail)
    check_pictures(shown, job.split)

    def draw(folder: Path) -> None:
        draw_pictures(folder, opened, None, shown, seed=params.seed)

    figures = track_training(job, experiment, out, network=params.network, tags={"way": job.way}, draw=draw)
    print(job.summary(figures))


def make_job(
    recipe: str,
    params: FrozenParams,
    data: Mapping[str, Any],
    packed: Packed,
    split: npt.NDArray[np.str_],
    views: ViewFeatures,
    weights: Path,
) -> ViewJob:
    """Build what is to be trained.

    Args:
        recipe: its name.
        params: of the recipe.
        data: more settings to write down.
        packed: the dataset.
        split: ``train``, ``val`` or ``test`` of each row; there may be no val where nothing is chosen by it.
        views: what the backbone saw of the images.
        weights: folder of the backbone's weights.

    Raises:
        ConfigError: the recipe does not fit the dataset or the network.
        WeightsError: the weights cannot be read or do not fit.
    """
    backbone, fitted = choose(BACKBONES, params.network), as_image_recipe(params, packed.card)
    size = BackboneParams(params.input_size_px)
    head = build_head(
        views.plain.shape[1],
        answer_of(fitted, packed.card),
        params.hidden_units,
        params.activation,
        dropout=params.dropout,
        batch_norm=params.batch_norm,
        l2=params.l2,
        seed=params.seed,
    )
    return ViewJob(
        dataset=params.dataset,
        network=recipe,
        weights=read_weights_card(weights).weights,
        way="frozen",
        packed=packed,
        split=split,
        front=build_features(backbone, image_spec(packed), size, weights / "weights.h5"),
        tail=head,
        params=params,
        settings={"recipe": asdict(params), **data},
        recipe=fitted,
        views=views,
    )
