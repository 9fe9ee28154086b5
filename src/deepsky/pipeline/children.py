"""Child processes in groups of their own, all ended by one Ctrl-C, SIGTERM or hangup."""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Any

GRACE_S = 10.0  # what a training has to close its run
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_S = 0.05
_AGAIN_S = 1.0  # a closing terminal sends two hangups at once: that is not a person asking again


@dataclass(frozen=True)
class Ended:
    """A child, or a stage of a worker, that ended.

    Attributes:
        name: of the child or stage.
        returncode: 0 is well, a negative number is a signal's.
        output: empty where it was not kept.
        is_lost: its worker went away; another one may try.
    """

    name: str
    returncode: int
    output: str
    is_lost: bool = False


class Children:
    """Children of the block, for the main thread. A signal waits until ``check`` or ``next_ended`` asks for it.

    DVC's books are therefore never left half-written; who sends the signal again after a second does not want to
    wait. Leaving the block ends what still runs: one SIGINT, GRACE_S seconds, then SIGKILL.
    """

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._events: SimpleQueue[Ended | None] = SimpleQueue()
        self._before: dict[int, Any] = {}
        self._signal, self._since, self._deadline = 0, 0.0, 0.0
        self._is_ending = False

    def __enter__(self) -> "Children":
        self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self._end_all()
        finally:
            for number, previous in self._before.items():
                signal.signal(number, previous)
        if not error:
            self.check()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, name: str, command: Sequence[str], keep_output: bool, **options: Any) -> None:
        """Start a command that reads no terminal.

        Args:
            name: what ``next_ended`` calls it; no running child has it.
            command: program and arguments.
            keep_output: keep what it writes instead of showing it.
            options: Popen's own, such as cwd and env.
        """
        # A file, not a pipe: what a child leaves running would hold a pipe open.
        output = tempfile.TemporaryFile() if keep_output else None  # noqa: SIM115 - closed when the child has ended
        kept: Mapping[str, Any] = {"stdout": output, "stderr": subprocess.STDOUT} if output else {}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, **kept, **options)
        self._running[name] = process

        def report() -> None:
            returncode, text = process.wait(), ""
            if output:
                with output:
                    output.seek(0)
                    text = output.read().decode(errors="replace")
            self._events.put(Ended(name, returncode, text))

        threading.Thread(target=report, daemon=True).start()

    def tell(self, ended: Ended) -> None:
        """Let ``next_ended`` return what ended elsewhere; from any thread."""
        self._events.put(ended)

    def next_ended(self, timeout_s: float | None = None) -> Ended | None:
        """Wait for a child to end; return None where none does in time.

        Raises:
            KeyboardInterrupt: Ctrl-C came.
            SystemExit: SIGTERM or a hangup came.
        """
        try:
            ended = self._events.get(timeout=timeout_s)
        except Empty:
            return None
        self.check()
        assert ended, "only a signal's handler puts None"
        self._running.pop(ended.name, None)
        return ended

    def check(self) -> None:
        """Raise what a signal that came means; KeyboardInterrupt and SystemExit as in ``next_ended``."""
        if self._signal:
            raise _meaning(self._signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._before.get(number) is signal.SIG_IGN:
            return  # nohup stays nohup; a child is started without that, else SIGINT could not end it
        if not self._signal:
            self._signal, self._since = number, time.monotonic()
            self._events.put(None)  # reentrant, as a handler needs
        elif time.monotonic() - self._since > _AGAIN_S:
            if not self._is_ending:
                raise _meaning(self._signal)
            self._deadline = 0.0

    def _end_all(self) -> None:
        self._is_ending, self._deadline = True, time.monotonic() + GRACE_S
        groups = {process.pid for process in self._running.values()}
        for group in groups:
            _send(group, signal.SIGINT)
        while groups and time.monotonic() < self._deadline:
            time.sleep(_POLL_S)
            groups = {group for group in groups if _send(group, 0)}
        for group in groups:
            _send(group, signal.SIGKILL)
        for process in self._running.values():
            process.wait()


def _send(group: int, number: int) -> bool:
    """Send a signal to a process group; False when none of it is left."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)
        return True
    return False


def _meaning(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
