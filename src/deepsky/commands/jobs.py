"""Trainings of a run of params.yaml on other splits than its own."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deepsky.datasets.packed import Packed
from deepsky.experiment.runs import Run
from deepsky.networks.params import BatchSize
from deepsky.training.build import make_job
from deepsky.training.job import Job
from deepsky.training.recipe import Recipe
from deepsky.training.view_features import read_views, write_views

MakeJob = Callable[[npt.NDArray[np.str_]], Job]  # split of each row -> what is to be trained


def packed_of(recipe: Recipe) -> Path:
    """Return the folder of a recipe's dataset."""
    return Path("data/packed") / recipe.dataset


def split_of(recipe: Recipe) -> Path:
    """Return the split of a recipe's dataset."""
    return Path("data/splits") / f"{recipe.dataset}.csv"


def weights_of(recipe: Recipe) -> Path:
    """Return the folder of the weights that a recipe starts from, unless it starts from scratch."""
    return Path("models/pretrained") / recipe.network


@contextmanager
def job_maker(run: Run, packed: Packed, images: npt.NDArray[np.int64], batch_size: BatchSize) -> Iterator[MakeJob]:
    """Give what builds the run's training for any split of its dataset.

    A network of which only a head learns sees the images once, before the first training.

    Args:
        run: what to train.
        packed: its dataset.
        images: the distinct images that train rows of any of the splits show, ascending.
        batch_size: images per step where a frozen network sees them.

    Raises:
        ConfigError: the recipe does not fit the dataset or the network.
        WeightsError: the weights are missing or do not fit.
        DataError: a feature is not finite.
    """
    recipe, weights = run.recipe, weights_of(run.recipe)
    if not recipe.of_head:
        yield lambda split: make_job(run.name, recipe, packed, split, weights=weights)
        return
    with tempfile.TemporaryDirectory() as folder:
        seen, file = Path(folder) / recipe.views.name, weights / "weights.h5"
        write_views(recipe.network, recipe.views, packed, file, images, seen, batch_size=batch_size)
        views = read_views(seen, len(packed.images))
        yield lambda split: make_job(run.name, recipe, packed, split, weights=weights, views=views)
