"""DVC's bookkeeping of single stages, as `dvc repro` does it around a command that somebody else runs.

dvc.stage.Stage.run holds one method from removing the outputs to committing them; here it stands cut in two, so that
several commands can run between the halves. DVC's lock is held in a half, never while a command runs: a person can
ask `dvc status` meanwhile.
"""

import io
import logging
import shlex
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from deepsky.errors import DeepSkyError

_T = TypeVar("_T")
_LOGGERS = ("dvc", "dvc_objects", "dvc_data")
_RETRY_S = 0.5
_SAID = {"modified": "changed", "deleted": "is missing", "new": "is new", "not in cache": "is not in the cache"}
_SHELL_SIGNS = frozenset(";&|<>$`*?()\n")


@dataclass(frozen=True)
class Command:
    """A command of a stage.

    Attributes:
        shell: program and arguments as DVC starts them: through a shell.
        own: its words after ``deepsky`` where it is one of deepsky's own that needs no shell and runs in the project's
            root; else None.
    """

    shell: Sequence[str]
    own: Sequence[str] | None


@dataclass(frozen=True)
class Work:
    """What a stage needs done.

    Attributes:
        commands: to be run one after the other until one fails; none when DVC's books are in order already.
        options: Popen's, for each of them.
        lines: what DVC says of it.
    """

    commands: Sequence[Command]
    options: Mapping[str, Any]
    lines: Sequence[str]


class Ledger:
    """DVC's books of the project in the working directory; for one thread."""

    def __init__(self, repo: Any, check: Callable[[], None]) -> None:
        self._repo, self._check = repo, check
        self._stages: dict[str, Any] = {}
        self._graph: dict[str, set[str]] = {}

    def plan(self, targets: Sequence[str], only: Collection[str] | None) -> dict[str, set[str]]:
        """Map each stage that may have to run to the stages that it must wait for, both by DVC address.

        Args:
            targets: as `dvc repro` takes them; none means all. They bring what they need.
            only: consider these stages and no other, whatever targets says.

        Raises:
            DeepSkyError: the pipeline cannot be read, or has no stage of such a name.
        """
        from dvc.exceptions import DvcException  # slow to import

        try:
            return self._locked(lambda: self._plan(targets, only))[0]
        except DvcException as error:
            remedy = "mend that in dvc.yaml or params.yaml"
            raise DeepSkyError("dvc", f"cannot read the pipeline ({causes(error)})", remedy) from error

    def reasons(self, versions: Mapping[str, Any], file: str) -> list[tuple[str, str]]:
        """Return each stage of ``plan()`` that would run, by DVC address, and why; in an order in which they can run.

        Args:
            versions: what stage plan would write now.
            file: that stage plan writes them to.
        """
        found: dict[str, str] = {}
        for address, waits_for in self._graph.items():
            own = self._locked(partial(_own_reasons, self._stages[address], versions, file))[0]
            if own:
                found[address] = "; ".join(own)
            elif before := [name for name in waits_for if name in found and name != "plan"]:
                more = ", ..." if len(before) > 2 else ""
                found[address] = f"if what it reads is no longer the same (after {', '.join(before[:2])}{more})"
        return list(found.items())

    def begin(self, address: str) -> Work:
        """Make a stage ready for its commands, or settle it without: up to date, frozen, or in DVC's run cache."""
        (commands, options), lines = self._locked(lambda: self._begin(self._stages[address]))
        return Work(commands, options, lines)

    def finish(self, address: str) -> Sequence[str]:
        """Enter in dvc.lock and DVC's caches what the commands of a stage left; return what DVC says of it."""
        return self._locked(lambda: self._record(self._stages[address]))[1]

    def _plan(self, targets: Sequence[str], only: Collection[str] | None) -> dict[str, set[str]]:
        from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
        from networkx import descendants

        graph = get_active_graph(self._repo.index.graph)  # an edge leads from a stage to one that it reads
        wanted = None if only is not None else collect_stages(self._repo, targets or ["dvc.yaml"])
        steps = {stage.addressing: stage for stage in plan_repro(graph, wanted)}
        if only is not None:
            if unknown := sorted(set(only) - steps.keys()):
                raise DeepSkyError("dvc.yaml", f"has no stage {', '.join(unknown)}", "dvc stage list names them")
            steps = {address: stage for address, stage in steps.items() if address in only}
        stale: dict[str, set[str]] = {}
        for address, stage in steps.items():  # what a stage reads comes before it
            waits_for = {read.addressing for read in descendants(graph, stage)} & stale.keys()
            if waits_for or stage.changed():
                stale[address] = waits_for
        self._stages = {address: steps[address] for address in stale}
        self._graph = stale
        return stale

    def _begin(self, stage: Any) -> tuple[Sequence[Command], Mapping[str, Any]]:
        from dvc.stage.cache import RunCacheNotFoundError
        from dvc.stage.run import _enforce_cmd_list, _make_cmd, get_executable, prepare_kwargs

        if stage.frozen or not stage.cmd:
            if stage.reproduce():  # verifies and commits; a frozen stage's command is not run
                stage.dump(update_pipeline=False)
            return (), {}
        if not stage.changed():
            logging.getLogger(_LOGGERS[0]).info("Stage '%s' didn't change, skipping", stage.addressing)
            return (), {}
        stage.remove_outs(ignore_remove=False, force=False)
        try:
            self._repo.stage_cache.restore(stage)
        except RunCacheNotFoundError:
            stage.save_deps()  # says what is missing before anything runs
            shell, options = get_executable(), prepare_kwargs(stage)
            # A warm process stays in the project's root: threads that help other stages read their paths from there.
            is_in_root = Path(options["cwd"]).resolve() == Path.cwd().resolve()
            commands = [
                Command(_make_cmd(shell, text), own_words(text) if is_in_root else None)
                for text in _enforce_cmd_list(stage.cmd)
            ]
            return commands, options
        self._record(stage)
        return (), {}

    def _record(self, stage: Any) -> None:
        stage.save(run_cache=all(out.use_cache or out.is_metric or out.is_plot for out in stage.outs))
        stage.commit()
        stage.dump(update_pipeline=False)

    def _locked(self, work: Callable[[], _T]) -> tuple[_T, list[str]]:
        """Do work under DVC's lock, however long another process holds it; return what it gives and what DVC says.

        DVC's own waiting (_wait_for_lock) says nothing, and knows nothing of a running `dvc repro` that has locked
        only its stage's files. Work refused for those has changed nothing yet, or can be done again.
        """
        from dvc.lock import LockError
        from dvc.repo import lock_repo

        has_told = False
        while True:
            self._check()
            lines: list[str] = []
            try:
                with _overheard(lines), lock_repo(self._repo), self._repo.scm_context(quiet=True):
                    return work(), lines
            except LockError as error:  # after three seconds, or at once for files
                if not has_told:
                    held = str(error).splitlines()[0] if "is busy" in str(error) else "it holds the project's lock"
                    click.echo(f"waiting for another dvc to end: {held}")
                has_told = True
                time.sleep(_RETRY_S)


