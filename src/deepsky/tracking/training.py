"""What a fit sends to its MLflow run."""

import time
from collections.abc import Mapping

import keras

from deepsky.tracking.runs import Run


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
        self._run.log_epochs([(epoch + 1, {**(logs or {}), "seconds": time.perf_counter() - self._started})])
