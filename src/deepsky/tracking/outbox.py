"""Sends what a training tells of its run, beside the training, which never waits for the store."""

import sys
import threading
from dataclasses import dataclass
from itertools import takewhile

from deepsky.errors import TrackingError
from deepsky.tracking.delivery import Delivery, Entry
from deepsky.tracking.journal import SPOOL, Journal


@dataclass(frozen=True)
class Pace:
    """When an outbox sends.

    Attributes:
        gather_s: seconds in which entries come together that are sent in one go.
        retry_s: seconds between two tries where the store does not answer.
    """

    gather_s: float = 3.0
    retry_s: float = 15.0


def warn_of_waiting(error: TrackingError) -> None:
    """Tell that a run waits on disk, and why."""
    told = f"{error.where}: {error.problem}; the run waits in {SPOOL}/ for the next run or deepsky runs --sync"
    print(f"WARNING: {told}", file=sys.stderr)


class Outbox:
    """The entries of one run on their way: into its journal at once, into the store by a thread of its own."""

    def __init__(self, journal: Journal, pace: Pace) -> None:
        """Begin with nothing to send; the thread starts with ``start``."""
        self.delivery = Delivery(base=journal.folder)
        self._journal, self._pace = journal, pace
        self._waiting: list[Entry] = []
        self._news = threading.Condition()
        self._is_closing = self._has_warned = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    def start(self) -> None:
        """Send from now on what is put, and what was put before."""
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Write an entry down, and let it be sent."""
        kept = self._journal.append(entry)
        with self._news:
            self._waiting.append(kept)
            self._news.notify()

    def send(self) -> None:
        """Send what waits, before the thread does.

        Raises:
            UnreachableError: the store does not answer now; the entries wait on.
            TrackingError: the store refuses.
        """
        while True:
            with self._news:
                sent = list(takewhile(lambda one: one["kind"] == "metrics", self._waiting)) or self._waiting[:1]
            if not sent:
                return
            self.delivery.write(*sent)
            with self._news:
                del self._waiting[: len(sent)]  # what is through is not sent again when the next fails

    def close(self) -> None:
        """Send the rest, where the store answers; what it does not take stays in the spool."""
        with self._news:
            self._is_closing = True
            self._news.notify()
        self._thread.join()
        self._journal.close(is_delivered=not self._waiting)

    def abandon(self) -> None:
        """Forget a run that the store refused from the start."""
        self._journal.close(is_delivered=True)

    def warn(self, error: TrackingError) -> None:
        """Tell once that the run waits on disk."""
        if not self._has_warned:
            warn_of_waiting(error)
        self._has_warned = True

    def _work(self) -> None:
        pause_s = self._pace.retry_s if self._waiting else self._pace.gather_s
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._is_closing)
                self._news.wait_for(lambda: self._is_closing, pause_s)
                is_last = self._is_closing
            try:
                self.send()
                pause_s = self._pace.gather_s
            except TrackingError as error:
                self.warn(error)
                pause_s, is_last = self._pace.retry_s, self._is_closing  # it would not answer a moment later
            if is_last:
                return
