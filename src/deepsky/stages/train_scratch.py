"""Stage train_scratch: a network trained from the images of one dataset."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from deepsky.datasets.packed import open_packed
from deepsky.networks import SCRATCH, choose
from deepsky.networks.heads import softmax_answer
from deepsky.tracking.origin import origin_tags
from deepsky.tracking.training import track_training
from deepsky.training.features import image_spec, predict_batches
from deepsky.training.fit import ScratchParams
from deepsky.training.job import FeatureJob, read_split
from deepsky.tuning.adopted import Adopted


@dataclass(frozen=True, kw_only=True)
class TunedScratch(Adopted):
    """Entry of section ``tuned.scratch``.

    Attributes:
        scratch: how the network is fitted, instead of section ``scratch.NETWORK``.
    """

    scratch: ScratchParams


def run(
    dataset: str,
    network: str,
    params: ScratchParams,
    experiment: str,
    data: Mapping[str, Any],
    *,
    adopted: Adopted | None = None,
    packed: Path,
    split: Path,
    out: Path,
) -> None:
    """Fit the network and write it with its history, predictions and facts.

    Args:
        dataset: its name.
        network: a key of the registry.
        params: how it is fitted.
        experiment: MLflow experiment.
        data: the sections of params.yaml that shaped the split, logged with the run.
        adopted: the search that ``params`` come from; None for the reference.
        packed: the dataset.
        split: its split.
        out: folder of the trained network.

    Raises:
        DataError: an input is missing or does not fit the others.
        ConfigError: the loss is no longer finite.
        TrackingError: the MLflow store cannot be used.
    """
    opened, kind = open_packed(packed), choose(SCRATCH, network)
    assigned = read_split(split, opened)
    front = kind.build_front(image_spec(opened), params.input_size_px)
    # The front has no weights: its output, n images of input_size_px squared, is kept in memory for all epochs.
    inputs = predict_batches(front, opened.images, params.batch_size)
    keras.utils.set_random_seed(params.seed)
    tail = kind.build_tail(inputs.shape[1:], softmax_answer(len(opened.card.classes)))
    settings = {"scratch": asdict(params), **data}
    label, tags = network, dict[str, str]()
    if adopted:
        label, tags = adopted.label, origin_tags(experiment, adopted.study, adopted.trial)
        settings["tuned"] = adopted.origin
    job = FeatureJob(
        dataset=dataset,
        network=label,
        weights="scratch",
        way="from_scratch",
        packed=opened,
        split=assigned,
        front=front,
        tail=tail,
        inputs=inputs,
        params=params,
        settings=settings,
    )
    figures = track_training(job, experiment, out, network=network, tags=tags)
    print(
        f"{dataset} x {label}: val_accuracy {figures['val_accuracy']:.3f} at epoch {figures['kept_epoch']:.0f} "
        f"of {params.epochs}, fitted in {figures['training_s']:.1f} s"
    )
