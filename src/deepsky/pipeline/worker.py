"""A worker of the engine: stages run in its main thread, one at a time, and find its imports warm."""

import asyncio
import gc
import hashlib
import ipaddress
import os
import signal
import socket
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

import psutil
from distributed import Worker
from distributed.security import Security

from deepsky import parallel, progress
from deepsky.errors import DeepSkyError

LOGS = Path("logs")
MAIN = "main"  # the executor of stages
PROGRESS = "deepsky-progress"  # the topic of events (stage, done, total)
_PROJECT_ID = Path(".dvc/tmp/deepsky-project")  # who reads the same id sees the same folder
_MATTERS = ("deepsky", "numpy", "keras", "tensorflow", "jax", "distributed")


@dataclass(frozen=True)
class Task:
    """A command of a stage.

    Attributes:
        stage: its DVC address.
        words: of the command line, without ``deepsky``.
        folder: where it runs, from the project's root.
        environment: variables that are set for it.
        goes_on: whether a command of the same stage ran before it.
    """

    stage: str
    words: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    goes_on: bool


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Attributes:
        returncode: 0 is well.
        address: of the worker.
        n_bytes: of memory that the worker holds now.
    """

    returncode: int
    address: str
    n_bytes: int


def log_of(stage: str) -> Path:
    """Return the log file of a stage, from the project's root."""
    return LOGS / f"{stage.replace('/', '_').replace(':', '_')}.log"


def resource_of(root: Path) -> str:
    """Return the resource that workers of one project, of one code and of the same versions have in common."""
    return f"stage-{hashlib.sha256(repr(identity(root)).encode()).hexdigest()[:12]}"


def identity(root: Path) -> dict[str, str]:
    """Return what must be equal of an engine and its workers: project, code and versions."""
    file = root / _PROJECT_ID
    if not file.exists() and (root / ".dvc").is_dir():
        file.parent.mkdir(exist_ok=True)
        with suppress(FileExistsError), file.open("x") as new:
            new.write(uuid.uuid4().hex)
    project = file.read_text() if file.exists() else f"none in {root}"
    versions = {name: version(name) for name in _MATTERS} | {"python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
    return {"project": project, "code": _code(), **versions}


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

    def serve(self) -> None:
        """Run what is submitted until ``shutdown``; Ctrl-C ends a stage, if one runs, and the worker."""
        with suppress(KeyboardInterrupt):
            while task := self._tasks.get():
                future, work = task
                try:
                    future.set_result(work())
                except Exception as error:
                    future.set_exception(error)

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

    def stop(self, stage: str = "") -> None:
        """Send the stage that runs, if it is this one, what Ctrl-C sends; from another thread."""
        with self._lock:
            if self._stage and stage in ("", self._stage) and not self._is_told:
                self._is_told = True
                assert self._main
                signal.pthread_kill(self._main, signal.SIGINT)

    @property
    def was_told(self) -> bool:
        """Whether the interruption of the last stage came from ``stop``."""
        return self._is_told


# Of this process: a task finds them here, for dask's own get_worker knows only its own threads.
_here = MainThread()
_worker: Worker
_command_line: Callable[[], None]


def serve(address: str, command_line: Callable[[], None], n_threads: int) -> None:
    """Be a worker of a scheduler until that goes away, or Ctrl-C.

    Args:
        address: of the scheduler.
        command_line: runs ``sys.argv``.
        n_threads: for what a stage gives to all workers.

    Raises:
        DeepSkyError: the scheduler is not there, or went away in the middle of a stage.
    """
    global _command_line
    _command_line = command_line
    root, failed = Path.cwd(), list[BaseException]()
    resources = {resource_of(root): 1.0, **({"gpu": 1.0} if has_gpu() else {})}

    async def attend() -> None:
        global _worker
        _worker = Worker(
            address,
            # One more than the small tasks need: a stage takes one for itself.
            nthreads=n_threads + 1,
            executor={MAIN: _here},
            resources=resources,
            memory_limit=0,  # a stage may fill the memory; the engine ends a worker that has grown
            host="127.0.0.1" if is_loopback(urlsplit(address).hostname or "") else None,
            dashboard=False,
            dashboard_address="127.0.0.1:0",
            security=Security(),  # of dask's configuration
        )
        # dask's get_worker, by which a task would find its client, knows only dask's own threads.
        parallel.use_cluster(_worker._get_client, resource=resource_of(root), own=lambda: _worker.address)
        await _worker
        await _worker.finished()

    def live() -> None:
        try:
            asyncio.run(attend())
        except BaseException as error:
            failed.append(error)
        finally:
            _here.stop()  # nobody waits for its result any more
            _here.shutdown()

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    _here.serve()
    if failed:
        reason = str(failed[0]).splitlines()[0] if str(failed[0]) else type(failed[0]).__name__
        raise DeepSkyError(address, f"cannot be reached ({reason})", "start a scheduler there: dask scheduler")


def perform(task: Task) -> Outcome:
    """Run a task in the main thread of this worker; what it prints goes into the stage's log."""
    root, log = Path.cwd(), log_of(task.stage)
    environment, arguments = dict(os.environ), sys.argv
    _as_new()
    log.parent.mkdir(exist_ok=True)
    with log.open("ab" if task.goes_on else "wb") as file, _printed_to(file.fileno()):
        os.environ.update(task.environment, DVC_ROOT=str(root))
        sys.argv = ["deepsky", *task.words]
        progress.listener = partial(_send_progress, task.stage)
        try:
            with _here.running(task.stage):
                if task.folder != ".":
                    os.chdir(root / task.folder)
                returncode = _called()
        except KeyboardInterrupt:  # it came between two lines of ours
            returncode = 128 + signal.SIGINT
        finally:
            progress.listener = None
            sys.argv = arguments
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(root)
    if returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM) and not _here.was_told:
        _here.shutdown()  # a person, or the engine that started this worker, ends it
    return Outcome(returncode, _worker.address, psutil.Process().memory_info().rss)


def stop_stage(stage: str) -> None:
    """Stop a stage if it runs in this worker; the worker stays."""
    _here.stop(stage)


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine's own loopback."""
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except OSError:
        return False


def has_gpu() -> bool:
    """Tell whether this process may use an NVIDIA card, without asking a slow library."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") != "" and Path("/dev/nvidiactl").exists()


def _called() -> int:
    """Run the command line and return its exit code; what is wrong is printed."""
    try:
        _command_line()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return int(end.code or 0)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _as_new() -> None:
    """Forget what the stage before left: networks, and the numbers in their layers' names."""
    if (keras := sys.modules.get("keras")) is not None:
        with parallel.KERAS_LOCK:
            keras.utils.clear_session()
    gc.collect()


@contextmanager
def _printed_to(file: int) -> Iterator[None]:
    """Let all that this process prints, compiled code too, go into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = [(number, os.dup(number)) for number in (1, 2)]
    for number, _ in before:
        os.dup2(file, number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, kept in before:
            os.dup2(kept, number)
            os.close(kept)


def _send_progress(stage: str, done: float, total: float) -> None:
    _worker.log_event(PROGRESS, {"stage": stage, "done": done, "total": total})
