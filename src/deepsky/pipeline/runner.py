"""Which stage runs when, and what a person sees of it."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

import click

from deepsky.errors import DeepSkyError
from deepsky.pipeline.children import Children, Ended
from deepsky.pipeline.ledger import Ledger, causes, open_ledger

# What DVC and TensorFlow say every time.
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


def bring_up_to_date(jobs: int, stages: Collection[str] | None = None, targets: Sequence[str] = ()) -> None:
    """Run the stages that have changed, independent ones side by side, and enter them in dvc.lock.

    A stage that fails stops only what waits for it. Stages that are up to date start no process.

    Args:
        jobs: stages that may run at a time.
        stages: DVC addresses; these and no other are considered, whatever else is stale. None means what
            the targets need.
        targets: as `dvc repro` takes them; none means all.

    Raises:
        DeepSkyError: the pipeline cannot be read, or stages failed.
        KeyboardInterrupt: Ctrl-C came; what ran has ended.
        SystemExit: SIGTERM or a hangup came; what ran has ended.
    """
    with Children() as children, open_ledger(children.check) as ledger:
        Runner(ledger.plan(targets, stages), ledger, children, jobs).run()


@dataclass
class _Task:
    """A stage whose commands run: those to come, how to start them, and what was said so far."""

    commands: deque[Sequence[str]]
    options: Mapping[str, Any]
    lines: list[str]


class Runner:
    """Runs the stages of a graph, each once, when those that it waits for are done."""

    def __init__(self, graph: Mapping[str, Collection[str]], ledger: Ledger, children: Children, jobs: int) -> None:
        """Take what to run and what to run it with.

        Args:
            graph: each stage's DVC address, and those of the stages that it waits for.
            ledger: knows every stage of the graph.
            children: for the stages' commands.
            jobs: stages that may run at a time.
        """
        self._sorter = TopologicalSorter(graph)
        self._sorter.prepare()
        self._names, self._ledger, self._children, self._jobs = list(graph), ledger, children, jobs
        self._running: dict[str, _Task] = {}
        self._done: set[str] = set()
        self._failed: dict[str, list[str]] = {}

    def run(self) -> None:
        """Run every stage that can run; what failed is said last.

        Raises:
            DeepSkyError: stages failed, by name.
        """
        ready = deque(self._sorter.get_ready())
        while ready or self._running:
            if ready and len(self._running) < self._jobs:
                self._begin(ready.popleft())
            else:
                self._go_on(self._children.next_ended())
            if self._sorter.is_active():
                ready.extend(self._sorter.get_ready())
        if self._failed:
            self._report_failures()

    def _begin(self, stage: str) -> None:
        try:
            work = self._ledger.begin(stage)
            if work.commands:
                self._start_next(stage, _Task(deque(work.commands), work.options, list(work.lines)))
        except Exception as error:  # as DVC's own --keep-going: the other stages can still be finished
            self._fail(stage, [f"ERROR: {causes(error)}"])
        else:
            if not work.commands:
                self._succeed(stage, work.lines)

    def _start_next(self, stage: str, task: _Task) -> None:
        self._children.start(stage, task.commands.popleft(), keep_output=True, **task.options)
        self._running[stage] = task

    def _go_on(self, ended: Ended) -> None:
        task = self._running.pop(ended.name)
        task.lines += ended.output.splitlines()
        if ended.returncode:
            self._fail(ended.name, [*task.lines, f"ERROR: its command ended with {_how(ended.returncode)}"])
            return
        try:
            if task.commands:
                self._start_next(ended.name, task)
                return
            task.lines += self._ledger.finish(ended.name)
        except Exception as error:  # an output is missing, a disk is full
            self._fail(ended.name, [*task.lines, f"ERROR: {causes(error)}"])
        else:
            self._succeed(ended.name, task.lines)

    def _succeed(self, stage: str, lines: Sequence[str]) -> None:
        self._done.add(stage)
        self._sorter.done(stage)
        click.echo(f"{self._count()} {stage}{_indented(lines)}")

    def _fail(self, stage: str, lines: list[str]) -> None:
        self._failed[stage] = lines
        click.echo(f"{self._count()} {stage} failed; what does not wait for it goes on")

    def _count(self) -> str:
        return f"[{len(self._done) + len(self._failed)}/{len(self._names)}]"

    def _report_failures(self) -> None:
        ended = self._done | self._failed.keys()
        if left := [stage for stage in self._names if stage not in ended]:
            click.echo(f"not run, as they wait for what failed: {', '.join(left)}")
        for stage, lines in self._failed.items():
            click.echo(f"{stage} failed:{_indented(lines)}")
        where = f"stage{'s' if len(self._failed) > 1 else ''} {', '.join(self._failed)}"
        raise DeepSkyError(where, "failed", "its own line above says why")


def _indented(lines: Sequence[str]) -> str:
    return "".join(f"\n    {line}" for line in lines if line.strip() and not line.startswith(_CHATTER))


def _how(returncode: int) -> str:
    return f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
