"""The engine's side of its workers: on this machine, or on those of a scheduler that was started elsewhere."""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil

from deepsky.errors import ConfigError, DeepSkyError
from deepsky.pipeline.children import GRACE_S, Children, Ended
from deepsky.pipeline.ledger import Work

if TYPE_CHECKING:
    from distributed import Client, Future

_WAIT_S = 30.0  # for a scheduler to answer, and for the first worker of a scheduler elsewhere
_MAX_FAILED_STARTS = 2
_NAME = "worker"
# Stages whose command computes on a GPU where there is one.
_ON_GPU = ("features", "train")


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
        self._n_workers, self._address, self._is_own = n_workers, scheduler or "", scheduler is None
        self._on_progress = on_progress
        self._client: Client | None = None
        self._closing = ExitStack()
        self._running: dict[str, tuple[Future, str]] = {}  # with the address of its worker
        self._missed: set[str] = set()
        self._environment: dict[str, str] = {}
        self._n_failed = 0
        self._resource, self._lonely_since = "", 0.0
        # A process that has grown past its share of half the memory makes room for a new one.
        self._max_bytes = psutil.virtual_memory().total // (2 * n_workers)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._client is not None and not self._is_own and error:
            self._stop_stages()
        self._closing.close()

    def submit(self, children: Children, stage: str, words: Sequence[str], work: Work, *, goes_on: bool) -> None:
        """Start a command on a free worker, of which there must be one; ``children.next_ended`` says when it has ended.

        Args:
            children: for workers of this machine.
            stage: its DVC address.
            words: of the command line, after ``deepsky``.
            work: of the stage; gives folder and environment.
            goes_on: whether a command of the same stage ran before it.
        """
        import dask

        from deepsky.pipeline.worker import MAIN, Task, perform

        assert self._client is not None
        address = self._free(words)[0]
        environment = {key: v for key, v in work.options["env"].items() if os.environ.get(key) != v}
        task = Task(stage, words, os.path.relpath(work.options["cwd"]), environment, goes_on)
        with dask.annotate(executor=MAIN):
            key = f"{stage}-{time.monotonic_ns()}"
            future = self._client.submit(perform, task, key=key, pure=False, workers=[address])
        self._running[stage] = future, address
        future.add_done_callback(partial(self._tell, children, task.stage))

    def can_take(self, children: Children, words: Sequence[str]) -> bool:
        """Tell whether a worker is free for a command; the first call connects to the scheduler, or starts one.

        Raises:
            DeepSkyError: the scheduler cannot be reached.
        """
        if self._client is None:
            self._open(children)
        return bool(self._free(words))

    def said(self, stage: str) -> list[str]:
        """Return what a stage has printed."""
        from deepsky.pipeline.worker import log_of

        try:
            return log_of(stage).read_text(errors="replace").splitlines()
        except OSError:  # it never began
            return []

    def is_worker(self, name: str) -> bool:
        """Tell whether a child is one of these."""
        return name.startswith(f"{_NAME} ")

    def replace(self, children: Children, ended: Ended) -> None:
        """Start another worker for one that ended.

        Raises:
            DeepSkyError: workers end by an error of their own.
        """
        if ended.returncode > 0:
            self._n_failed += 1
            if self._n_failed > _MAX_FAILED_STARTS:
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
        there = {worker["address"] for worker in self._ours()}
        # One that went away before its stage reached it: dask would wait for it to come back.
        missed = {stage for stage, (_, address) in self._running.copy().items() if address not in there}
        for stage in missed & self._missed:
            if lost := self._running.pop(stage, None):
                lost[0].cancel()
                children.tell(Ended(stage, 1, "", is_lost=True))
        self._missed = missed
        if there or self._is_own:
            self._lonely_since = 0.0
        elif not self._lonely_since:
            self._lonely_since = time.monotonic()
        elif time.monotonic() - self._lonely_since > _WAIT_S:
            raise self._lonely()

    def _open(self, children: Children) -> None:
        """Connect to the scheduler, or start one and workers of its own."""
        from distributed import Client, LocalCluster
        from distributed.security import Security

        from deepsky.pipeline.worker import PROGRESS, resource_of

        self._resource = resource_of(Path.cwd())
        if self._is_own:
            # Whoever reaches a scheduler can run code: on a machine of many users 127.0.0.1 alone protects nobody.
            security = Security.temporary()
            cluster = LocalCluster(
                n_workers=0, host="127.0.0.1", protocol="tls", security=security, silence_logs=50,
                dashboard_address=None, scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            )  # fmt: skip
            self._closing.callback(cluster.close)
            self._address = cluster.scheduler_address
            folder = Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix="deepsky-")))
            self._environment = {**os.environ, **_tls_environment(security, folder)}
            self._environment |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
            place: Any = cluster
        else:
            security, place = Security(), self._address
        try:
            self._client = Client(place, security=security, timeout=_WAIT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise _not_there(self._address, error) from error
        self._closing.callback(self._client.close)
        self._client.run_on_scheduler(_leave_retries_to_us)
        self._client.subscribe_topic(PROGRESS, lambda event: self._on_progress(event[1]))
        for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is said in a line of ours
        if self._is_own:
            for number in range(self._n_workers):
                self._start(children, f"{_NAME} {number + 1}")

    def _start(self, children: Children, name: str) -> None:
        from deepsky.pipeline.worker import has_gpu

        environment, cards = dict(self._environment), _cards() if has_gpu() else []
        if cards:  # one worker a card; the others see none
            number = int(name.removeprefix(_NAME))
            environment["CUDA_VISIBLE_DEVICES"] = cards[number - 1] if number <= len(cards) else ""
        # A network's own threads are as many as in plain dvc repro: their number changes the last digits of a result.
        n_threads = max(1, len(os.sched_getaffinity(0)) // self._n_workers)
        command = [sys.executable, "-m", "deepsky", "worker", self._address, "--threads", str(n_threads)]
        children.start(name, command, keep_output=True, env=environment)

    def _tell(self, children: Children, stage: str, future: "Future") -> None:
        """Say what came of a stage; called in a thread of dask's."""
        from distributed import KilledWorker

        if self._running.get(stage, (None,))[0] is not future:
            return  # told already
        del self._running[stage]
        if future.status == "finished":
            outcome = future.result()
            if self._is_own and outcome.n_bytes > self._max_bytes and self._client is not None:
                self._client.retire_workers([outcome.address], close_workers=True)
            children.tell(Ended(stage, outcome.returncode, ""))
            return
        error = future.exception() if future.status == "error" else None
        if isinstance(error, KilledWorker):
            children.tell(Ended(stage, 1, "", is_lost=True))
        elif error is not None:
            children.tell(Ended(stage, 1, f"ERROR: {error}"))
        # else the scheduler went away, which check() says

    def _free(self, words: Sequence[str]) -> list[str]:
        """Return the addresses of the workers that could take a command now; where there are GPUs, it may need one."""
        ours, busy = self._ours(), {address for _, address in self._running.copy().values()}
        if words[0] in _ON_GPU and (with_gpu := [worker for worker in ours if "gpu" in worker["resources"]]):
            ours = with_gpu
        return [worker["address"] for worker in ours if worker["address"] not in busy]

    def _ours(self) -> list[Mapping[str, Any]]:
        """Return the workers that can run this project's stages."""
        assert self._client is not None
        workers: Mapping[str, Any] = {}
        if self._client.status == "running":  # else the question waits half a minute for another connection
            with suppress(OSError):
                workers = self._client.scheduler_info(n_workers=-1).get("workers", {})
        named = [{**worker, "address": address} for address, worker in workers.items()]
        return [one for one in named if self._resource in one["resources"] and one["status"] == "running"]

    def _lonely(self) -> DeepSkyError:
        """Return what to say of a scheduler without a worker for this project."""
        from deepsky.pipeline.worker import identity

        assert self._client is not None
        own, others = identity(Path.cwd()), list[Mapping[str, str]]()
        with suppress(Exception):  # workers of other people need not know deepsky
            others = list(self._client.run(identity, Path(), on_error="ignore").values())
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
        for stage in list(self._running):
            if self._client.status == "running":
                with suppress(Exception):  # the scheduler may be gone
                    self._client.run(stop_stage, stage, on_error="ignore")
        while self._running and time.monotonic() < deadline and self._client.status == "running":
            time.sleep(0.1)


def _leave_retries_to_us(dask_scheduler: Any) -> None:
    """Let a stage whose worker died come back at once: its outputs are to be removed before it runs again."""
    dask_scheduler.allowed_failures = 0


def check_address(address: str) -> None:
    """Refuse a scheduler's address that is none, and one beyond this machine without TLS.

    Raises:
        ConfigError: says which.
    """
    from deepsky.pipeline.worker import is_loopback

    parts = urlsplit(address)
    with suppress(ValueError):
        if parts.scheme in ("tcp", "tls") and parts.hostname and parts.port:
            if parts.scheme == "tls" or is_loopback(parts.hostname):
                return
            remedy = "give tls://HOST:PORT, with the keys in dask's configuration (distributed.comm.tls)"
            raise ConfigError(f"--scheduler {address}", "would send code over the network unprotected", remedy)
    raise ConfigError(f"--scheduler {address}", "is no address", "give tls://HOST:PORT or tcp://127.0.0.1:PORT")


def _not_there(address: str, error: Exception) -> DeepSkyError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DeepSkyError(f"--scheduler {address}", f"does not answer ({reason})", "start one there: dask scheduler")


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


def _cards() -> list[str]:
    """Return the NVIDIA cards that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [one.strip() for one in chosen.split(",") if one.strip()]
    return sorted(name for path in Path("/dev").glob("nvidia*") if (name := path.name.removeprefix("nvidia")).isdigit())
