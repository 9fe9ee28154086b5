"""One work on many tasks: by the workers of a cluster, or by the processes or threads of this machine.

Whoever works, the results and their order are the same. A stage does not know whether it is helped: the process
that runs it says so (``use_cluster``). Workers read by the caller's own paths: they stand in the same, shared folder.
"""

import asyncio
import ipaddress
import itertools
import logging
import os
import socket
import threading
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import joblib

from deepsky.errors import ConfigError, DeepSkyError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Keras draws first weights from Python's own random numbers, which all threads of a process share: who sets their seed
# and builds, and who builds beside him in a thread of a worker, hold this lock.
KERAS_LOCK = threading.RLock()

_UNFINISHED = {"waiting", "constrained", "ready", "executing", "long-running", "cancelled", "resumed"}  # dask's words
_SETTLE_S, _POLL_S = 0.2, 0.02


def mapped(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    n_ahead: int,
    locally: Literal["processes", "threads", "here"],
) -> Generator[Result, None, None]:
    """Work on tasks, and yield the results in the tasks' order.

    An error of a task is raised as it is, in its turn. Closing the generator takes back the tasks that have not begun
    and waits for those that have; close it (``contextlib.closing``) before what they write to goes.

    Args:
        work: a function of a module, or a partial of one, which goes to other processes. A cluster does a task again
            whose worker was lost, so that doing it twice must be the same as once.
        tasks: they go there as well: paths and places, never pixels.
        n_ahead: tasks or results that may wait for the caller: it bounds the memory, on any number of cores. (Not so
            with processes: what they have done waits, however slow the caller is.)
        locally: who works where there is no cluster: processes, threads (for what lets go of the interpreter's lock),
            or the caller himself.
    """
    if _cluster is not None and (threads := _cluster.threads()):
        yield from _on_cluster(_cluster, threads, work, tasks, n_ahead)
    elif locally == "processes":
        yield from _in_processes(work, tasks)
    elif locally == "threads":
        yield from in_threads(work, tasks, n_ahead=n_ahead)
    else:
        yield from map(work, tasks)


def use_cluster(connect: Callable[[], Any], *, resource: str, own: Callable[[], str | None]) -> None:
    """Let ``mapped`` work through a dask cluster; a worker calls this once, before it starts.

    Args:
        connect: makes the client, when it is first needed: a synchronous one.
        resource: what the workers have that stand in the same folder with the same code.
        own: gives the address of this process's worker, or None: it is none, and any worker is better than none.
    """
    global _cluster
    _cluster = _Cluster(connect, resource, own)


def is_helped() -> bool:
    """Tell whether ``mapped`` works through a cluster now.

    It does if one of the workers that may help is on another host: those on this host alone have no core that this
    process could not use itself.
    """
    return _cluster is not None and bool(_cluster.threads())


@dataclass
class _Cluster:
    connect: Callable[[], Any]
    resource: str
    own: Callable[[], str | None]
    known: Any = None

    @property
    def client(self) -> Any:
        if self.known is None:
            self.known = self.connect()
        return self.known

    def threads(self) -> dict[str, int]:
        """Return how many tasks each worker may have at a time, by address; none where a cluster is of no use."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        own = self.own()
        own_host = workers[own]["host"] if own in workers else None
        workers = {address: worker for address, worker in workers.items() if self.resource in worker["resources"]}
        if not {worker["host"] for worker in workers.values()} - {own_host}:
            return {}
        return {address: max(1, worker["nthreads"] - 1) for address, worker in workers.items()}  # one holds a stage


_cluster: _Cluster | None = None


def client_of(address: str) -> Any:
    """Return a client of a dask scheduler.

    Args:
        address: tls://HOST:PORT, by the keys of dask's configuration, or tcp://127.0.0.1:PORT.

    Raises:
        ConfigError: the address is wrong, or would carry code over a network in the open.
        DeepSkyError: no scheduler answers there.
    """
    check_address(address)
    from distributed import Client  # slow to import
    from distributed.security import Security

    quieten()
    try:
        return Client(address, security=Security(), set_as_default=False)
    except (OSError, ValueError) as error:
        raise not_there(address, error) from error


def check_address(address: str) -> None:
    """Refuse a scheduler's address that is none, and one beyond this machine without TLS.

    Raises:
        ConfigError: says which.
    """
    parts = urlsplit(address)
    with suppress(ValueError):
        if parts.scheme in ("tcp", "tls") and parts.hostname and parts.port:
            if parts.scheme == "tls" or is_loopback(parts.hostname):
                return
            remedy = "give tls://HOST:PORT, with the keys in dask's configuration (distributed.comm.tls)"
            raise ConfigError(f"scheduler {address}", "would send code over the network unprotected", remedy)
    raise ConfigError(f"scheduler {address}", "is no address", "give tls://HOST:PORT or tcp://127.0.0.1:PORT")


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine's own loopback."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)


def not_there(address: str, error: BaseException) -> DeepSkyError:
    """Return what to say of a scheduler that does not answer."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DeepSkyError(f"scheduler {address}", f"does not answer ({reason})", "start one there: dask scheduler")


