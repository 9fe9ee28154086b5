"""The engine's side of its workers: on this machine, or on those of a scheduler that was started elsewhere."""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from deepsky.cards import has_gpu, visible_cards
from deepsky.errors import DeepSkyError
from deepsky.parallel import check_address, client_of, quieten
from deepsky.pipeline.children import GRACE_S, Children, Ended
from deepsky.pipeline.ledger import Work

if TYPE_CHECKING:
    from distributed import Client, Future

_MAX_FAILED_STARTS = 2
_NAME = "worker"
# Stages whose command computes on a GPU where there is one.
_ON_GPU = ("features", "train")
# Variables that a worker elsewhere needs from the engine: where runs are logged, and the like.
_SENT = ("MLFLOW_", "DEEPSKY_")


@dataclass(frozen=True)
class _Given:
    """A stage that a worker has: by which key, and where."""

    key: str
    future: "Future"
    address: str


class Workers:
    """Warm processes that run stages. They are started with the first stage.

    Leaving the block stops the stages that still run on workers elsewhere; those of this machine are children, which
    ``Children`` ends.
    """

    def __init__(self, n_workers: int, scheduler: str | None, on_progress: Callable[[Mapping[str, Any]], None]) -> None:
        """Start nothing yet.

        Args:
            n_workers: on this machine, where there is no scheduler elsewhere.
            scheduler: address of one that was started elsewhere; None: this process has its own.
            on_progress: called with stage, done and total, in another thread.

        Raises:
            ConfigError: the scheduler's address is wrong, or would carry code over a network in the open.
        """
        if scheduler is not None:
            check_address(scheduler)
        self._n_workers, self._address, self.are_own = n_workers, scheduler or "", scheduler is None
        self._on_progress = on_progress
        self._client: Client | None = None
        self._closing = ExitStack()
        self._lock = threading.Lock()  # of the next line: dask tells in a thread of its own
        self._running: dict[str, _Given] = {}
        self._there: list[Mapping[str, Any]] = []
        self._leaving: set[str] = set()
        self._missed: set[str] = set()
        self._environment: dict[str, str] = {}
        self._n_failed = 0
        self._resource, self._lonely_since = "", 0.0
        self._max_bytes: int | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._client is not None and not self.are_own and error:
            self._stop_stages()
        self._closing.close()

    def try_start(self, children: Children, stage: str, words: Sequence[str], work: Work, *, goes_on: bool) -> bool:
        """Start a command if a worker is free; ``children.next_ended`` says when it has ended.

        The first call connects to the scheduler, or starts one.

        Args:
            children: for workers of this machine.
            stage: its DVC address.
            words: of the command line, after ``deepsky``.
            work: of the stage; gives its environment.
            goes_on: whether a command of the same stage ran before it.

        Returns:
            Whether it was started.

        Raises:
            DeepSkyError: the scheduler cannot be reached.
        """
        import dask

        from deepsky.pipeline.worker import MAIN, Task, perform

        if self._client is None:
            self._client = self._opened(children)
        address = self._free(words)
        if address is None:
            return False
        sent = () if self.are_own else _SENT
        environment = {
            name: v for name, v in work.options["env"].items() if os.environ.get(name) != v or name.startswith(sent)
        }
        key = f"{stage}-{time.monotonic_ns()}"
        task = Task(stage, key, words, environment, goes_on, self._max_bytes)
        with dask.annotate(executor=MAIN), self._lock:
            future = self._client.submit(perform, task, key=key, pure=False, workers=[address])
            self._running[stage] = _Given(key, future, address)
        future.add_done_callback(partial(self._on_error, children, stage, key))
        return True

    def is_worker(self, name: str) -> bool:
        """Tell whether a child is one of these."""
        return name.startswith(f"{_NAME} ")

    def replace(self, children: Children, ended: Ended) -> None:
        """Start another worker for one that ended.

        Raises:
            DeepSkyError: one after the other ends, though no stage does.
        """
        if ended.returncode:
            self._n_failed += 1
            if self._n_failed > self._n_workers + _MAX_FAILED_STARTS:
                said = ended.output.strip().splitlines() or [f"exit code {ended.returncode}"]
                raise DeepSkyError(ended.name, f"cannot work ({said[-1]})", "mend that, or run dvc repro")
        self._start(children, ended.name)

    def check(self, children: Children) -> None:
        """Look after the workers.

        Raises:
            DeepSkyError: the scheduler went away, or has had no worker for this project for a while.
        """
        if self._client is None:
            return
        if self._client.status != "running":
            raise DeepSkyError(self._address, "the scheduler went away", "start it and its workers, and run this again")
        everyone = self._everyone()
        self._there = [one for one in everyone if self._resource in one["resources"]]
        if self.are_own and len(self._there) < len(everyone):
            raise DeepSkyError("src/deepsky", "changed while its stages ran", "run this again")
        # What a worker had that is gone, twice in a row: dask would wait for it to come back.
        there = {worker["address"] for worker in self._there}
        missed = {given.key: stage for stage, given in self._running.copy().items() if given.address not in there}
        for key in missed.keys() & self._missed:
            if self._settled(missed[key], key):
                children.tell(Ended(missed[key], 1, "", is_lost=True))
        self._missed = set(missed)
        if there or self.are_own:
            self._lonely_since = 0.0
        elif not self._lonely_since:
            self._lonely_since = time.monotonic()
        elif time.monotonic() - self._lonely_since > _patience_s():
            raise self._lonely()

    def _opened(self, children: Children) -> "Client":
        """Connect to the scheduler, or start one and workers of its own."""
        from deepsky.pipeline.worker import ENDED, PROGRESS, resource_of

        self._resource = resource_of(Path.cwd())
        client = self._own_client() if self.are_own else client_of(self._address)
        self._closing.callback(client.close)
        client.subscribe_topic(PROGRESS + self._resource, lambda event: self._on_progress(event[1]))
        client.subscribe_topic(ENDED + self._resource, lambda event: self._on_end(children, event[1]))
        quieten()
        if self.are_own:
            for number in range(self._n_workers):
                self._start(children, f"{_NAME} {number + 1}")
        return client

    def _own_client(self) -> "Client":
        """Start a scheduler that only this user can reach, and prepare what its workers need."""
        import dask
        from distributed import Client, LocalCluster
        from distributed.security import Security
        from distributed.system import MEMORY_LIMIT

        # Whoever reaches a scheduler can run code: on a machine of many users 127.0.0.1 alone protects nobody.
        security = Security.temporary()
        # Its workers are children: whether they live needs no clock, which goes on while a computer sleeps.
        with dask.config.set({"distributed.scheduler.worker-ttl": None}):
            cluster = LocalCluster(
                n_workers=0, host="127.0.0.1", protocol="tls", security=security, silence_logs=50,
                dashboard_address=None, scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            )  # fmt: skip
        self._closing.callback(cluster.close)
        self._address = cluster.scheduler_address
        folder = Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix="deepsky-")))
        self._environment = {**os.environ, **_tls_environment(security, folder)}
        # A process that has grown past its share of half the memory makes room for a new one.
        self._max_bytes = MEMORY_LIMIT // (2 * self._n_workers)
        return Client(cluster, security=security, set_as_default=False)

    def _start(self, children: Children, name: str) -> None:
        environment, cards = dict(self._environment), visible_cards() if has_gpu() else []
        if cards:  # one worker a card; the others see none
            number = int(name.removeprefix(_NAME))
            environment["CUDA_VISIBLE_DEVICES"] = cards[number - 1] if number <= len(cards) else ""
        # A network's own threads are as many as in plain dvc repro: their number changes the last digits of a result.
        n_threads = max(1, len(os.sched_getaffinity(0)) // self._n_workers)
        command = [sys.executable, "-m", "deepsky", "worker", self._address, "--threads", str(n_threads)]
        children.start_worker(name, command, env=environment)

    def _on_end(self, children: Children, event: Mapping[str, Any]) -> None:
        """Hear that a stage has ended; called in a thread of dask's."""
        if event["leaves"]:
            self._leaving.add(event["address"])
        if self._settled(event["stage"], event["key"]):
            self._n_failed = 0
            children.tell(Ended(event["stage"], event["returncode"], event["problem"]))

    def _on_error(self, children: Children, stage: str, key: str, future: "Future") -> None:
        """Hear that a worker could not even begin, or died too often for dask; called in a thread of dask's."""
        from distributed import KilledWorker

        if future.status == "error" and self._settled(stage, key):
            error = future.exception()
            children.tell(Ended(stage, 1, str(error), is_lost=isinstance(error, KilledWorker)))

    def _settled(self, stage: str, key: str) -> bool:
        """Take a stage from its worker; tell whether it was still there, by this key."""
        with self._lock:
            if (given := self._running.get(stage)) is None or given.key != key:
                return False
            del self._running[stage]
        return True

    def _free(self, words: Sequence[str]) -> str | None:
        """Return the address of a worker that can take a command now; where there are GPUs, it may need one."""
        ours, busy = self._there, {given.address for given in self._running.copy().values()} | self._leaving
        if words[0] in _ON_GPU and (with_gpu := [worker for worker in ours if "gpu" in worker["resources"]]):
            ours = with_gpu
        return next((worker["address"] for worker in ours if worker["address"] not in busy), None)

    def _everyone(self) -> list[Mapping[str, Any]]:
        """Return all workers of the scheduler."""
        assert self._client is not None
        workers: Mapping[str, Any] = {}
        if self._client.status == "running":  # else the question waits half a minute for another connection
            with suppress(OSError):
                workers = self._client.scheduler_info(n_workers=-1).get("workers", {})
        named = [{**worker, "address": address} for address, worker in workers.items()]
        return [one for one in named if one["status"] == "running"]

    def _lonely(self) -> DeepSkyError:
        """Return what to say of a scheduler without a worker for this project."""
        from deepsky.pipeline.worker import identity, identity_at_start

        assert self._client is not None
        own, others = identity(Path.cwd()), list[Mapping[str, str]]()
        with suppress(Exception):  # workers of other people need not know deepsky
            others = list(self._client.run(identity_at_start, on_error="ignore").values())
        problem = "has no worker for this project"
        if others:
            differing = [name for name in own if any(other.get(name) != own[name] for other in others)]
            problem += f" (those that are there have another {', '.join(differing)})"
        return DeepSkyError(
            self._address, problem, f"run deepsky worker {self._address} in this folder, as installed here"
        )

    def _stop_stages(self) -> None:
        from deepsky.pipeline.worker import stop_stage

        assert self._client is not None
        deadline = time.monotonic() + GRACE_S
        for stage, given in self._running.copy().items():
            if self._client.status == "running":
                with suppress(Exception):  # the scheduler may be gone
                    self._client.run(stop_stage, stage, workers=[given.address], on_error="ignore")
        while self._running and time.monotonic() < deadline and self._client.status == "running":
            time.sleep(0.1)


def _patience_s() -> float:
    """Return how long a scheduler elsewhere may be without a worker: as long as dask waits to connect."""
    import dask

    return float(dask.utils.parse_timedelta(dask.config.get("distributed.comm.timeouts.connect")))


def _tls_environment(security: Any, folder: Path) -> dict[str, str]:
    """Write the keys of a scheduler where only this user can read them; return dask's settings that name them."""
    named = {}
    for name, text in (
        ("CA_FILE", security.tls_ca_file),
        ("WORKER__CERT", security.tls_worker_cert),
        ("WORKER__KEY", security.tls_worker_key),
    ):
        path = folder / f"{name.lower()}.pem"
        path.write_text(text)
        named[f"DASK_DISTRIBUTED__COMM__TLS__{name}"] = str(path)
    return named
