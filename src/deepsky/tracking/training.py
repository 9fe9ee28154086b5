"""A training that is an MLflow run: what the train stages share."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import keras

from deepsky.files import whole_folder
from deepsky.tracking.runs import Run, run_key, training_run
from deepsky.training.job import Job, describe, train

# Facts that are tables or stand in the classes' own figures, not parameters to compare runs by.
NOT_PARAMETERS = ("params", "class_counts", "classes")


def track_training(
    job: Job,
    experiment: str,
    out: Path,
    *,
    network: str,
    tags: Mapping[str, str],
    draw: Callable[[Path], None] | None = None,
) -> dict[str, float]:
    """Train, write the folder ``out`` whole, and log all of it as one run.

    Args:
        job: what is trained.
        experiment: MLflow experiment.
        out: folder of the trained network.
        network: a key of the registries; the job may call it otherwise.
        tags: more tags of the run.
        draw: adds pictures to the folder of a trained network.

    Returns:
        The figures that were logged, see ``deepsky.training.job.train``.

    Raises:
        TrackingError: the store cannot be used.
        DataError: train or val holds no rows.
        ConfigError: the loss is no longer finite.
    """
    facts = describe(job)
    params = {key: value for key, value in facts.items() if key not in NOT_PARAMETERS} | facts["params"]
    with training_run(
        experiment=experiment,
        dataset=job.dataset,
        network=network,
        label=job.network,
        params=params,
        tags={"weights": job.weights, **tags},
    ) as run:
        with whole_folder(out) as folder:
            figures = train(job, folder, [LogEpochs(run)])
            if draw:
                draw(folder)
        run.log_metrics({name: figures[name] for name in ("training_s", "images_per_s", "kept_epoch")})
        run.log_artifact(out)
        run.finish_key(run_key(out))
    return figures


class LogEpochs(keras.callbacks.Callback):
    """Send each epoch's figures, and how long it took, to a run."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run, self._started = run, 0.0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Log; epochs count from 1 as in history.csv."""
        self._run.log_epoch(epoch + 1, {**(logs or {}), "epoch_s": time.perf_counter() - self._started})