@contextmanager
def open_ledger(check: Callable[[], None]) -> Iterator[Ledger]:
    """Open DVC's books of the project in the working directory.

    Args:
        check: raises when waiting for a lock is to end.

    Raises:
        DeepSkyError: this is no DVC project, or its configuration is wrong.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        repo = Repo()
    except DvcException as error:
        raise DeepSkyError("dvc", f"cannot open the project ({causes(error)})", "mend .dvc/config") from error
    with repo:
        yield Ledger(repo, check)


def causes(error: BaseException | None) -> str:
    """Return what an error of DVC's says, and what it goes back to, without repeating it."""
    words = []
    while error:
        words.append(str(error) or type(error).__name__)
        error = error.__cause__
    return ": ".join(dict.fromkeys(words))


def _own_reasons(stage: Any, versions: Mapping[str, Any], file: str) -> list[str]:
    """Return why a stage would run even if no other did."""
    if stage.frozen:
        return []
    reasons = ["its command changed"] if stage.cmd_changed else []
    for dep in stage.deps:
        if dep.def_path == file and dep.hash_name == dep.PARAM_PARAMS:
            known = (dep.hash_info.value if dep.hash_info else None) or {}
            if any(known.get(name) != _found(versions, name) for name in dep.params):
                reasons.append("its settings or its code changed" if known else "it never ran")
        else:
            reasons += [f"{path} {_SAID.get(status, status)}" for path, status in dep.status().items()]
    for out in stage.outs:
        reasons += [f"{path} {_SAID.get(status, status)}" for path, status in out.status().items()]
    return reasons


def _found(versions: Mapping[str, Any], name: str) -> Any:
    """Return what ``STAGE.ITEM`` names."""
    value: Any = versions
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def own_words(command: str) -> list[str] | None:
    """Return the words of a command after ``deepsky``; None where it is another's, or needs a shell."""
    with suppress(ValueError):
        words = shlex.split(command)
        if words[:1] == ["deepsky"] and not _SHELL_SIGNS & set(command):
            return words[1:] or None
    return None


@contextmanager
def _overheard(lines: list[str]) -> Iterator[None]:
    """Collect what DVC logs instead of showing it; its bars, which it shows on a terminal only, go nowhere."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            level = f"{record.levelname}: " if record.levelno > logging.INFO else ""
            lines.extend(f"{level}{record.getMessage()}".splitlines())

    loggers = {logger: logger.handlers for logger in map(logging.getLogger, _LOGGERS)}
    for logger in loggers:
        logger.handlers = [Collector(logging.INFO)]
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, handlers in loggers.items():
            logger.handlers = handlers
