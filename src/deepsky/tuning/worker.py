"""What keeps a worker's trials alive while it works."""

import threading
from contextlib import suppress
from types import TracebackType

from optuna.exceptions import OptunaError
from sqlalchemy.exc import SQLAlchemyError

from deepsky.tuning.database import WorkerStorage


class Heart:
    """Gives a sign of life of every running trial of this worker, from a thread; Optuna has none for ask and tell."""

    def __init__(self, storage: WorkerStorage, interval_s: float) -> None:
        """Start nothing yet."""
        self._storage, self._interval_s = storage, interval_s
        self._trial_ids = set[int]()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heart")

    def __enter__(self) -> "Heart":
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join()

    def keep(self, trial_id: int) -> None:
        """Give a trial its first sign of life, and more from now on."""
        self._storage.record_heartbeat(trial_id)
        with self._lock:
            self._trial_ids.add(trial_id)

    def leave(self, trial_id: int) -> None:
        """Give no more signs of life of a trial."""
        with self._lock:
            self._trial_ids.discard(trial_id)

    def _beat(self) -> None:
        while not self._stop.wait(self._interval_s):
            with self._lock:
                trial_ids = tuple(self._trial_ids)
            for trial_id in trial_ids:
                with suppress(OptunaError, SQLAlchemyError):  # the main thread's next write says what is wrong
                    self._storage.record_heartbeat(trial_id)
