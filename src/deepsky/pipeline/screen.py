"""What a person sees of a pipeline at work: bars on a terminal, plain lines elsewhere."""

import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

# What DVC, TensorFlow and progress bars say every time.
_CHATTER = (
    "Running stage",
    "> ",
    "Updating lock",
    "Generating lock",
    "To track",
    "\tgit add",
    "To enable",
    "\tdvc config",
    "Use `dvc push`",
    "WARNING: All log messages before absl",
    "I0000 ",
    "E0000 ",
)
_BAR = "━"
_WARNING = "WARNING: "
_LONGEST_WARNING, _LONGEST_LINE = 200, 1000
_HEAD_LINES, _TAIL_LINES = 5, 40  # of a stage that says very much
# What would move the cursor, colour the terminal or rename its window.
_CONTROL = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\\\)|.)?|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PLAIN_EVERY_S = 30.0


@dataclass
class _Running:
    """A stage that runs: since when, how much of it is done (0 to 1, or unknown), and its bar."""

    since: float
    share: float | None = None
    bar: TaskID | None = None


class Screen:
    """Shows stages on standard output; for the block that it opens."""

    def __init__(self, n_stages: int) -> None:
        """Show nothing yet.

        Args:
            n_stages: in all.
        """
        self._n_stages, self._n_ended = n_stages, 0
        self._running: dict[str, _Running] = {}
        self._warned: set[str] = set()
        self._begun = self._last_said = time.monotonic()
        self._console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._closing = ExitStack()
        self._bars: Progress | None = None
        self._all: TaskID | None = None

    def __enter__(self) -> "Screen":
        if self._console.is_terminal:
            share = TextColumn("{task.fields[share]}")
            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), share)
            self._bars = Progress(*columns, console=self._console, transient=True)
            self._all = self._bars.add_task("stages", total=self._n_stages, share="")
            self._closing.enter_context(self._bars)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._closing.close()

    def begin(self, stage: str) -> None:
        """Show a stage as running."""
        if stage in self._running:  # its next command
            return
        one = self._running[stage] = _Running(time.monotonic())
        if self._bars is not None:
            one.bar = self._bars.add_task(stage, total=None, share="")

    def on_progress(self, event: Mapping[str, Any]) -> None:
        """Show how far a stage is: ``stage``, ``done`` of ``total``; from any thread."""
        one = self._running.get(event["stage"])
        if one is None or not event["total"]:
            return
        one.share = event["done"] / event["total"]
        if self._bars is not None and one.bar is not None:
            share = f"{event['done']:g}/{event['total']:g}"
            self._bars.update(one.bar, completed=event["done"], total=event["total"], share=share)

    def end(self, stage: str, lines: Sequence[str], *, failed: bool = False) -> None:
        """Show a stage as ended, with what it said; what a failed one said comes last of all, by ``say``."""
        one = self._running.pop(stage, None)
        self._n_ended += 1
        if self._bars is not None and self._all is not None:
            if one is not None and one.bar is not None:
                self._bars.remove_task(one.bar)
            left_s = (time.monotonic() - self._begun) / self._n_ended * (self._n_stages - self._n_ended)
            share = f"{self._n_ended}/{self._n_stages}, about {_duration(left_s)} left"
            self._bars.update(self._all, completed=self._n_ended, share=share)
        took = f", {_duration(time.monotonic() - one.since)}" if one is not None else ""
        head = f"[{self._n_ended}/{self._n_stages}] {time.strftime('%H:%M:%S')} {stage}"
        if failed:
            self.say(f"{head} failed; what does not wait for it goes on")
            return
        self.say(f"{head}{took}")
        self._say_indented(self._once(lines))

    def say(self, text: str, lines: Iterable[str] = ()) -> None:
        """Print a line, and more below it."""
        self._console.print(text)
        self._say_indented(lines)
        sys.stdout.flush()
        self._last_said = time.monotonic()

    def wait(self) -> None:
        """Say now and then what is running where no bar shows it."""
        if self._bars is not None or not self._running or time.monotonic() - self._last_said < _PLAIN_EVERY_S:
            return
        now = time.monotonic()
        parts = [
            f"{stage} ({'' if one.share is None else f'{one.share:.0%}, '}{_duration(now - one.since)})"
            for stage, one in list(self._running.items())
        ]
        self.say(f"{time.strftime('%H:%M:%S')} running: {', '.join(parts)}")

    def _say_indented(self, lines: Iterable[str]) -> None:
        lines = [line for line in lines if line.strip() and not line.startswith(_CHATTER) and _BAR not in line]
        for line in _shortened(lines):
            self._console.print(f"    {_CONTROL.sub('', line)[:_LONGEST_LINE]}")
        sys.stdout.flush()

    def _once(self, lines: Iterable[str]) -> list[str]:
        """Return the lines, each warning once and not too long."""
        kept = []
        for line in lines:
            if line.startswith(_WARNING) and not line.startswith(_CHATTER):
                if line in self._warned:
                    continue
                self._warned.add(line)
                if len(line) > _LONGEST_WARNING:
                    line = f"{line[:_LONGEST_WARNING]}... (the stage's log has it all)"
            kept.append(line)
        return kept


def _shortened(lines: Sequence[str]) -> Sequence[str]:
    if len(lines) <= _HEAD_LINES + _TAIL_LINES:
        return lines
    n_left_out = len(lines) - _HEAD_LINES - _TAIL_LINES
    return [*lines[:_HEAD_LINES], f"... ({n_left_out} lines are left out)", *lines[-_TAIL_LINES:]]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
