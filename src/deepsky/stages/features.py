"""Stage features: a frozen backbone runs once over the distinct images of a dataset."""

from pathlib import Path

from deepsky.datasets.packed import open_packed
from deepsky.networks import BACKBONES, choose
from deepsky.networks.backbone import BackboneParams, build_features
from deepsky.training.features import FeaturesParams, image_spec, predict_batches, write_features


def run(
    network: str, params: BackboneParams, features_params: FeaturesParams, *, packed: Path, weights: Path, out: Path
) -> None:
    """Write (n images, n features), float32.

    Raises:
        DataError: the dataset is not whole, or a feature is not finite.
        WeightsError: the weights do not fit.
    """
    dataset = open_packed(packed)
    weights_file = weights / "weights.h5"
    model = build_features(choose(BACKBONES, network), image_spec(dataset), params, weights_file, fast=True)
    features = predict_batches(model, dataset.images, features_params.batch_size)
    write_features(features, out)
    print(f"{network}: {features.shape[1]} features of {len(features)} images")
