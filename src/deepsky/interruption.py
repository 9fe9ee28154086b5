"""Ctrl-C and SIGTERM: exceptions that let every run be closed, and that are not lost."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_S = 0.05


class Terminated(SystemExit):
    """SIGTERM arrived."""


class _Handler:
    """Raises what a signal means, as soon as nothing holds it back, and remembers that it did."""

    def __init__(self) -> None:
        self.n_holding, self.waiting, self.raised = 0, 0, 0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if self.n_holding and not self.waiting:  # who asks again and again does not want to wait
            self.waiting = number
        else:
            self.raised = number
            raise _meaning(number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM unwind the block like Ctrl-C does; only the main thread may set signal handlers.

    Python drops an exception that comes while it runs a callback of a weak reference or ``__del__``: such a signal
    is sent again. Compiled code that was called back in the middle of its work may raise an error of its own instead
    (TensorFlow: SystemError, bad argument to internal function): where a signal came before, it is the signal's.
    """
    if threading.current_thread() is not threading.main_thread() or _handler():
        yield
        return
    handler, report = _Handler(), sys.unraisablehook

    def dropped(lost: "sys.UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt | Terminated):
            report(lost)
            return
        number = signal.SIGTERM if isinstance(lost.exc_value, Terminated) else signal.SIGINT
        threading.Timer(_AGAIN_S, signal.pthread_kill, (threading.main_thread().ident, number)).start()

    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    sys.unraisablehook = dropped
    try:
        yield
    except Exception as error:
        if handler.raised:
            raise _meaning(handler.raised) from error
        raise
    finally:
        sys.unraisablehook = report
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a signal wait until the block has ended, inside of ``interruptible``; elsewhere do nothing.

    Compiled code that runs for long, and calls Python back now and then, belongs into such a block: TensorFlow's does
    not expect an exception there and may crash the process. It lets the signal in by ``interrupt_here``.
    """
    handler = _handler()
    if handler is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler.n_holding += 1
    try:
        yield
    finally:
        handler.n_holding -= 1
    if handler.waiting and not handler.n_holding:
        number, handler.waiting = handler.waiting, 0
        handler(number, None)


def interrupt_here() -> None:
    """Raise what a signal means that waits for the end of an ``uninterrupted`` block.

    Raises:
        KeyboardInterrupt: Ctrl-C came.
        Terminated: SIGTERM came.
    """
    handler = _handler()
    if handler and handler.waiting and threading.current_thread() is threading.main_thread():
        number, handler.waiting = handler.waiting, 0
        handler.raised = number
        raise _meaning(number)


def status_of(error: BaseException) -> str:
    """Return what MLflow calls the end of a run: KILLED from outside, or FAILED."""
    handler = _handler()
    signalled = isinstance(error, KeyboardInterrupt | SystemExit) or (handler is not None and handler.raised)
    return "KILLED" if signalled else "FAILED"


def _meaning(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(128 + number)


def _handler() -> _Handler | None:
    handler = signal.getsignal(signal.SIGTERM)
    return handler if isinstance(handler, _Handler) else None
