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
from typing import Any, BinaryIO

from deepsky.pipeline.logs import ends_of

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
        output: what a worker printed, or what went wrong in it; empty else.
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

    def start(self, name: str, command: Sequence[str], output: BinaryIO, **options: Any) -> None:
        """Start a command that reads no terminal.

        Args:
            name: what ``next_ended`` calls it; no running child has it.
            command: program and arguments.
            output: file for what it prints. Not a pipe: what a child leaves running would hold a pipe open.
            options: Popen's own, such as cwd and env.
        """
        process = self._begin(name, command, output, options)

        def report() -> None:
            self._events.put(Ended(name, process.wait(), ""))

        threading.Thread(target=report, daemon=True).start()

    def start_worker(self, name: str, command: Sequence[str], **options: Any) -> None:
        """Start a command whose output ``next_ended`` gives; what it leaves running when it dies is killed.

        Args:
            name: as for ``start``.
            command: program and arguments.
            options: Popen's own, such as cwd and env.
        """
        output = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the worker has ended
        process = self._begin(name, command, output, options)

        def report() -> None:
            # Its own processes may write where the stage runs again. While it is not reaped, its group's id is its own.
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                _send(process.pid, signal.SIGKILL)
            returncode = process.wait()
            with output:
                self._events.put(Ended(name, returncode, ends_of(output)))

        threading.Thread(target=report, daemon=True).start()

    def _begin(
        self, name: str, command: Sequence[str], output: BinaryIO, options: Mapping[str, Any]
    ) -> "subprocess.Popen[bytes]":
        process = self._running[name] = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
            **options,
        )
        return process

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
