"""What tracking costs an epoch of a head, and a whole training: with SQLite, and with a server 20 ms away.

    python benchmarks/tracking.py

A head learns 640 rows of 1024 drawn features for 30 epochs, with and without a run that gets each epoch's figures, in
turn; on a busy machine processor time says more. The server is MLflow's own on this machine, behind a proxy that holds
back what it is asked for 20 ms.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import keras
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.mlflow_server import Proxy, mlflow_server

from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import Run, training_run
from deepsky.tracking.store import prepare
from deepsky.tracking.training import LogEpochs

Rows = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
N_EPOCHS, N_PAIRS, LATENCY_S = 30, 3, 0.02
ABOUT = {"name": "head", "dataset": "drawn", "network": "head", "params": {"epochs": N_EPOCHS}, "tags": {}}


def main() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(640, 1024)).astype(np.float32), rng.integers(0, 3, 640)
    head = make_head()
    fit(head, rows, None)  # compiles
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        (Path(name) / "dvc.yaml").write_text("stages: {}\n")
        os.chdir(name)
        stack.callback(os.chdir, "/")
        prepare("bench")
        compare("SQLite", head, rows, target=0.05)
        proxy = Proxy(stack.enter_context(mlflow_server(Path(name))))
        stack.callback(proxy.stop)
        proxy.latency_s = LATENCY_S
        os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{proxy.port}"
        compare(f"server, {1000 * LATENCY_S:.0f} ms", head, rows, target=0.1)


def compare(store: str, head: keras.Model, rows: Rows, target: float) -> None:
    """Print the medians of pairs."""
    with tracked() as run:
        fit(head, rows, run)  # what a process does once
    walls, cpus, epochs_s, around_s = [], [], [], []
    for _ in range(N_PAIRS):
        plain_s, plain_cpu_s = fit(head, rows, None)
        started = time.perf_counter()
        with tracked() as run:
            logged_s, logged_cpu_s = fit(head, rows, run)
        around_s.append(time.perf_counter() - started - logged_s)
        walls.append(logged_s / plain_s - 1)
        cpus.append(logged_cpu_s / plain_cpu_s - 1)
        epochs_s.append(plain_s / N_EPOCHS)
    print(f"{store}: {median(cpus):+.1%} processor time, {median(walls):+.1%} time per epoch of "
          f"{1000 * median(epochs_s):.0f} ms (target below {target:.0%}); "
          f"{1000 * median(around_s):.0f} ms to open and close the run", flush=True)  # fmt: skip


@contextmanager
def tracked() -> Iterator[Run]:
    with training_run(tracking=TrackingParams(experiment="bench"), **ABOUT) as run:
        yield run


def make_head() -> keras.Model:
    """Return a compiled head that has learned one epoch."""
    layers = keras.layers
    head = keras.Sequential([layers.Dense(512, "relu"), layers.Dense(256, "relu"), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    head.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
    return head


def fit(head: keras.Model, rows: Rows, run: Run | None) -> tuple[float, float]:
    """Return the seconds of a fit, in a run where there is one, and those of processors, also of other threads."""
    callbacks = [LogEpochs(run)] if run else []
    started, cpu_started = time.perf_counter(), time.process_time()
    head.fit(*rows, batch_size=32, epochs=N_EPOCHS, verbose=0, callbacks=callbacks)
    return time.perf_counter() - started, time.process_time() - cpu_started


if __name__ == "__main__":
    main()
