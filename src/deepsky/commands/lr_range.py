"""Raise a recipe's learning rate step by step, plot the loss, and suggest a rate."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from deepsky.commands.recipe import Recipe, find_recipe, job_maker, settings_of
from deepsky.config import read_section
from deepsky.datasets.packed import open_packed
from deepsky.errors import ConfigError
from deepsky.evaluation.figures import save_png
from deepsky.evaluation.range_figure import range_figure
from deepsky.files import whole_folder
from deepsky.tracking.interruption import interruptible
from deepsky.tracking.runs import Run, training_run
from deepsky.tracking.store import TrackingParams
from deepsky.training.fit import make_optimizer
from deepsky.training.image_batches import TrainBatches, examples_of
from deepsky.training.image_fit import compile_learner, fit_images
from deepsky.training.image_job import ImageJob
from deepsky.training.examples import read_split
from deepsky.training.range_test import HIGHEST, LOWEST, raise_rate, suggest_rate
from deepsky.training.recipes import RecipeParams
from deepsky.training.view_job import ViewJob

FOLDER = Path("evaluation/lr_range")
MIN_STEPS, MAX_STEPS = 20, 10_000
_POINTS_PER_CALL = 300  # of three metrics each; MLflow takes 1000 at a time


@interruptible()
def run(key: str, n_steps: int) -> None:
    """Write evaluation/lr_range/KEY/ with range.csv and range.png, log them as one run, and print the suggestion.

    The test starts from the weights with which ``learning_rate`` will be used: head epochs come first. It trains on
    the train rows of the split; the weights are not kept.

    Args:
        key: name of the recipe.
        n_steps: from the lowest rate to the highest.

    Raises:
        ConfigError: an argument, or a value of params.yaml, is wrong or does not fit the dataset.
        DataError: dataset or split is not there.
        WeightsError: the backbone's weights are missing or do not fit.
        TrackingError: the MLflow store cannot be used.
    """
    if not MIN_STEPS <= n_steps <= MAX_STEPS:
        raise ConfigError(f"--steps {n_steps}", "is out of range", f"give {MIN_STEPS} to {MAX_STEPS}")
    recipe = find_recipe(key)
    table = _measure(recipe, n_steps)
    suggested, own, out = suggest_rate(table), recipe.params.learning_rate, FOLDER / key
    with whole_folder(out) as folder:
        table.to_csv(folder / "range.csv", index=False, float_format="%.6g", lineterminator="\n")
        save_png(range_figure(table, suggested, own, f"{key}: learning-rate range test"), folder / "range.png")
    with training_run(
        experiment=f"{read_section('tracking', TrackingParams).experiment}-lr-range",
        dataset=recipe.params.dataset,
        network=recipe.params.network,
        label=key,
        params={**settings_of(recipe), "steps": n_steps, "lowest": LOWEST, "highest": HIGHEST},
        tags={"way": recipe.way},
    ) as tracked:
        _log(tracked, table)
        tracked.log_metrics({} if suggested is None else {"suggested_learning_rate": suggested})
        for path in sorted(out.iterdir()):
            tracked.log_artifact(path)
    said = "the loss never falls" if suggested is None else f"the loss falls fastest at {suggested:.1e}"
    print(f"{key}: {said} (the recipe has {own:.1e}), {len(table)} of {n_steps} steps; see {out / 'range.png'}")


def _measure(recipe: Recipe, n_steps: int) -> pd.DataFrame:
    packed = open_packed(recipe.packed)
    split = read_split(recipe.split, packed)
    images = np.unique(packed.rows["image"].to_numpy(np.int64)[split == "train"])
    with job_maker(recipe, packed, images) as make_job:
        learner, batches, params = _start(make_job(split))
        compile_learner(learner, params, make_optimizer(replace(params, schedule="constant"), n_steps))
        return raise_rate(learner, batches, n_steps)


def _start(job: ImageJob | ViewJob) -> tuple[keras.Model, TrainBatches, RecipeParams]:
    """Return what learns, what from and how, as it is when ``learning_rate`` comes to be used."""
    if isinstance(job, ViewJob):
        job.examples().check(job.recipe)
        return job.tail, job.batches(), job.recipe
    (learner, tail), examples = job.prepared(), examples_of(job.packed, job.split)
    examples.check(job.params)
    # The best weights and patience are a matter of the last phase, which comes after these.
    before = [replace(phase, params=replace(phase.params, keep="last", patience=None)) for phase in job.phases[:-1]]
    if before:
        fit_images(learner, tail, examples, before)
    job.phases[-1].release(tail)
    return learner, TrainBatches(examples, job.params), job.params


def _log(run: Run, table: pd.DataFrame) -> None:
    points = [(int(step), figures) for step, figures in table.set_index("step").to_dict("index").items()]
    for first in range(0, len(points), _POINTS_PER_CALL):
        run.log_history(points[first : first + _POINTS_PER_CALL])
