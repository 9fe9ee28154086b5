"""A worker of the engine: stages run in its main thread, one at a time, and find its imports warm."""

import asyncio
import fcntl
import gc
import hashlib
import io
import os
import signal
import sys
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import dask
import psutil
from distributed import Worker
from distributed.security import Security

from deepsky import lean_keras, parallel, progress
from deepsky.cards import has_gpu
from deepsky.config import PARAMS, read_yaml
from deepsky.errors import DeepSkyError
from deepsky.pipeline.logs import log_of, open_log

MAIN = "main"  # the executor of stages
# Topics of events, each followed by the project's resource: how far a stage is (stage, done, total), and its end
# (stage, key, returncode, problem, leaves). Not the result of dask's task: a worker that dies takes that with it.
PROGRESS, ENDED = "deepsky-progress-", "deepsky-ended-"
_CLOSE_S = 10.0
_PROJECT_ID = Path(".dvc/tmp/deepsky-project")  # who reads the same id sees the same folder
_MATTERS = ("deepsky", "numpy", "keras", "tensorflow", "jax", "distributed")


@dataclass(frozen=True)
class Task:
    """A command of a stage.

    Attributes:
        stage: its DVC address.
        key: names this attempt.
        words: of the command line, without ``deepsky``.
        environment: variables that are set for it.
        goes_on: whether a command of the same stage ran before it.
        max_bytes: a worker that holds more memory afterwards ends; None: it stays whatever it holds.
    """

    stage: str
    key: str
    words: Sequence[str]
    environment: Mapping[str, str]
    goes_on: bool
    max_bytes: int | None


def resource_of(root: Path) -> str:
    """Return the resource that workers of one project, of one code and of the same versions have in common."""
    return _resource_by(identity(root))


def _resource_by(of: Mapping[str, str]) -> str:
    return f"stage-{hashlib.sha256(repr(of).encode()).hexdigest()[:12]}"


