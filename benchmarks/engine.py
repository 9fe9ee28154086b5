"""The engine: what lies between two stages of a warm worker, and two workers against one on equal trainings."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

BIN = Path(sys.executable).parent
ENV = {
    **os.environ,
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}
N_EMPTY, N_TRAININGS, N_ROUNDS = 30, 12, 3
PARAMS = """
train: {{seed: {seed}}}
datasets:
  pictures:
    toy: {{format: images, source: given, id_column: id, label_column: class, classes: [A, B], size_px: 32,
           group_by: image}}
networks: {{cnn_small: {{input_size_px: 32, batch_size: 16, epochs: 8}}}}
runs:
"""
STAGES = """
stages:
  plan: {cmd: deepsky plan, deps: [params.yaml], outs: [plan.yaml, versions.json]}
  pack: {cmd: deepsky pack toy --out data/packed/toy, deps: [plan.yaml, given], outs: [data/packed/toy]}
  split:
    cmd: deepsky split toy --packed data/packed/toy --out data/splits/toy.csv
    deps: [data/packed/toy]
    outs: [data/splits/toy.csv]
"""
TRAIN = """
  train{n}:
    cmd: >-
      deepsky train run{n} --packed data/packed/toy --split data/splits/toy.csv --features none --weights none
      --out models/run{n}
    params: [{{versions.json: [train.run{n}]}}]
    deps: [data/splits/toy.csv]
    outs: [models/run{n}]
"""


def project(root: Path) -> None:
    """Write a project of some hundred pictures, trainings that differ in nothing, and stages that do nothing."""
    (root / "given").mkdir(parents=True)
    rng, rows = np.random.default_rng(0), ["id,class"]
    for n in range(400):
        cv2.imwrite(str(root / f"given/{n}.png"), rng.integers(0, 128 + 60 * (n % 2), (32, 32, 3), np.uint8))
        rows.append(f"{n},{'AB'[n % 2]}")
    (root / "given/labels.csv").write_text("\n".join(rows) + "\n")
    write_params(root, 0)
    empty = "".join(f"  empty{n}: {{cmd: deepsky show run0, deps: [params.yaml]}}\n" for n in range(N_EMPTY + 1))
    (root / "dvc.yaml").write_text(STAGES + "".join(TRAIN.format(n=n) for n in range(N_TRAININGS)) + empty)
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    subprocess.run(["dvc", "init", "--quiet"], cwd=root, env=ENV, check=True)


def write_params(root: Path, seed: int) -> None:
    """Write params.yaml; another seed makes all trainings new."""
    runs = "".join(f"  run{n}: {{dataset: toy, network: cnn_small}}\n" for n in range(N_TRAININGS))
    (root / "params.yaml").write_text(PARAMS.format(seed=seed) + runs)


def seconds(root: Path, jobs: int, *targets: str) -> float:
    """Bring stages up to date, and return how long it took."""
    started = time.perf_counter()
    done = subprocess.run(
        ["deepsky", "repro", "--jobs", str(jobs), *targets], cwd=root, env=ENV, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}")
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        project(root)
        seconds(root, 1, "split", "empty0")
        gaps = []
        for number in range(1, N_ROUNDS + 1):
            write_params(root, number)
            one = seconds(root, 1, "plan", "empty0")
            gaps.append((seconds(root, 1, *(f"empty{n}" for n in range(1, N_EMPTY + 1))) - one) / (N_EMPTY - 2))
        print(f"a stage that does nothing, warm, books included: {min(gaps):.2f} to {max(gaps):.2f} s (aim 0.7 s)")
        names, ratios = [f"train{n}" for n in range(N_TRAININGS)], []
        for number in range(1, N_ROUNDS + 1):
            times = []
            for jobs in (1, 2):
                write_params(root, 100 * jobs + number)
                times.append(seconds(root, jobs, *names))
            alone, two = times
            ratios.append(alone / two)
            print(f"{N_TRAININGS} trainings: one worker {alone:.1f} s, two {two:.1f} s: {alone / two:.2f} x")
        print(f"two workers against one: {sorted(ratios)[N_ROUNDS // 2]:.2f} x (aim 1.7 x)")


if __name__ == "__main__":
    main()
