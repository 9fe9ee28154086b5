"""Real clusters on this machine: as many processes as hosts, each with a loopback address of its own."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, Worker, WorkerPlugin

from deepsky.parallel import use_cluster

STAGE = "stage"  # the resource that stands for a project here


class Joined(WorkerPlugin):
    """Lets the stages of a worker be helped by the others, as a worker of the engine does when it starts."""

    def setup(self, worker: Worker) -> None:
        """Be called as each worker starts, one that takes the place of a killed one too."""
        use_cluster(worker._get_client, resource=STAGE, own=lambda: worker.address)


@contextmanager
def cluster_of(*hosts: str, nthreads: int = 2) -> Iterator[Client]:
    """Start a worker on each of the addresses, every one of which holds one stage at a time; give a client."""
    # With a log of its own a worker that is killed on purpose would fill the test's output.
    quiet = {"logging.distributed": "critical", "distributed.worker.daemon": False}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
    options = {"nthreads": nthreads, "resources": {STAGE: 1}, "dashboard": False}
    workers = {number: {"cls": Nanny, "options": {**options, "host": host}} for number, host in enumerate(hosts)}
    with (
        dask.config.set(quiet),
        SpecCluster(workers=workers, scheduler=scheduler, silence_logs=50) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(len(hosts), timeout=60)
        client.register_plugin(Joined())
        yield client


@contextmanager
def scheduler(env: Mapping[str, str]) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A Dask scheduler as a person starts it: its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show"]
    with subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", *options],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield f"tcp://127.0.0.1:{port}", process
        finally:
            process.kill()


@contextmanager
def worker(address: str, folder: Path, env: Mapping[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """A worker of the engine as a script starts it in the background: SIGINT is ignored there."""
    with subprocess.Popen(
        ["deepsky", "worker", address],
        cwd=folder,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    ) as process:
        try:
            yield process
        finally:
            process.kill()
