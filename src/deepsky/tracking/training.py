"""A training that is an MLflow run."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras

from deepsky.files import whole_folder
from deepsky.tracking.runs import Run, run_key, run_params, training_run
from deepsky.training.job import Job
from deepsky.training.record import describe, train


def track_training(
    job: Job,
    experiment: str,
    out: Path,
    *,
    split_params: Mapping[str, object],
    tags: Mapping[str, str],
    inputs: Sequence[Path],
) -> dict[str, float]:
    """Train, write the folder ``out`` whole, and log all of it as one run.

    Args:
        job: what is trained.
        experiment: MLflow experiment.
        out: folder of the trained network.
        split_params: what shaped the split; logged with the run.
        tags: more tags of the run.
        inputs: outputs of other DVC stages that the training reads.

    Returns:
        The figures that were logged, see ``deepsky.training.record.train``.

    Raises:
        TrackingError: the store cannot be used.
        DataError: train or val holds no rows.
        ConfigError: the loss is no longer finite.
    """
    with training_run(
        experiment=experiment,
        name=job.run,
        dataset=job.recipe.dataset,
        network=job.recipe.network,
        params=run_params(describe(job)) | {"split": split_params},
        tags={"weights": job.weights, **tags},
        inputs=inputs,
    ) as run:
        with whole_folder(out) as folder:
            figures = train(job, folder, [LogEpochs(run)])
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
