"""How long a fit waited for its inputs."""

import time
from collections.abc import Mapping

import keras

from deepsky.training.batches import SplitBatches


class InputWait(keras.callbacks.Callback):
    """Add ``input_wait_share`` to each epoch's logs: the share of its time in which no step had its images.

    What passes before, between and behind the steps counts; what the backend does to bring a batch to the device, once
    it was read, is the step's own. The very first step, in which the network is compiled, is left out.
    """

    def __init__(self, batches: SplitBatches) -> None:
        super().__init__()
        self._batches = batches
        self._compiled = False
        self._started_s, self._begun_s, self._ended_s, self._busy_s = 0.0, 0.0, 0.0, 0.0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Start the clock."""
        self._started_s, self._ended_s, self._busy_s = time.perf_counter(), 0.0, 0.0

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Note when the network could have begun."""
        self._begun_s = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Add up how long it was at work."""
        now_s = time.perf_counter()
        if self._compiled:
            self._busy_s += now_s - max(self._begun_s, self._batches.ready_s[batch])
        else:
            self._compiled, self._started_s = True, now_s

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Stop the clock where the validation begins."""
        self._ended_s = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Put the share into the logs: 0 where the only step was the one that compiles."""
        assert logs is not None
        whole_s = (self._ended_s or time.perf_counter()) - self._started_s
        logs["input_wait_share"] = 1 - self._busy_s / whole_s if self._busy_s else 0.0