def quieten() -> None:
    """Let dask be silent: what goes wrong is said in a line of ours."""
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def connected(scheduler: str, resource: str) -> Iterator[None]:
    """Let ``mapped`` work through a dask scheduler in the block.

    Args:
        scheduler: its address.
        resource: what the workers have that stand in the same folder with the same code.

    Raises:
        ConfigError: the address is wrong.
        DeepSkyError: no scheduler answers there, or it has no such workers.
    """
    global _cluster
    with client_of(scheduler) as client:
        use_cluster(lambda: client, resource=resource, own=lambda: None)
        try:
            if not is_helped():
                remedy = f"run deepsky worker {scheduler} in this folder, as installed here"
                raise DeepSkyError(f"scheduler {scheduler}", "has no worker for this project", remedy)
            yield
        finally:
            _cluster = None


def in_threads(work: Callable[[Task], Result], tasks: Iterable[Task], *, n_ahead: int) -> Generator[Result, None, None]:
    """Work on tasks in threads of this process, whatever they carry, in order.

    Args:
        work: called in one of the threads.
        tasks: taken from the caller's thread, only ``n_ahead`` ahead of the results.
        n_ahead: as for ``mapped``.
    """
    pool = ThreadPoolExecutor(joblib.cpu_count())
    try:
        yield from _in_order(lambda task: pool.submit(work, task), tasks, n_ahead)
    finally:
        pool.shutdown(cancel_futures=True)  # at an error: what nobody will take


def _in_processes(work: Callable[[Task], Result], tasks: Sequence[Task]) -> Generator[Result, None, None]:
    n_processes = min(joblib.effective_n_jobs(-1), len(tasks))
    if n_processes <= 1:
        yield from map(work, tasks)
        return
    start = {"initializer": _be_one_of_many, "initargs": (Path.cwd(),)}
    # A process that has grown ends, and another one takes its place: nobody need know.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor")
    parallel = joblib.Parallel(n_processes, return_as="generator", **start)
    # Closed before its end, or at an error, joblib ends the processes.
    with closing(parallel(joblib.delayed(work)(task) for task in tasks)) as results:
        yield from results


def _be_one_of_many(folder: Path) -> None:
    """Stand where the caller stands, and let OpenCV take one thread: the processes are the parallelism."""
    import cv2

    os.chdir(folder)
    cv2.setNumThreads(1)


def _in_order(submit: Callable[[Task], Any], tasks: Iterable[Task], n_ahead: int) -> Generator[Any, None, None]:
    """Yield the results of futures, those of executors or dask's, in order; forget what nobody took."""
    waiting = deque[Any]()
    try:
        for task in tasks:
            waiting.append(submit(task))
            if len(waiting) > n_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _on_cluster(
    cluster: _Cluster, threads: dict[str, int], work: Callable[[Task], Result], tasks: Sequence[Task], n_ahead: int
) -> Generator[Result, None, None]:
    """Give each task to the worker that has the fewest of them; if it is lost, dask gives them to another.

    Dask's own choice also counts the stages that a worker has or that wait for it, though they leave its other threads
    free: it would spare the caller's worker, and would hold a large group of tasks back for ever while as many stages
    wait for each worker as it has threads.
    """
    name = f"{getattr(work, 'func', work).__name__.strip('_')}-{uuid.uuid4().hex}"
    client, done = cluster.client, partial(_done, work, cluster.resource)
    given: dict[str, list[Any]] = {address: [] for address in threads}

    def submit(task: Task) -> Any:
        for address, futures in given.items():
            given[address] = [future for future in futures if not future.done()]
        least = min(given, key=lambda address: len(given[address]) / threads[address])
        key = f"{name}-{next(places)}"
        future = client.submit(done, task, key=key, pure=False, workers=[least], allow_other_workers=True)
        given[least].append(future)
        return future

    places = itertools.count()
    try:
        yield from _in_order(submit, tasks, n_ahead)
    except BaseException:
        # A running task cannot be stopped, and must not go on writing when the caller clears away.
        client.run(_wait_for_the_end, name, on_error="ignore")
        raise


def _done(work: Callable[[Task], Result], resource: str, task: Task) -> Result:
    """Do a task in a worker; one that stands elsewhere may get that of a lost worker, but must not do it."""
    if _cluster is None or _cluster.resource != resource:
        raise DeepSkyError("a worker", "is of another project or code", "start all workers anew, in the same folder")
    return work(task)


async def _wait_for_the_end(name: str, dask_worker: Any) -> None:
    """Wait, on a worker, until it does nothing more for the tasks of a map that were taken back."""
    await asyncio.sleep(_SETTLE_S)  # a task that was on its way here has come, and so has its cancellation
    tasks = dask_worker.state.tasks
    while any(name in str(key) and task.state in _UNFINISHED for key, task in tasks.items()):
        await asyncio.sleep(_POLL_S)
