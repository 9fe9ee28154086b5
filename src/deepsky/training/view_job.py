"""A head on cached features: each epoch shows it every training image from one of the views that were cached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.datasets.packed import DatasetCard
from deepsky.errors import ConfigError, DataError
from deepsky.networks.views import average_views, mean_of_views
from deepsky.training.features import ROWS_AT_ONCE, predict_batches
from deepsky.training.fit import FitParams, keep_best
from deepsky.training.image_batches import Array, ImageExamples, TrainBatches, examples_of
from deepsky.training.image_fit import fit_batches
from deepsky.training.job import Job
from deepsky.training.recipes import FrozenParams, RecipeParams, check_views, swaps_of
from deepsky.training.view_features import ViewFeatures


class ViewBatches(TrainBatches):
    """The train rows: an order of its own for each epoch, and for each row its plain image or one of its views.

    The plain image is drawn as often as each of the views: it is what the head is tested on.
    """

    def __init__(
        self, examples: ImageExamples, params: RecipeParams, views: ViewFeatures, swaps: Sequence[int]
    ) -> None:
        """Find each row's views.

        Args:
            examples: the features of the plain images.
            params: seed, batch size and class weights.
            views: of the same images; where there are none, the plain image is all that is seen.
            swaps: the place of each class in a mirror image, as ``recipes.swaps_of`` gives it.

        Raises:
            DataError: an image has no views.
        """
        self._views, self._swaps = views, list(swaps)
        self._place = np.searchsorted(views.viewed, examples.image)
        found = np.isin(examples.image, views.viewed)
        unseen = [row for row in examples.rows("train") if not found[row]]
        if unseen and len(views.views):
            image = examples.image[unseen[0]]
            raise DataError(f"image {image}", "is to be learned from, but has no views", "run dvc repro to write them")
        super().__init__(examples, params)

    def _read(self, step: int, order: npt.NDArray[np.int64]) -> tuple[Array, ...]:
        random = np.random.default_rng([self._params.seed, self._epoch, step])
        rows = order[step * self._batch_size : (step + 1) * self._batch_size]
        drawn = random.integers(1 + len(self._views.views), size=len(rows))
        shown, targets = self._examples.images[self._examples.image[rows]], self._examples.targets[rows]
        weights = () if self._weights is None else (targets @ self._weights,)
        seen = drawn > 0  # 0 is the plain image
        view, place = drawn[seen] - 1, self._place[rows[seen]]
        shown[seen] = self._views.views[view, place]
        mirrored = np.zeros((len(rows), 1), bool)
        mirrored[seen, 0] = self._views.mirrored[view, place]
        return shown, np.where(mirrored, targets[:, self._swaps], targets), *weights


@dataclass(frozen=True, kw_only=True)
class ViewJob(Job):
    """One training of a head; raises ConfigError for views that change what the dataset's images are.

    It raises DataError where the features are those of another number of test views.

    Attributes:
        recipe: how the head is fitted, in the words of the recipes that learn from images.
        views: what its backbone saw.
    """

    recipe: RecipeParams
    views: ViewFeatures

    def __post_init__(self) -> None:
        """Refuse views that change what the dataset's images are, and features of other test views."""
        check_views(self.recipe, self.packed.card)
        if len(self.views.sides) != self.recipe.test_views:
            problem = f"of {self.dataset} were seen from {len(self.views.sides)} sides, test_views is not so many"
            raise DataError("features", problem, "run dvc repro to write them again")

    def examples(self) -> ImageExamples:
        """Return the plain features with what there is to learn of each row."""
        shown = examples_of(self.packed, self.split)
        return ImageExamples(self.views.plain, shown.image, shown.targets, shown.split)

    def batches(self) -> ViewBatches:
        """Return the train rows in steps."""
        return ViewBatches(self.examples(), self.recipe, self.views, swaps_of(self.packed.card))

    def fit(self, callbacks: Sequence[keras.callbacks.Callback]) -> pd.DataFrame:
        """Train the head; val, if it holds any rows, is watched from the plain side."""
        examples = self.examples()
        examples.check(self.recipe)
        stop = [keep_best(self.recipe)] if len(examples.rows("val")) else []
        return fit_batches(self.tail, self.batches(), examples, self.recipe, [*stop, *callbacks])

    def answers(self) -> npt.NDArray[np.float32]:
        """Predict from the features of every test view."""
        return mean_of_views([self._predicted(side) for side in self.views.sides], swaps_of(self.packed.card))

    def plain_answers(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """Predict from the plain features."""
        return None if self.recipe.test_views == 1 else self._predicted(self.views.plain[images])

    def _predicted(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return predict_batches(self.tail, features, max(ROWS_AT_ONCE, self.params.batch_size))

    def whole(self) -> keras.Model:
        """Return the network to save, which answers with the mean over the recipe's test views."""
        swaps = swaps_of(self.packed.card)
        return average_views(super().whole(), self.recipe.test_views, swaps, self.network)

    def summary(self, figures: Mapping[str, float]) -> str:
        """Return one line about a training."""
        measure = "val_accuracy" if self.packed.card.target == "class" else "val_rmse"
        return (
            f"{self.dataset} x {self.network} ({self.recipe.network}, {self.weights} weights): {measure} "
            f"{figures[measure]:.3f} at epoch {figures['kept_epoch']:.0f} of {self.params.epochs}, "
            f"fitted in {figures['training_s']:.1f} s"
        )


def as_image_recipe(params: FrozenParams, card: DatasetCard) -> RecipeParams:
    """Return how a head is fitted, in the words of the recipes that learn from images; fractions obey the tree.

    Raises:
        ConfigError: the recipe wants what means nothing for vote fractions.
    """
    fit = {field.name: getattr(params, field.name) for field in fields(FitParams)}
    try:
        return RecipeParams(
            **fit,
            dataset=params.dataset,
            network=params.network,
            input_size_px=params.input_size_px,
            augment=params.augment,
            test_views=params.test_views,
            class_weights=params.class_weights,
            mixup=0.0,
            precision="float32",
            answer="softmax" if card.target == "class" else "tree",
        )
    except ValueError as error:
        raise ConfigError(f"recipe of {params.dataset}", str(error), "mend it in params.yaml") from error
