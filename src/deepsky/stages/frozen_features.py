"""Stage frozen_features: a frozen backbone runs over all images, and over random views of those to learn from."""

from pathlib import Path

import numpy as np

from deepsky.datasets.packed import open_packed
from deepsky.training.features import FeaturesParams
from deepsky.training.job import read_split
from deepsky.training.recipes import FrozenParams
from deepsky.training.view_features import write_views


def run(
    params: FrozenParams, features_params: FeaturesParams, *, packed: Path, split: Path, weights: Path, out: Path
) -> None:
    """Write the folder of ``training.view_features.ViewFeatures``; only images of train rows get views.

    Args:
        params: of the recipe.
        features_params: images per step.
        packed: the dataset.
        split: its split.
        weights: folder of the backbone's weights.
        out: folder to write.

    Raises:
        DataError: an input is missing or does not fit the others, or a feature is not finite.
        ConfigError: there is no such backbone, or the input size is too small for it.
        WeightsError: the weights cannot be read or do not fit.
    """
    dataset = open_packed(packed)
    trained = read_split(split, dataset) == "train"
    images = np.unique(dataset.rows["image"].to_numpy(np.int64)[trained])
    n_views, n_viewed, n_features = write_views(params, features_params, dataset, weights / "weights.h5", images, out)
    print(
        f"{params.network}: {n_features} features of {len(dataset.images)} images, "
        f"and of {n_views} views of {n_viewed} of them"
    )
