"""Build the training of a recipe."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import numpy.typing as npt

from deepsky.datasets.packed import Packed
from deepsky.networks.backbone import build_features
from deepsky.networks.finetune import build_tail_of, unfreeze
from deepsky.networks.heads import Answer, build_head
from deepsky.networks.inputs import colour_front, stretched_front
from deepsky.networks.registry import SCRATCH, find_backbone, find_scratch
from deepsky.networks.weights_card import read_weights_card
from deepsky.parallel import KERAS_LOCK
from deepsky.training.answers import answer_of
from deepsky.training.fit import Phase
from deepsky.training.job import Job
from deepsky.training.predict import image_spec
from deepsky.training.recipe import Recipe
from deepsky.training.view_features import ViewFeatures

_Parts = tuple[keras.Model, Callable[[], keras.Model]]


def make_job(
    run: str,
    recipe: Recipe,
    packed: Packed,
    split: npt.NDArray[np.str_],
    *,
    weights: Path,
    views: ViewFeatures | None = None,
) -> Job:
    """Build what is to be trained.

    Args:
        run: its name.
        recipe: how the network learns.
        packed: the dataset.
        split: ``train``, ``val`` or ``test`` of each row; there may be no val where nothing is chosen by it.
        weights: folder of the network's pretrained weights; not read where the recipe starts from scratch.
        views: what the frozen network saw of the images, where only a head learns.

    Raises:
        ConfigError: the recipe does not fit the dataset or the network.
        WeightsError: the weights cannot be read or do not fit.
        DataError: the features are those of another number of test views.
    """
    own_head = recipe.network in SCRATCH
    kind: Literal["imagenet", "custom", "random", "scratch"] = "scratch"
    phases: tuple[Phase, ...] = (Phase(recipe),)
    top: float | None = None
    if recipe.start == "pretrained":
        kind = read_weights_card(weights).weights
    if recipe.of_head:
        front, build_tail = _of_head(recipe, packed, weights / "weights.h5", views)
    elif own_head:
        front, build_tail = _of_scratch(recipe, packed)
        top = None if packed.card.kind == "flux" else 1.0
    else:
        front, build_tail = _of_backbone(recipe, packed, weights / "weights.h5")
        phases, top = _phases(recipe), 255.0
    tail = build_tail()
    phases[-1].release(tail)
    return Job(
        run=run,
        recipe=recipe,
        own_head=own_head,
        weights=kind,
        packed=packed,
        split=split,
        front=front,
        tail=tail,
        build_tail=build_tail,
        phases=phases,
        top=top,
        views=views,
    )


def _of_head(recipe: Recipe, packed: Packed, weights_file: Path, views: ViewFeatures | None) -> _Parts:
    """Return the frozen network, and what builds the head on its features."""
    assert views is not None
    n_features, answer = views.plain.shape[1], answer_of(recipe, packed.card)
    front = build_features(find_backbone(recipe.network), image_spec(packed), recipe.input_size_px, weights_file)

    def build() -> keras.Model:
        return head_of(recipe, n_features, answer)

    return front, build


def head_of(recipe: Recipe, n_features: int, answer: Answer) -> keras.Model:
    """Build the head of a recipe: features -> answer.

    Args:
        recipe: of the head.
        n_features: length of a feature vector.
        answer: what the head ends in.
    """
    return build_head(
        n_features,
        answer,
        recipe.hidden_units,
        recipe.activation,
        dropout=recipe.dropout,
        batch_norm=recipe.batch_norm,
        l2=recipe.l2,
        seed=recipe.seed,
    )


def _of_scratch(recipe: Recipe, packed: Packed) -> _Parts:
    """Return the stretch of the images, and what builds a network that ends in layers of its own."""
    front = stretched_front(image_spec(packed), recipe.input_size_px)
    build_tail, answer = find_scratch(recipe.network), answer_of(recipe, packed.card)

    def build() -> keras.Model:
        with KERAS_LOCK, _seeded_layers(recipe.seed):
            return build_tail(front.output_shape[1:], answer)

    return front, build


@contextmanager
def _seeded_layers(seed: int) -> Iterator[None]:
    """Let the layers that are made in the block follow from a seed, whatever other threads do.

    Keras takes the seed of each layer from Python's generator of the whole process. A thread that draws from it in the
    meantime, as an engine's may, would change the layers behind: this thread draws from one of its own.
    """
    keras.utils.set_random_seed(seed)
    own, of_all, thread = random.Random(seed).randint, random.randint, threading.get_ident()

    def randint(low: int, high: int) -> int:
        return (own if threading.get_ident() == thread else of_all)(low, high)

    random.randint = randint  # type: ignore[assignment]
    try:
        yield
    finally:
        random.randint = of_all


def _of_backbone(recipe: Recipe, packed: Packed, weights_file: Path) -> _Parts:
    """Return the colours of the images, and what builds a backbone that learns, with its head."""
    answer, pretrained = answer_of(recipe, packed.card), recipe.start == "pretrained"

    def build() -> keras.Model:
        return build_tail_of(
            find_backbone(recipe.network),
            recipe.input_size_px,
            weights_file if pretrained else None,
            frozen_norm=pretrained and recipe.norm == "inference",
            hidden_units=recipe.hidden_units,
            dropout=recipe.dropout,
            seed=recipe.seed,
            answer=answer,
        )

    return colour_front(image_spec(packed), recipe.input_size_px), build


def _phases(recipe: Recipe) -> tuple[Phase, ...]:
    """Let first the head learn, where it is to, then what is to learn for good."""
    if recipe.start == "scratch":
        return (Phase(recipe),)
    backbone = find_backbone(recipe.network)
    assert recipe.learn != "head"
    n_blocks = None if recipe.learn == "all" else recipe.learn
    whole = Phase(recipe, lambda tail: unfreeze(tail, backbone, n_blocks))
    if not recipe.head_epochs:
        return (whole,)
    head = replace(recipe, epochs=recipe.head_epochs, learning_rate=recipe.head_learning_rate, schedule="constant")
    return Phase(head, lambda tail: unfreeze(tail, backbone, 0)), whole
