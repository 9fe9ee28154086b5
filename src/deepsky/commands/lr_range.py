"""Raise a run's learning rate step by step, plot the loss, and suggest a rate."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from deepsky.commands.jobs import job_maker, packed_of, split_of
from deepsky.datasets.packed import open_packed
from deepsky.errors import ConfigError
from deepsky.evaluation.figures import save_png
from deepsky.evaluation.range_figure import range_figure
from deepsky.experiment.experiment import read_experiment
from deepsky.experiment.runs import Run
from deepsky.files import whole_folder
from deepsky.interruption import interruptible
from deepsky.lean_keras import compute_deterministically
from deepsky.networks.params import BatchSize
from deepsky.tracking.runs import Run as TrackedRun
from deepsky.tracking.runs import training_run
from deepsky.training.batches import TrainBatches
from deepsky.training.examples import read_split
from deepsky.training.fit import compile_learner, fit_phases, make_optimizer
from deepsky.training.job import Job
from deepsky.training.range_test import HIGHEST, LOWEST, raise_rate, suggest_rate

FOLDER = Path("evaluation/lr_range")
MIN_STEPS, MAX_STEPS = 20, 10_000
_POINTS_PER_CALL = 300  # of three metrics each; MLflow takes 1000 at a time


@interruptible()
def run(name: str, n_steps: int) -> None:
    """Write evaluation/lr_range/RUN/ with range.csv and range.png, log them as one run, and print the suggestion.

    The test starts from the weights with which ``learning_rate`` will be used: head epochs come first. It trains on
    the train rows of the split; the weights are not kept.

    Args:
        name: of the run.
        n_steps: from the lowest rate to the highest.

    Raises:
        ConfigError: an argument, or a value of params.yaml, is wrong or does not fit the dataset.
        DataError: dataset or split is not there.
        WeightsError: the backbone's weights are missing or do not fit.
        TrackingError: the MLflow store cannot be used.
    """
    if not MIN_STEPS <= n_steps <= MAX_STEPS:
        raise ConfigError(f"--steps {n_steps}", "is out of range", f"give {MIN_STEPS} to {MAX_STEPS}")
    experiment = read_experiment()
    compute_deterministically(experiment.deterministic)
    run = experiment.find(name)
    table = _measure(run, n_steps, experiment.features.batch_size)
    suggested, own, out = suggest_rate(table), run.recipe.learning_rate, FOLDER / name
    with whole_folder(out) as folder:
        table.to_csv(folder / "range.csv", index=False, float_format="%.6g", lineterminator="\n")
        save_png(range_figure(table, suggested, own, f"{name}: learning-rate range test"), folder / "range.png")
    with training_run(
        tracking=experiment.tracking.beside("lr-range"),
        name=name,
        dataset=run.recipe.dataset,
        network=run.recipe.network,
        params={**run.settings, "steps": n_steps, "lowest": LOWEST, "highest": HIGHEST},
        tags={},
    ) as tracked:
        _log(tracked, table)
        tracked.log_metrics({} if suggested is None else {"suggested_learning_rate": suggested})
        for path in sorted(out.iterdir()):
            tracked.log_artifact(path)
    said = "the loss never falls" if suggested is None else f"the loss falls fastest at {suggested:.1e}"
    print(f"{name}: {said} (the run has {own:.1e}), {len(table)} of {n_steps} steps; see {out / 'range.png'}")


def _measure(run: Run, n_steps: int, batch_size: BatchSize) -> pd.DataFrame:
    packed = open_packed(packed_of(run.recipe))
    split = read_split(split_of(run.recipe), packed)
    images = np.unique(packed.rows["image"].to_numpy(np.int64)[split == "train"])
    with job_maker(run, packed, images, batch_size) as make_job:
        learner, batches = _start(make_job(split))
        compile_learner(learner, run.recipe, make_optimizer(replace(run.recipe, schedule="constant"), n_steps))
        return raise_rate(learner, batches, n_steps)


def _start(job: Job) -> tuple[keras.Model, TrainBatches]:
    """Return what learns and what from, as it is when ``learning_rate`` comes to be used."""
    (learner, tail), examples = job.prepared(), job.examples()
    examples.check(needs_val=job.recipe.chooses)
    # The best weights and patience are a matter of the last phase, which comes after these.
    before = [replace(phase, recipe=replace(phase.recipe, keep="last", patience=None)) for phase in job.phases[:-1]]
    if before:
        fit_phases(learner, tail, examples, before, job.batches)
    job.phases[-1].release(tail)
    return learner, job.batches(job.recipe, sum(phase.recipe.epochs for phase in before))


def _log(run: TrackedRun, table: pd.DataFrame) -> None:
    points = [(int(step), figures) for step, figures in table.set_index("step").to_dict("index").items()]
    for first in range(0, len(points), _POINTS_PER_CALL):
        run.log_history(points[first : first + _POINTS_PER_CALL])
