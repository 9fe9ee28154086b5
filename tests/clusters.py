"""Real clusters on this machine: as many processes as hosts, each with a loopback address of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, Worker, WorkerPlugin

from deepsky.parallel import use_cluster


class Joined(WorkerPlugin):
    """Lets the stages of a worker be helped by the others, as a worker of the engine does when it starts."""

    def setup(self, worker: Worker) -> None:
        """Be called as each worker starts, one that takes the place of a killed one too."""
        use_cluster(worker._get_client, resource="stage", own=lambda: worker.address)


@contextmanager
def cluster_of(*hosts: str, nthreads: int = 2) -> Iterator[Client]:
    """Start a worker on each of the addresses, every one of which holds one stage at a time; give a client."""
    # With a log of its own a worker that is killed on purpose would fill the test's output.
    quiet = {"logging.distributed": "critical", "distributed.worker.daemon": False}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
    options = {"nthreads": nthreads, "resources": {"stage": 1}, "dashboard": False}
    workers = {number: {"cls": Nanny, "options": {**options, "host": host}} for number, host in enumerate(hosts)}
    with (
        dask.config.set(quiet),
        SpecCluster(workers=workers, scheduler=scheduler, silence_logs=50) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(len(hosts), timeout=60)
        client.register_plugin(Joined())
        yield client
