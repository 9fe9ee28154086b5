"""Look at what deepsky needs on this machine, and say what is wrong with it and how to mend that."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import click
import psutil
from packaging.requirements import Requirement

from deepsky.errors import DeepSkyError
from deepsky.experiment.experiment import read_experiment

_LEAST_FREE_GB, _LEAST_MEMORY_GB = 5, 4
_DRIVER_S, _COMPUTE_S = 30, 300
_SHOWN = ("keras", "tensorflow", "jax", "mlflow", "dvc", "optuna")
_SQLITE = "sqlite:///"
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
    for look in (_python, _packages, _memory, _gpu, _devices, _weights, _stores, _disk):
        for what, found, remedy in look():
            n_wrong += bool(remedy)
            mark = click.style("wrong", fg="red") if remedy else click.style("ok   ", fg="green")
            click.echo(f"{mark} {what:14}{found}{f'; {remedy}' if remedy else ''}")
    if n_wrong:
        raise DeepSkyError("doctor", f"{n_wrong} thing{'s' if n_wrong > 1 else ''} to mend", "see above")


def _python() -> Iterator[Line]:
    yield "python", f"{sys.version.split()[0]}, {sys.executable}", ""


def _packages() -> Iterator[Line]:
    wrong, shown = [], []
    for one in map(Requirement, requires("deepsky") or ()):
        if one.marker and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(one.name)
        except PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if one.name in _SHOWN:
            shown.append(f"{one.name} {found}")
        if not one.specifier.contains(found, prereleases=True):
            wrong.append(f"{one.name} {found} is not {one.specifier}")
    yield "packages", ", ".join(shown + wrong), "make clean setup" if wrong else ""


def _memory() -> Iterator[Line]:
    memory = psutil.virtual_memory()
    total, free = memory.total / 1e9, memory.available / 1e9
    few = "stop something, or run make repro JOBS=1" if free < _LEAST_MEMORY_GB else ""
    yield "memory", f"{total:.0f} GB, {free:.0f} GB of it free; {os.cpu_count()} processors", few


def _gpu() -> Iterator[Line]:
    cards, problem = _cards()
    for card in cards:
        yield "GPU", card, ""
    if problem:
        yield "GPU", problem, "mend the driver's installation"
    elif not cards:
        yield "GPU", "none (no NVIDIA driver); everything works on the CPU", ""


@cache
def _cards() -> tuple[list[str], str]:
    """Ask NVIDIA's own tool for cards, or for what is wrong; a machine without it has none."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.used", "--format=csv,noheader"]
    if shutil.which(command[0]) is None:
        return [], ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DRIVER_S)
    except subprocess.TimeoutExpired:
        return [], f"nvidia-smi answers nothing for {_DRIVER_S} s"
    lines = [line for line in (done.stdout + done.stderr).strip().splitlines() if line]
    cards = [line for line in lines if line.count(",") == 3]
    if done.returncode or not cards:
        return [], f"nvidia-smi fails: {lines[0] if lines else f'exit code {done.returncode}'}"
    return cards, ""


def _devices() -> Iterator[Line]:
    cards, _ = _cards()
    for backend in ("tensorflow", "jax"):
        command = [sys.executable, "-c", _COMPUTE, backend]
        env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPUTE_S, env=env)
        except subprocess.TimeoutExpired:
            yield backend, f"answers nothing for {_COMPUTE_S} s", "is the GPU busy or hung?"
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
        if cards and all(kind == "CPU" for kind, *_ in found):
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
    from deepsky.tracking.secrets import masked
    from deepsky.tracking.store import prepare, tracking_uri
    from deepsky.tuning.database import open_database, quiet

    with _told("MLflow") as lines:
        uri = tracking_uri()
        if not uri.startswith(_SQLITE) or Path(uri.removeprefix(_SQLITE)).exists():  # to look makes none
            prepare(read_experiment().tracking.experiment)
        lines.append(("MLflow", masked(uri), ""))
    yield from lines
    with _told("Optuna") as lines:
        storage = read_experiment().tune.storage
        if not storage.startswith(_SQLITE) or Path(storage.removeprefix(_SQLITE)).exists():
            with quiet():
                open_database(storage)
        lines.append(("Optuna", masked(storage), ""))
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
