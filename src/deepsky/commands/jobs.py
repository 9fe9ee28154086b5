"""A run of params.yaml with the data it trains on, for commands that train it on splits of their own."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deepsky.datasets.packed import Packed
from deepsky.experiment.experiment import Experiment
from deepsky.networks.registry import SCRATCH
from deepsky.training.build import make_job
from deepsky.training.job import Job
from deepsky.training.recipe import Recipe
from deepsky.training.view_features import read_views, write_views

MakeJob = Callable[[npt.NDArray[np.str_]], Job]  # split of each row -> what is to be trained


@dataclass(frozen=True)
class NamedRun:
    """A run: a cell of ``compare`` or an entry of ``runs``.

    Attributes:
        name: of the run.
        recipe: its settings.
        batch_size: images per step where a frozen network computes features.
    """

    name: str
    recipe: Recipe
    batch_size: int

    @property
    def packed(self) -> Path:
        """Folder of its dataset."""
        return Path("data/packed") / self.recipe.dataset

    @property
    def split(self) -> Path:
        """Split of its dataset."""
        return Path("data/splits") / f"{self.recipe.dataset}.csv"

    @property
    def weights(self) -> Path:
        """Folder of its network's weights; not read where the run starts from scratch."""
        return Path("models/pretrained") / self.recipe.network

    @property
    def settings(self) -> dict[str, Any]:
        """Return what shapes its result, under the names it is logged by."""
        return self.recipe.settings(own_head=self.recipe.network in SCRATCH)


def find_run(name: str, experiment: Experiment) -> NamedRun:
    """Return the run of that name.

    Raises:
        ConfigError: there is none.
    """
    return NamedRun(name, experiment.run(name), experiment.features.batch_size)


@contextmanager
def job_maker(run: NamedRun, packed: Packed, images: npt.NDArray[np.int64]) -> Iterator[MakeJob]:
    """Give what builds the run's training for any split of its dataset.

    A network of which only a head learns sees the images once, before the first training.

    Args:
        run: what to train.
        packed: its dataset.
        images: the distinct images that train rows of any of the splits show, ascending.

    Raises:
        ConfigError: the recipe does not fit the dataset or the network.
        WeightsError: the weights are missing or do not fit.
        DataError: a feature is not finite.
    """
    recipe, weights = run.recipe, run.weights
    if not recipe.of_head:
        yield lambda split: make_job(run.name, recipe, packed, split, weights=weights)
        return
    with tempfile.TemporaryDirectory() as folder:
        seen, file = Path(folder) / recipe.views.name, weights / "weights.h5"
        write_views(recipe.network, recipe.views, packed, file, images, seen, batch_size=run.batch_size)
        views = read_views(seen, len(packed.images))
        yield lambda split: make_job(run.name, recipe, packed, split, weights=weights, views=views)
