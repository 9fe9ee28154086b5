"""One search on every worker of a Dask cluster: each runs `deepsky tune run` on the same study until it is done.

    python docs/recipes/dask_tune.py --scheduler tcp://HOST:8786 sdss_cutouts mobilenet --trials 200 --storage URL
    python docs/recipes/dask_tune.py --local 4 --trials 200

What the recipe does not know goes to `deepsky tune run`. Every worker needs the project, with its .venv and its data,
in the same folder, and a database and an MLflow store that all of them reach; docs/tuning.md says how.
"""

import argparse
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from distributed import Client, LocalCluster, Worker, get_worker, wait

# Of TensorFlow; the last two of JAX.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC", "PJRT_NPROC")


def search(folder: str, options: list[str]) -> tuple[int, str]:
    """Be one worker of the search, with as many threads as Dask has given this worker.

    Args:
        folder: the project.
        options: of `deepsky tune run`.

    Returns:
        Exit status and last line.
    """
    worker = get_worker()
    threads = dict.fromkeys(THREAD_VARIABLES, str(worker.state.nthreads))
    process = subprocess.Popen(
        [sys.executable, "-m", "deepsky", "tune", "run", *options],
        cwd=folder, env={**os.environ, **threads}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    worker.search = process  # for stop, which runs beside this task
    said, _ = process.communicate()
    return process.returncode, said.strip().rpartition("\n")[2]


def stop(dask_worker: Worker) -> None:
    """Stop a worker's search as Ctrl-C would: its trials go back to the study."""
    if (process := getattr(dask_worker, "search", None)) is not None:
        process.terminate()


def local_cluster(n_workers: int) -> LocalCluster:
    """Start workers that share this machine's cores, and leave Ctrl-C to this process."""
    threads = max(1, len(os.sched_getaffinity(0)) // n_workers)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which they inherit
    try:
        return LocalCluster(n_workers=n_workers, threads_per_worker=threads, dashboard_address=None)
    finally:
        signal.signal(signal.SIGINT, before)


def main() -> int:
    """Start one search per worker, wait for all, and print how each ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--scheduler", help="address of a running cluster's scheduler")
    place.add_argument("--local", type=int, metavar="N", help="start N workers on this machine instead")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="the project (default: the current folder)")
    known, options = parser.parse_known_args()
    if known.local is not None and known.local < 1:
        parser.error(f"--local {known.local} is below 1")
    with (
        local_cluster(known.local) if known.local else nullcontext(known.scheduler) as cluster,
        Client(cluster) as client,
    ):
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            sys.exit(f"error: {known.scheduler}: has no workers; start some with dask worker {known.scheduler}")
        # Should a worker be lost, its task moves to another one, and so ends with the study at the latest.
        searches = {
            address: client.submit(
                search, str(known.folder.resolve()), options, workers=[address], allow_other_workers=True, pure=False
            )
            for address in workers
        }
        try:
            wait(list(searches.values()))
        except KeyboardInterrupt:
            client.run(stop)
            wait(list(searches.values()))
        statuses = []
        for address, future in searches.items():
            status, line = future.result()
            print(f"{address}: {line}", flush=True)
            statuses.append(status)
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main())
