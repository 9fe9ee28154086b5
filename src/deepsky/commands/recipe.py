"""A recipe of params.yaml with the data it trains on, for commands that train it on splits of their own."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deepsky.config import PARAMS, read_recipes, read_section
from deepsky.datasets.packed import Packed
from deepsky.errors import ConfigError
from deepsky.stages import fine_tune, from_scratch, frozen
from deepsky.training.predict import FeaturesParams
from deepsky.training.image_job import ImageJob
from deepsky.training.recipes import FineTuneParams, FromScratchParams, FrozenParams
from deepsky.training.view_features import read_views, write_views
from deepsky.training.view_job import ViewJob

_PARAMS_OF: dict[str, type[FrozenParams] | type[FineTuneParams] | type[FromScratchParams]] = {
    "frozen": FrozenParams,
    "fine_tune": FineTuneParams,
    "from_scratch": FromScratchParams,
}
MakeJob = Callable[[npt.NDArray[np.str_]], ImageJob | ViewJob]  # split of each row -> what is to be trained


@dataclass(frozen=True)
class Recipe:
    """One entry of section ``recipes``.

    Attributes:
        key: its name.
        way: the section below ``recipes`` that holds it.
        params: its content.
    """

    key: str
    way: str
    params: FrozenParams | FineTuneParams | FromScratchParams

    @property
    def packed(self) -> Path:
        """Folder of its dataset."""
        return Path("data/packed") / self.params.dataset

    @property
    def split(self) -> Path:
        """Split of its dataset."""
        return Path("data/splits") / f"{self.params.dataset}.csv"

    @property
    def weights(self) -> Path:
        """Folder of its backbone's weights; a network from scratch has none."""
        return Path("models/pretrained") / self.params.network


def find_recipe(key: str) -> Recipe:
    """Read the recipe of that name.

    Raises:
        ConfigError: there is none, there are several, or a value of it is wrong.
    """
    entries = read_recipes()
    ways = [way for way in entries if key in entries[way]]
    if len(ways) > 1:
        raise ConfigError(f"recipe {key}", f"is in {PARAMS} under {' and '.join(ways)}", "give each a name of its own")
    if not ways:
        known = ", ".join(name for way in entries.values() for name in way)
        raise ConfigError(f"recipe {key}", f"is not in {PARAMS}", f"choose one of: {known or 'none is there'}")
    return Recipe(key, ways[0], read_section(f"recipes.{ways[0]}.{key}", _PARAMS_OF[ways[0]]))


@contextmanager
def job_maker(recipe: Recipe, packed: Packed, images: npt.NDArray[np.int64]) -> Iterator[MakeJob]:
    """Give what builds the recipe's training for any split of its dataset.

    A frozen backbone runs once, before the first training, over the images and their views.

    Args:
        recipe: what to train.
        packed: its dataset.
        images: the distinct images that train rows of any of the splits show, ascending.

    Raises:
        ConfigError: the recipe does not fit the dataset or the network.
        WeightsError: the weights are missing or do not fit.
        DataError: a feature is not finite.
    """
    key, params, weights = recipe.key, recipe.params, recipe.weights
    if isinstance(params, FineTuneParams):
        yield lambda split: fine_tune.make_job(key, params, {}, packed, split, weights)
    elif isinstance(params, FromScratchParams):
        yield lambda split: from_scratch.make_job(key, params, {}, packed, split)
    else:
        with tempfile.TemporaryDirectory() as folder:
            seen = Path(folder) / key
            features = read_section("features", FeaturesParams)
            write_views(params, features, packed, weights / "weights.h5", images, seen)
            views = read_views(seen, len(packed.images))
            yield lambda split: frozen.make_job(key, params, {}, packed, split, views, weights)


def settings_of(recipe: Recipe) -> dict[str, object]:
    """Return what a run of the recipe is logged with."""
    return {"way": recipe.way, "recipe": asdict(recipe.params)}
