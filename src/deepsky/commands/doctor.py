"""Look at what deepsky needs on this machine, and say what is wrong with it and how to mend that."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import click
import psutil

from deepsky.errors import DeepSkyError
from deepsky.experiment.experiment import read_experiment

_LEAST_FREE_GB, _LEAST_MEMORY_GB = 5, 4
_TIMEOUT_S = 300
Line = tuple[str, str, str]  # what was looked at, what was found, and the remedy: empty where all is well

# A process has one backend. Each computes on every device that it sees, as Keras would.
_COMPUTE = """
import json, os, sys, time
import numpy as np
matrix, found = np.ones((512, 512), np.float32), []
if sys.argv[1] == "tensorflow":
    import tensorflow as tf
    for device in tf.config.list_logical_devices():
        started = time.perf_counter()
        with tf.device(device.name):
            right = float(tf.linalg.matmul(matrix, matrix)[0, 0]) == 512.0
        found.append((device.device_type, device.name, right, time.perf_counter() - started))
else:
    import jax
    for device in jax.devices():
        started = time.perf_counter()
        placed = jax.device_put(matrix, device)
        right = float((placed @ placed)[0, 0]) == 512.0
        found.append((device.platform.upper(), str(device), right, time.perf_counter() - started))
print("FOUND" + json.dumps(found))
"""


def run() -> None:
    """Print a line for each thing looked at; a trouble has its remedy.

    Raises:
        DeepSkyError: something is wrong.
    """
    n_wrong = 0
    for look in (_python, _packages, _memory, _driver, _devices, _weights, _stores, _disk):
        for what, found, remedy in look():
            n_wrong += bool(remedy)
            mark = click.style("wrong", fg="red") if remedy else click.style("ok   ", fg="green")
            click.echo(f"{mark} {what:14}{found}{f'; {remedy}' if remedy else ''}")
    if n_wrong:
        raise DeepSkyError("doctor", f"{n_wrong} thing{'s' if n_wrong > 1 else ''} to mend", "see above")


def _python() -> Iterator[Line]:
    yield "python", f"{sys.version.split()[0]}, {sys.executable}", ""


def _packages() -> Iterator[Line]:
    names = sorted({line.split(">")[0].split("=")[0].split("<")[0].strip() for line in _required()})
    missing = []
    for name in names:
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    shown = ", ".join(f"{name} {version(name)}" for name in ("keras", "tensorflow", "jax", "mlflow", "dvc", "optuna"))
    yield "packages", shown, f"{', '.join(missing)} missing: make setup" if missing else ""


def _required() -> list[str]:
    return [line.split(";")[0].split("[")[0] for line in requires("deepsky") or () if "extra ==" not in line]


def _memory() -> Iterator[Line]:
    memory = psutil.virtual_memory()
    total, free = memory.total / 1e9, memory.available / 1e9
    few = "stop something, or run make repro JOBS=1" if free < _LEAST_MEMORY_GB else ""
    yield "memory", f"{total:.0f} GB, {free:.0f} GB of it free; {os.cpu_count()} processors", few


def _driver() -> Iterator[Line]:
    """Ask NVIDIA's own tool for cards; a machine without it has none."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.used", "--format=csv,noheader"]
    if shutil.which(command[0]) is None:
        yield "GPU", "none (no NVIDIA driver); everything works on the CPU", ""
        return
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        yield "GPU", f"nvidia-smi fails: {said[0] if said else done.returncode}", "mend the driver's installation"
    for line in done.stdout.strip().splitlines() if not done.returncode else ():
        yield "GPU", line, ""


def _devices() -> Iterator[Line]:
    has_card = shutil.which("nvidia-smi") is not None
    for backend in ("tensorflow", "jax"):
        command = [sys.executable, "-c", _COMPUTE, backend]
        env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=env)
        except subprocess.TimeoutExpired:
            yield backend, f"answers nothing for {_TIMEOUT_S} s", "is the GPU busy or hung?"
            continue
        answer = next((line[5:] for line in done.stdout.splitlines() if line.startswith("FOUND")), None)
        if answer is None:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            yield backend, f"fails: {said[-1][:200]}", "make clean setup"
            continue
        found = json.loads(answer)
        for _, name, is_right, seconds in found:
            wrong = "" if is_right else "computes wrongly: replace the device or its driver"
            yield backend, f"computes on {name} ({1000 * seconds:.0f} ms at first)", wrong
        if has_card and all(kind == "CPU" for kind, *_ in found):
            yield backend, "does not see the GPU", "make setup GPU=1"


def _weights() -> Iterator[Line]:
    from deepsky.networks.published import find_file, remedy  # imports Keras
    from deepsky.networks.registry import find_backbone

    with _told("weights") as lines:
        experiment = read_experiment()
        recipes = [run.recipe for run in experiment.runs.values()]
        for network in dict.fromkeys(recipe.network for recipe in recipes if recipe.start == "pretrained"):
            found, _ = find_file(find_backbone(network), experiment.weights.folder)
            how = remedy(find_backbone(network)).partition(";")[0]
            lines.append(("weights", f"{network}: {found or f'random ones, {how}'}", ""))
    yield from lines


def _stores() -> Iterator[Line]:
    from deepsky.tracking.store import prepare, shown_uri, tracking_uri
    from deepsky.tuning.database import open_database, quiet

    with _told("MLflow") as lines:
        experiment = read_experiment()
        prepare(experiment.tracking.experiment)
        lines.append(("MLflow", shown_uri(tracking_uri()), ""))
    yield from lines
    with _told("Optuna") as lines:
        storage = read_experiment().tune.storage
        path = storage.removeprefix("sqlite:///")
        if path == storage or Path(path).exists():
            with quiet():
                open_database(storage)
        lines.append(("Optuna", shown_uri(storage), ""))
    yield from lines


def _disk() -> Iterator[Line]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield "disk", f"{free:.0f} GB free here", "free some: a run needs gigabytes" if free < _LEAST_FREE_GB else ""


@contextmanager
def _told(what: str) -> Iterator[list[Line]]:
    """Collect lines; an error that a person can mend becomes one."""
    lines: list[Line] = []
    try:
        yield lines
    except DeepSkyError as error:
        lines.append((what, f"{error.where}: {error.problem}", error.remedy))
