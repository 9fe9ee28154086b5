"""Stage train: a head on the cached features of one backbone for one dataset."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deepsky.datasets.packed import open_packed
from deepsky.networks import BACKBONES, choose
from deepsky.networks.backbone import BackboneParams, build_features
from deepsky.networks.heads import build_head, softmax_answer
from deepsky.networks.weights_card import read_weights_card
from deepsky.tracking.origin import origin_tags
from deepsky.tracking.training import track_training
from deepsky.training.features import image_spec, read_features
from deepsky.training.fit import TrainParams
from deepsky.training.job import FeatureJob, read_split
from deepsky.tuning.adopted import Adopted


@dataclass(frozen=True, kw_only=True)
class TunedHead(Adopted):
    """Entry of section ``tuned.heads``.

    Attributes:
        train: how the head is fitted, instead of section ``train``.
    """

    train: TrainParams


def run(
    dataset: str,
    network: str,
    params: TrainParams,
    backbone: BackboneParams,
    experiment: str,
    data: Mapping[str, Any],
    *,
    adopted: Adopted | None = None,
    packed: Path,
    split: Path,
    features: Path,
    weights: Path,
    out: Path,
) -> None:
    """Fit the head and write the whole network, its history, predictions and facts.

    Args:
        dataset: its name.
        network: a key of the registry.
        params: how the head is fitted.
        backbone: its input size.
        experiment: MLflow experiment.
        data: the sections of params.yaml that shaped the split, logged with the run.
        adopted: the search that ``params`` come from; None for the reference.
        packed: the dataset.
        split: its split.
        features: of the distinct images.
        weights: folder of the backbone's weights.
        out: folder of the trained network.

    Raises:
        DataError: an input is missing or does not fit the others.
        ConfigError: the loss is no longer finite.
        TrackingError: the MLflow store cannot be used.
    """
    opened = open_packed(packed)
    inputs = read_features(features, len(opened.images))
    assigned, card = read_split(split, opened), read_weights_card(weights)
    front = build_features(choose(BACKBONES, network), image_spec(opened), backbone, weights / "weights.h5")
    head = build_head(
        inputs.shape[1],
        softmax_answer(len(opened.card.classes)),
        params.hidden_units,
        params.activation,
        dropout=params.dropout,
        batch_norm=params.batch_norm,
        l2=params.l2,
        seed=params.seed,
    )
    settings = {"train": asdict(params), "backbone": asdict(backbone), **data}
    label, tags = network, dict[str, str]()
    if adopted:
        label, tags = adopted.label, origin_tags(experiment, adopted.study, adopted.trial)
        settings["tuned"] = adopted.origin
    job = FeatureJob(
        dataset=dataset,
        network=label,
        weights=card.weights,
        way="frozen",
        packed=opened,
        split=assigned,
        front=front,
        tail=head,
        inputs=inputs,
        params=params,
        settings=settings,
    )
    figures = track_training(job, experiment, out, network=network, tags=tags)
    print(
        f"{dataset} x {label} ({card.weights} weights): val_accuracy {figures['val_accuracy']:.3f} "
        f"at epoch {figures['kept_epoch']:.0f} of {params.epochs}, fitted in {figures['training_s']:.1f} s"
    )