def identity(root: Path) -> dict[str, str]:
    """Return what must be equal of an engine and its workers: project, code, what computes, and versions."""
    project, file = f"none in {root}", root / _PROJECT_ID
    if (root / ".dvc").is_dir():
        file.parent.mkdir(exist_ok=True)
        with file.open("a+") as held:
            fcntl.flock(held, fcntl.LOCK_EX)  # who comes second reads the whole of what the first one wrote
            held.seek(0)
            project = held.read()
            if not project:
                project = uuid.uuid4().hex
                held.write(project)
    versions = {name: version(name) for name in _MATTERS} | {"python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
    computing = {"backend": lean_keras.backend(), "deterministic": str(_is_deterministic(root))}
    return {"project": project, "code": _code(), **computing, **versions}


def identity_at_start() -> Mapping[str, str]:
    """Return the identity by which this worker offers itself, whatever has changed since."""
    return _identity


def _is_deterministic(root: Path) -> bool:
    """Tell what the project says: of a worker it holds for all its stages."""
    params = root / PARAMS
    return params.is_file() and read_yaml(params).get("deterministic") is True


def _code() -> str:
    """Return a hash of this package as it is on disk."""
    digest, package = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


class MainThread(Executor):
    """Runs what is submitted in the thread that calls ``serve``: signals reach only a process's main thread."""

    def __init__(self) -> None:
        """Run nothing yet."""
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._main, self._lock = threading.main_thread().ident, threading.Lock()
        self._stage, self._is_told = "", False

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run this when what came before is done."""
        future: Future[Any] = Future()
        self._tasks.put((future, partial(work, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End ``serve`` when what came before is done."""
        self._tasks.put(None)

    def serve(self) -> bool:
        """Run what is submitted until ``shutdown``; Ctrl-C ends a stage, if one runs, and the worker.

        Returns:
            Whether it was no Ctrl-C.
        """
        with suppress(KeyboardInterrupt):
            while task := self._tasks.get():
                future, work = task
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    result = work()
                except Exception as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
            return True
        return False

    @contextmanager
    def running(self, stage: str) -> Iterator[None]:
        """Tell that a stage runs in the block, so that it can be stopped."""
        with self._lock:
            self._stage, self._is_told = stage, False
        try:
            yield
        finally:
            with self._lock:
                self._stage = ""

    def stop(self, stage: str = "") -> bool:
        """Send the stage that runs, if it is this one, what Ctrl-C sends; from another thread.

        Returns:
            Whether it runs.
        """
        with self._lock:
            runs = bool(self._stage) and stage in ("", self._stage)
            if runs and not self._is_told:
                self._is_told = True
                assert self._main
                signal.pthread_kill(self._main, signal.SIGINT)
            return runs

    @property
    def was_told(self) -> bool:
        """Whether the interruption of the last stage came from ``stop``."""
        return self._is_told


# Of this process: a task finds them here, for dask's own get_worker knows only its own threads.
_here = MainThread()
_worker: Worker
_loop: asyncio.AbstractEventLoop
_command_line: Callable[[], None]
_identity: Mapping[str, str]
_resource: str


def serve(address: str, command_line: Callable[[], None], n_threads: int) -> None:
    """Be a worker of a scheduler until that goes away, or Ctrl-C.

    Args:
        address: of the scheduler.
        command_line: runs ``sys.argv``.
        n_threads: for what a stage gives to all workers.

    Raises:
        ConfigError: the address is wrong, or would carry code over a network in the open.
        DeepSkyError: the scheduler is not there, or went away in the middle of a stage.
    """
    global _command_line, _identity, _resource
    parallel.check_address(address)
    _command_line, _identity = command_line, identity(Path.cwd())
    _resource = _resource_by(_identity)
    lean_keras.compute_deterministically(_is_deterministic(Path.cwd()))
    failed, cut_short = list[BaseException](), list[bool]()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a script started this in the background
    _print_at_once()
    parallel.quieten()

    async def attend() -> None:
        global _worker, _loop
        _loop = asyncio.get_running_loop()
        _worker = _of_scheduler(address, n_threads)
        # dask's get_worker, by which a task would find its client, knows only dask's own threads.
        parallel.use_cluster(_worker._get_client, resource=_resource, own=lambda: _worker.address)
        await _worker
        await _worker.finished()

    def live() -> None:
        try:
            asyncio.run(attend())
        except BaseException as error:
            failed.append(error)
        finally:
            cut_short.append(_here.stop())  # nobody waits for its result any more
            _here.shutdown()

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    if _here.serve():
        thread.join(_CLOSE_S)
    if failed:
        raise parallel.not_there(address, failed[0])
    if any(cut_short):
        raise DeepSkyError(address, "went away in the middle of a stage", "start it and its workers again")


def _of_scheduler(address: str, n_threads: int) -> Worker:
    """Make the dask worker of this process, in its event loop; see ``serve``."""
    return Worker(
        address,
        nthreads=n_threads + 1,  # one more than the small tasks need: a stage takes one for itself
        executor={MAIN: _here},
        resources={_resource: 1.0, **({"gpu": 1.0} if has_gpu() else {})},
        memory_limit=0,  # a stage may fill the memory; one that holds much afterwards ends
        host="127.0.0.1" if parallel.is_loopback(urlsplit(address).hostname or "") else None,
        dashboard=False,
        dashboard_address="127.0.0.1:0",
        death_timeout=dask.config.get("distributed.comm.timeouts.connect"),
        security=Security(),  # of dask's configuration
    )


def _print_at_once() -> None:
    """Print without a buffer: a full disk is told where it is met, and forgotten by the next stage."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        raw = open(number, "wb", buffering=0, closefd=False)  # noqa: SIM115 - as long as the process
        setattr(sys, name, io.TextIOWrapper(raw, errors="replace", write_through=True))


def perform(task: Task) -> None:
    """Run a task in the main thread of this worker; what it prints goes into the stage's log, its end to ENDED.

    Raises:
        KeyboardInterrupt: Ctrl-C ended it, and ends this worker.
    """
    before, arguments = dict(os.environ), sys.argv
    returncode, problem = 1, ""
    _as_new()
    try:
        with open_log(task.stage, goes_on=task.goes_on) as file, _printed_to(file.fileno()):
            os.environ.update(task.environment, DVC_ROOT=str(Path.cwd()))
            sys.argv = ["deepsky", *task.words]
            progress.listener = partial(_send_progress, task.stage)
            with _here.running(task.stage):
                returncode, problem = _called()
    except KeyboardInterrupt:  # it came between two lines of ours
        returncode = 128 + signal.SIGINT
    except OSError as error:
        problem = f"{log_of(task.stage)}: {error.strerror}; free space or permission is missing, mend it and rerun"
    finally:
        progress.listener = None
        sys.argv = arguments
        _restore(before)
    if returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM) and not _here.was_told:
        raise KeyboardInterrupt  # a person, or the engine that started this worker, ends it
    leaves = task.max_bytes is not None and psutil.Process().memory_info().rss > task.max_bytes
    if leaves:
        _here.shutdown()
    end = {"stage": task.stage, "key": task.key, "returncode": returncode, "problem": problem, "leaves": leaves}
    _send(ENDED, {**end, "address": _worker.address})
    if leaves:  # gracefully: what it has said is to arrive
        asyncio.run_coroutine_threadsafe(_worker.close(nanny=False), _loop).result(_CLOSE_S)


def stop_stage(stage: str) -> None:
    """Stop a stage if it runs in this worker; the worker stays."""
    _here.stop(stage)


def _called() -> tuple[int, str]:
    """Run the command line; return its exit code, and the line that says what went wrong."""
    try:
        _command_line()
        return 0, ""
    except SystemExit as end:
        if not isinstance(end.code, str):
            return int(end.code or 0), ""
        problem = end.code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT, ""
    except BaseException as error:
        problem = "".join(traceback.format_exception(error))
    with suppress(OSError):  # the disk of the log may be full
        print(problem, file=sys.stderr)
    return 1, problem.strip().rpartition("\n")[2]


def _restore(environment: Mapping[str, str]) -> None:
    """Take back what was changed of the environment, and nothing else: other threads read it."""
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in environment.items() if os.environ.get(name) != value})


def _as_new() -> None:
    """Forget what the stage before left: networks, and the numbers in their layers' names."""
    keras = sys.modules.get("keras")
    if keras is None:
        gc.collect()
        return
    with parallel.KERAS_LOCK:
        keras.utils.clear_session()  # which collects garbage as well
    if not gc.get_freeze_count():
        gc.freeze()  # what was imported stays: half a million objects that no collection needs to look at again


@contextmanager
def _printed_to(file: int) -> Iterator[None]:
    """Let all that this process prints, compiled code too, go into a file."""
    before = [(number, os.dup(number)) for number in (1, 2)]
    for number, _ in before:
        os.dup2(file, number)
    try:
        yield
    finally:
        for number, kept in before:
            os.dup2(kept, number)
            os.close(kept)


def _send_progress(stage: str, done: float, total: float) -> None:
    _send(PROGRESS, {"stage": stage, "done": done, "total": total})


def _send(topic: str, event: Mapping[str, Any]) -> None:
    with suppress(RuntimeError):  # the scheduler went away, and with it whoever would hear this
        _worker.log_event(topic + _resource, event)
