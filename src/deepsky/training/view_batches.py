"""Batches of cached features: each epoch shows every training image from one of the views that were cached."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deepsky.errors import DataError
from deepsky.training.batches import TrainBatches
from deepsky.training.examples import Array, Examples
from deepsky.training.recipe import Recipe
from deepsky.training.view_features import ViewFeatures


class ViewBatches(TrainBatches):
    """The train rows: an order of its own for each epoch, and for each row its plain image or one of its views.

    The plain image is drawn as often as each of the views: it is what the head is tested on.
    """

    def __init__(
        self, examples: Examples, recipe: Recipe, views: ViewFeatures, swaps: Sequence[int], first_epoch: int = 0
    ) -> None:
        """Find each row's views.

        Args:
            examples: the features of the plain images.
            recipe: seed, batch size and class weights.
            views: of the same images; where there are none, the plain image is all that is seen.
            swaps: the place of each class in a mirror image, as ``answers.swaps_of`` gives it.
            first_epoch: whose order comes first; counts from 0.

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
        super().__init__(examples, recipe, first_epoch)

    def _read(self, step: int, order: npt.NDArray[np.int64]) -> tuple[Array, ...]:
        random = np.random.default_rng([self._recipe.seed, self._epoch, step])
        rows = order[step * self._batch_size : (step + 1) * self._batch_size]
        drawn = random.integers(1 + len(self._views.views), size=len(rows))
        shown, targets = self._examples.inputs_of(rows), self._examples.targets[rows]
        weights = () if self._weights is None else (targets @ self._weights,)
        seen = drawn > 0  # 0 is the plain image
        view, place = drawn[seen] - 1, self._place[rows[seen]]
        shown[seen] = self._views.views[view, place]
        mirrored = np.zeros((len(rows), 1), bool)
        mirrored[seen, 0] = self._views.mirrored[view, place]
        return shown, np.where(mirrored, targets[:, self._swaps], targets), *weights
