"""A search on cached features against the plain way, and two workers against one.

    python benchmarks/tuning_search.py [--trials 100] [--network mobilenet]

Ours is the whole of `deepsky tune run`: start-up, database, MLflow, figures; TRIALS x 10 epochs without pruning, on 640
training rows of drawn features as long as the network's. The plain way fits image -> probabilities with the frozen
backbone and a head inside, from JPEG files at 224 px; one epoch on some images is measured and multiplied up.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from ruamel.yaml import YAML  # noqa: E402
from tests.tuning_project import DATASET, NETWORK, make_project  # noqa: E402

N_ROWS, N_TRAIN, EPOCHS = 1280, 642, 10  # the project trains on half of its rows
N_FEATURES = {"mobilenet": 1024, "vgg16": 512}
N_PLAIN = {"mobilenet": 640, "vgg16": 64}  # images of the epoch that is measured
TARGET = {"mobilenet": 60, "vgg16": 500}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--network", choices=list(TARGET), action="append")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for network in options.network or list(TARGET):
            ours_s = search_s(Path(name) / network, N_FEATURES[network], options.trials)
            epoch_s = plain_epoch_s(network) * N_TRAIN / N_PLAIN[network]
            plain_s = epoch_s * EPOCHS * options.trials
            print(f"{network}: {options.trials} trials in {ours_s:.0f} s; plain {plain_s:.0f} s, from one epoch of "
                  f"{N_PLAIN[network]} images, {epoch_s:.1f} s for all")  # fmt: skip
            print(f"{network}: ratio plain / ours: {plain_s / ours_s:.0f} (target >= {TARGET[network]})", flush=True)
        one_s = search_s(Path(name) / "one", 1024, options.trials, threads=1)
        two_s = search_s(Path(name) / "two", 1024, options.trials, workers=2)
    print(f"{options.trials} trials: one single-threaded worker {one_s:.0f} s, two {two_s:.0f} s")
    print(f"ratio one / two workers: {one_s / two_s:.2f} (target >= 1.7)")


def search_s(root: Path, n_features: int, trials: int, workers: int = 1, threads: int | None = None) -> float:
    """Return the seconds of one `deepsky tune run` in a project of its own, with the space of params.yaml."""
    heads = {
        f"heads__{key}": value for key, value in YAML(typ="safe").load(ROOT / "params.yaml")["tune"]["heads"].items()
    }
    tune = {"epochs": EPOCHS, "pruner": "none", "population": 16, "heartbeat_s": 30, **heads}
    make_project(root, n_rows=N_ROWS, n_features=n_features, **tune)
    command = [sys.executable, "-m", "deepsky", "tune", "run", DATASET, NETWORK, "--trials", str(trials)]
    if workers > 1:
        command += ["--workers", str(workers)]
    environment = dict(os.environ)
    if threads == 1:  # as each of several workers
        from deepsky.commands.tune import _shared_env

        environment = _shared_env(len(os.sched_getaffinity(0)))
    started = time.perf_counter()
    subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def plain_epoch_s(network: str) -> float:
    """Return the seconds of one epoch of the whole frozen network, after one that compiles."""
    script = (
        "import tempfile, time\n"
        "from pathlib import Path\n"
        "import frozen_training as plain\n"
        "from deepsky.networks.backbone import build_features\n"
        "from deepsky.networks.registry import find_backbone\n"
        f"front = build_features(find_backbone({network!r}), plain.SPEC, plain.SIZE_PX, None)\n"
        "with tempfile.TemporaryDirectory() as name:\n"
        f"    plain.write_images(Path(name), None, {N_PLAIN[network]})\n"
        "    seconds = [plain.timed(lambda: plain.fit_full_network(front, Path(name) / 'jpeg', n)) for n in (1, 2)]\n"
        "print(seconds[1] - seconds[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT / "benchmarks", stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
