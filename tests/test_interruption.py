"""Signals become exceptions, wait where they must, and are never lost."""

import signal
import sys
import time

import pytest

from deepsky.interruption import Terminated, interrupt_here, interruptible, status_of, uninterrupted

SIGNALS = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]


class SignalsWhenDeleted:
    """Python drops an exception that comes in ``__del__``, or in a callback of a weak reference."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number

    def __del__(self) -> None:
        signal.raise_signal(self._number)


@pytest.mark.parametrize(("number", "error"), SIGNALS)
def test_a_signal_whose_exception_is_dropped_comes_again(number: signal.Signals, error: type[BaseException]) -> None:
    before, steps = (signal.getsignal(number), sys.unraisablehook), []

    @interruptible()
    def work() -> None:
        with interruptible():
            SignalsWhenDeleted(number)
            steps.append("dropped")
            time.sleep(60)
            steps.append("lost")

    with pytest.raises(error):
        work()
    assert steps == ["dropped"]
    assert (signal.getsignal(number), sys.unraisablehook) == before


@pytest.mark.parametrize(("number", "error"), SIGNALS)
def test_a_signal_waits_for_what_must_not_be_interrupted(number: signal.Signals, error: type[BaseException]) -> None:
    steps = []

    @interruptible()
    def work() -> None:
        with uninterrupted():
            with uninterrupted():
                signal.raise_signal(number)
                steps.append("inner")
            steps.append("outer")
        steps.append("behind")

    with pytest.raises(error):
        work()
    assert steps == ["inner", "outer"]


@pytest.mark.parametrize(("number", "error"), SIGNALS)
def test_what_must_not_be_interrupted_lets_a_signal_in_where_it_can(
    number: signal.Signals, error: type[BaseException]
) -> None:
    steps = []

    @interruptible()
    def work() -> None:
        with uninterrupted():
            interrupt_here()
            signal.raise_signal(number)
            steps.append("waits")
            interrupt_here()
            steps.append("lost")

    with pytest.raises(error):
        work()
    assert steps == ["waits"]
    interrupt_here()  # nothing waits any more


@pytest.mark.parametrize(("number", "error"), SIGNALS)
def test_an_error_that_compiled_code_makes_of_a_signal_is_the_signal(
    number: signal.Signals, error: type[BaseException]
) -> None:
    statuses = []

    @interruptible()
    def work() -> None:
        try:
            with interruptible():
                try:
                    signal.raise_signal(number)
                except BaseException:
                    raise SystemError("bad argument to internal function") from None
        except SystemError as made_of_it:
            statuses.append(status_of(made_of_it))
            raise

    with pytest.raises(error) as caught:
        work()
    assert statuses == ["KILLED"]
    assert isinstance(caught.value.__cause__, SystemError)


def test_an_error_without_a_signal_stays_what_it_is() -> None:
    with pytest.raises(SystemError, match="its own") as caught, interruptible():
        raise SystemError("its own")
    with interruptible():
        assert status_of(caught.value) == "FAILED"
