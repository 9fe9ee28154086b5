"""Stage train: one run, whatever of its network learns."""

from collections.abc import Mapping
from pathlib import Path

from deepsky.datasets.packed import open_packed
from deepsky.files import whole_folder
from deepsky.networks.weights_card import read_weights_card
from deepsky.tracking.origin import origin_tags
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import HIDDEN, OUTCOMES, run_params, training_run
from deepsky.tracking.training import LogEpochs
from deepsky.training.build import make_job
from deepsky.training.examples import read_groups, read_split
from deepsky.training.recipe import Recipe
from deepsky.training.record import describe, train
from deepsky.training.view_features import read_views


def run(
    name: str,
    recipe: Recipe,
    tracking: TrackingParams,
    split_params: Mapping[str, object],
    *,
    packed: Path,
    split: Path,
    features: Path,
    weights: Path,
    out: Path,
) -> None:
    """Train, and write the whole network with its history, predictions and facts.

    Args:
        name: of the run.
        recipe: how the network learns.
        tracking: section ``tracking``.
        split_params: what shaped the split; logged with the run.
        packed: the dataset.
        split: its split.
        features: folder of the network's features of the dataset; read where only a head learns.
        weights: folder of the network's pretrained weights; read where the run starts from them.
        out: folder of the trained network.

    Raises:
        DataError: an input is missing or does not fit the others.
        ConfigError: the recipe does not fit the dataset, or the loss is no longer finite.
        WeightsError: the weights cannot be read or do not fit.
        TrackingError: the MLflow store cannot be used.
    """
    opened = open_packed(packed)
    views = read_views(features / recipe.views.name, len(opened.images)) if recipe.of_head else None
    job = make_job(name, recipe, opened, read_split(split, opened), weights=weights, views=views)
    groups = read_groups(split, opened)
    facts, origin = describe(job), recipe.origin
    of_search = origin_tags(tracking.experiment, origin.study, origin.trial) if origin else {}
    own = [folder for folder, read in ((features, recipe.of_head), (weights, recipe.start == "pretrained")) if read]
    began_from = read_weights_card(weights) if recipe.start == "pretrained" else None
    of_weights = (
        {f"{HIDDEN}weights_{key}": getattr(began_from, key) for key in ("source", "sha256")} if began_from else {}
    )
    with training_run(
        tracking=tracking,
        name=name,
        dataset=recipe.dataset,
        network=recipe.network,
        params=run_params(facts) | {"split": split_params},
        tags={"weights": job.weights, **of_weights, **of_search},
        inputs=[packed, split, *own],
        parts=facts["class_counts"],
    ) as tracked:
        with whole_folder(out) as folder:
            figures = train(job, folder, groups, [LogEpochs(tracked)])
        tracked.log_metrics({key: figures[key] for key in ("training_s", "images_per_s", *OUTCOMES) if key in figures})
        tracked.log_trained(out, facts, opened.images[0].tolist())
        tracked.finish_outputs(out)
    print(job.summary(figures))
