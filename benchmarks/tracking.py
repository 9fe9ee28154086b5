"""What tracking costs an epoch of a head, and a whole training: with SQLite, and with a server 20 ms away.

    python benchmarks/tracking.py

A head learns 640 rows of 1024 drawn features for 40 epochs, with and without a run that gets each epoch's figures, in
turn. The server is MLflow's own on this machine, behind a proxy that holds back what it is asked for 20 ms.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from statistics import median

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.mlflow_server import Proxy, mlflow_server

from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import Run, training_run
from deepsky.tracking.store import prepare
from deepsky.tracking.training import LogEpochs

N_EPOCHS, N_PAIRS, LATENCY_S = 40, 7, 0.02
ABOUT = {"name": "head", "dataset": "drawn", "network": "head", "params": {"epochs": N_EPOCHS}, "tags": {}}


def main() -> None:
    features = np.random.default_rng(1).normal(size=(640, 1024)).astype(np.float32)
    labels = np.random.default_rng(2).integers(0, 3, 640)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        (Path(name) / "dvc.yaml").write_text("stages: {}\n")
        os.chdir(name)
        stack.callback(os.chdir, "/")
        prepare("bench")
        compare("SQLite", features, labels, target=0.05)
        proxy = Proxy(stack.enter_context(mlflow_server(Path(name))))
        stack.callback(proxy.stop)
        proxy.latency_s = LATENCY_S
        os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{proxy.port}"
        compare(f"server, {1000 * LATENCY_S:.0f} ms", features, labels, target=0.1)


def compare(store: str, features: np.ndarray, labels: np.ndarray, target: float) -> None:
    """Print the medians of pairs."""
    fit(features, labels, nullcontext())  # compiles
    with tracked() as run:
        fit(features, labels, nullcontext(run))
    ratios, whole = [], []
    for _ in range(N_PAIRS):
        plain_s = fit(features, labels, nullcontext())
        started = time.perf_counter()
        with tracked() as run:
            logged_s = fit(features, labels, nullcontext(run))
        whole.append(time.perf_counter() - started - logged_s)
        ratios.append(logged_s / plain_s - 1)
    epoch_ms = 1000 * plain_s / N_EPOCHS
    print(f"{store}: {median(ratios):+.1%} per epoch of {epoch_ms:.0f} ms (target below {target:.0%}); "
          f"{1000 * median(whole):.0f} ms to open and to close the run", flush=True)  # fmt: skip


@contextmanager
def tracked() -> Iterator[Run]:
    with training_run(tracking=TrackingParams(experiment="bench"), **ABOUT) as run:
        yield run


def fit(features: np.ndarray, labels: np.ndarray, tracking: "nullcontext[Run | None]") -> float:
    """Return the seconds of a fit, in a run where there is one."""
    keras.utils.set_random_seed(1)
    head = keras.Sequential([keras.layers.Dense(1024, "relu"), keras.layers.Dense(512, "relu"), keras.layers.Dense(3)])
    head.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    head.fit(features, labels, batch_size=32, epochs=1, verbose=0)  # compiles
    with tracking as run:
        callbacks = [LogEpochs(run)] if run else []
        started = time.perf_counter()
        head.fit(features, labels, batch_size=32, epochs=N_EPOCHS, verbose=0, callbacks=callbacks)
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
