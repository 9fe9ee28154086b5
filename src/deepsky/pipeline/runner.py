"""Which stage runs when."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from deepsky.errors import DeepSkyError
from deepsky.pipeline.children import Children, Ended
from deepsky.pipeline.ledger import Command, Ledger, Work, causes, open_ledger
from deepsky.pipeline.logs import open_log, said
from deepsky.pipeline.screen import Screen
from deepsky.pipeline.workers import Workers

# These show what is there: they run whatever failed before them, but for what they cannot do without.
SHOWING: Mapping[str, frozenset[str]] = {
    "evaluate": frozenset({"plan"}),
    "report": frozenset({"plan", "evaluate"}),
}
_TRIES = 2  # of a stage whose worker dies
_LOOK_S, _LOOK_SOON_S = 1.0, 0.2  # the latter while a stage waits for a worker that is just starting


class StagesFailed(DeepSkyError):
    """Stages failed; what does not wait for them was finished.

    Attributes:
        stages: their DVC addresses.
    """

    def __init__(self, stages: Collection[str]) -> None:
        where = f"stage{'s' if len(stages) > 1 else ''} {', '.join(stages)}"
        super().__init__(where, "failed", "its own line above says why")
        self.stages = frozenset(stages)


def bring_up_to_date(
    jobs: int, stages: Collection[str] | None = None, targets: Sequence[str] = (), scheduler: str | None = None
) -> int:
    """Run the stages that have changed, independent ones side by side, and enter them in dvc.lock.

    A stage that fails stops only what waits for it. Stages that are up to date start no process.

    Args:
        jobs: stages that may run at a time.
        stages: DVC addresses; these and no other are considered, whatever else is stale. None means what
            the targets need.
        targets: as `dvc repro` takes them; none means all.
        scheduler: address of a Dask scheduler whose workers run deepsky's own stages; None: workers of this process.

    Returns:
        How many stages were not up to date.

    Raises:
        ConfigError: the scheduler's address is wrong.
        StagesFailed: some did.
        DeepSkyError: the pipeline cannot be read, or there are no workers.
        KeyboardInterrupt: Ctrl-C came; what ran has ended.
        SystemExit: SIGTERM or a hangup came; what ran has ended.
    """
    screens: list[Screen] = []
    workers = Workers(jobs, scheduler, lambda event: screens[0].on_progress(event))
    with workers, Children() as children, open_ledger(children.check) as ledger:
        graph = ledger.plan(targets, stages)
        with Screen(len(graph)) as screen:
            screens.append(screen)
            Runner(graph, ledger, children, workers, screen, jobs).run()
    return len(graph)


@dataclass
class _Task:
    """A stage that runs: its commands to come, and how many have begun."""

    work: Work
    commands: deque[Command]
    n_begun: int = 0


class Runner:
    """Runs the stages of a graph, each once, when those that it waits for are done."""

    def __init__(
        self,
        graph: Mapping[str, Collection[str]],
        ledger: Ledger,
        children: Children,
        workers: Workers,
        screen: Screen,
        jobs: int,
    ) -> None:
        """Take what to run and what to run it with.

        Args:
            graph: each stage's DVC address, and those of all stages that it waits for.
            ledger: knows every stage of the graph.
            children: for workers, and for commands that are not deepsky's own.
            workers: for deepsky's own commands.
            screen: shows what happens.
            jobs: stages that may run at a time.
        """
        self._sorter = TopologicalSorter(graph)
        self._sorter.prepare()
        self._graph, self._ledger, self._children, self._jobs = graph, ledger, children, jobs
        self._workers, self._screen = workers, screen
        self._running: dict[str, _Task] = {}
        self._waiting: dict[str, _Task] = {}  # begun in the books, so that who becomes free need not wait
        self._n_tries: dict[str, int] = {}
        self._left_out: list[str] = []
        self._failed: dict[str, list[str]] = {}

    def run(self) -> None:
        """Run every stage that can run; what failed is said last.

        Raises:
            StagesFailed: by name.
            DeepSkyError: the workers' scheduler went away, or they cannot work.
        """
        ready: deque[str] = deque()
        try:
            while self._sorter.is_active():
                ready.extend(self._sorter.get_ready())
                if ready and (not self._waiting or len(self._running) + len(self._waiting) <= self._jobs):
                    self._begin(ready.popleft())
                elif ended := self._children.next_ended(_LOOK_SOON_S if self._waiting else _LOOK_S):
                    self._go_on(ended)
                self._workers.check(self._children)
                self._start_waiting()
                self._screen.wait()
        except DeepSkyError:
            self._record_ended()
            raise
        if self._failed:
            self._report_failures()

    def _begin(self, stage: str) -> None:
        missing = self._failed.keys() | set(self._left_out)
        if SHOWING.get(stage, set(self._graph[stage])) & missing:
            self._left_out.append(stage)
            self._sorter.done(stage)
            return
        try:
            work = self._ledger.begin(stage)
        except Exception as error:  # as DVC's own --keep-going: the other stages can still be finished
            self._fail(stage, [f"ERROR: {causes(error)}"])
            return
        if work.commands:
            self._waiting[stage] = _Task(work, deque(work.commands))
        else:
            self._succeed(stage, work.lines)

    def _start_waiting(self) -> None:
        """Start what has a worker; what waits for a GPU holds nothing else up."""
        for stage, task in list(self._waiting.items()):
            try:
                has_started = self._has_started(stage, task)
            except OSError as error:  # its log cannot be written, its folder is missing
                del self._waiting[stage]
                self._fail(stage, [f"ERROR: {error}"])
                continue
            if has_started:
                del self._waiting[stage]
                self._running[stage] = task
                task.commands.popleft()
                task.n_begun += 1
                self._screen.begin(stage)

    def _has_started(self, stage: str, task: _Task) -> bool:
        """Start the next command of a stage, deepsky's own in a worker and others here, if there is room for it."""
        command, goes_on = task.commands[0], task.n_begun > 0
        if len(self._running) >= self._jobs and not (command.own and not self._workers.are_own):
            return False
        if command.own is not None:
            return self._workers.try_start(self._children, stage, command.own, task.work, goes_on=goes_on)
        with open_log(stage, goes_on=goes_on) as log:
            self._children.start(stage, command.shell, log, **task.work.options)
        return True

    def _go_on(self, ended: Ended) -> None:
        if self._workers.is_worker(ended.name):
            self._workers.replace(self._children, ended)
            return
        task = self._running.pop(ended.name)
        if ended.is_lost:
            self._try_again(ended.name)
        elif ended.returncode:
            self._fail(ended.name, _with_problem(said(ended.name), ended))
        elif task.commands:
            self._waiting = {ended.name: task, **self._waiting}
        else:
            try:
                self._start_waiting()  # the books of this one are kept while the next one runs
            finally:
                self._record(ended.name, task)

    def _record(self, stage: str, task: _Task) -> None:
        lines = [*task.work.lines, *said(stage)]
        try:
            lines += self._ledger.finish(stage)
        except Exception as error:  # an output is missing, a disk is full
            self._fail(stage, [*lines, f"ERROR: {causes(error)}"])
        else:
            self._succeed(stage, lines)

    def _record_ended(self) -> None:
        """Keep the books of stages that ended just before everything does."""
        while ended := self._children.next_ended(0):
            task = self._running.pop(ended.name, None)
            if task and not (ended.returncode or ended.is_lost or task.commands):
                self._record(ended.name, task)

    def _try_again(self, stage: str) -> None:
        """Run a stage once more whose worker died, as if it had never begun."""
        self._n_tries[stage] = self._n_tries.get(stage, 1) + 1
        if self._n_tries[stage] > _TRIES:
            remedy = "is there too little memory? --jobs 1 needs less"
            self._fail(stage, [*said(stage), f"ERROR: its worker died {_TRIES} times; {remedy}"])
            return
        self._screen.say(f"{stage}: its worker died; it runs once more")
        self._begin(stage)

    def _succeed(self, stage: str, lines: Sequence[str]) -> None:
        self._sorter.done(stage)
        self._screen.end(stage, lines)

    def _fail(self, stage: str, lines: list[str]) -> None:
        self._failed[stage] = lines
        self._sorter.done(stage)  # what waits for it is left out when its turn comes
        self._screen.end(stage, (), failed=True)

    def _report_failures(self) -> None:
        if self._left_out:
            self._screen.say(f"not run, as they wait for what failed: {', '.join(self._left_out)}")
        for stage, lines in self._failed.items():
            self._screen.say(f"{stage} failed:", lines)
        raise StagesFailed(self._failed)


def _with_problem(lines: list[str], ended: Ended) -> list[str]:
    """Return what a stage said that failed, and why it did."""
    why = [ended.output] if ended.output and ended.output not in lines else []
    return [*lines, *why, f"ERROR: its command ended with {_how(ended.returncode)}"]


def _how(returncode: int) -> str:
    return f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
