"""Search hyperparameters: one worker or several, the dashboard, and what studies there are."""

import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import click

from deepsky.config import PARAMS, read_choice, read_entries, read_section, read_yaml
from deepsky.errors import ConfigError, DeepSkyError

MAX_WORKERS = 64
_READY = "study "  # how a worker's first line begins


def run(
    dataset: str | None,
    network: str | None,
    *,
    trials: int | None,
    study: str | None,
    storage: str | None,
    workers: int = 1,
) -> None:
    """Search until the study has its trials; a study that has some already goes on.

    Args:
        dataset: None takes tune.dataset.
        network: None takes tune.network.
        trials: in total; None takes tune.trials.
        study: its name; None: DATASET-NETWORK.
        storage: URL of the database; None takes tune.storage.
        workers: processes on this machine, each with its share of the cores.

    Raises:
        ConfigError: an argument or a key of params.yaml is wrong.
        DataError: the features or the split are missing or stale.
        StudyError: the database cannot be used, the study's trials mean something else, or all diverged.
        TrackingError: the MLflow store cannot be used.
        DeepSkyError: one of several workers failed.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise ConfigError(f"--workers {workers}", "is out of range", f"give 1 to {MAX_WORKERS}")
    if trials is not None and trials < 1:
        raise ConfigError(f"--trials {trials}", "is below 1", "give the number of trials in total")
    dataset = _chosen("dataset", dataset, ("datasets",))
    network = _chosen("network", network, ("backbones", "scratch"))
    if workers > 1:
        named = {"--trials": trials, "--study": study, "--storage": storage}
        options = [word for name, value in named.items() if value is not None for word in (name, str(value))]
        _run_side_by_side([sys.executable, "-m", "deepsky", "tune", "run", dataset, network, *options], workers)
    else:
        _work(dataset, network, trials=trials, name=study or f"{dataset}-{network}", storage=storage)


def dashboard(storage: str | None, port: int) -> None:
    """Serve optuna-dashboard on 127.0.0.1 until Ctrl-C.

    Raises:
        StudyError: the database cannot be used.
    """
    from deepsky.tuning.study import serve_dashboard

    serve_dashboard(storage or _storage(), "127.0.0.1", port)


def list_studies(storage: str | None) -> None:
    """Print each study, its trials done and its best value.

    Raises:
        StudyError: the database cannot be used.
    """
    from deepsky.tuning.study import summaries

    lines = [("study", "done", "best")]
    for one in summaries(storage or _storage()):
        best = "none complete yet" if one.best is None else f"{one.objective} {one.best:.4f} (trial {one.best_trial})"
        lines.append((one.name, str(one.n_done), best))
    width = max(len(name) for name, _, _ in lines)
    for name, done, best in lines:
        click.echo(f"{name:<{width}}  {done:>6}  {best}")


def _chosen(what: str, name: str | None, sections: tuple[str, ...]) -> str:
    name = name or str(read_yaml(f"tune.{what}"))
    known = [known for section in sections for known in read_entries(section)]
    if name not in known:
        raise ConfigError(f"{what} {name}", f"is not in {PARAMS}", f"choose one of: {', '.join(known)}")
    return name


def _storage() -> str:
    return str(read_yaml("tune.storage"))


def _work(dataset: str, network: str, *, trials: int | None, name: str, storage: str | None) -> None:
    """Be one worker."""
    if network in read_entries("backbones"):
        os.environ.setdefault("KERAS_BACKEND", read_choice("tune.backend", ("jax", "tensorflow")))
        # What one worker has compiled, the others and the next search find; by host, because processors differ.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(".jax_cache", socket.gethostname()).absolute()))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    from deepsky.tuning.worker import Stop

    stop = Stop()
    with stop.watched(), stop.held():  # JAX swallows an interruption that comes while it is imported
        import deepsky.tuning.search  # noqa: F401
    _search(dataset, network, trials=trials, name=name, storage=storage)


def _search(dataset: str, network: str, *, trials: int | None, name: str, storage: str | None) -> None:
    from deepsky.networks import BACKBONES
    from deepsky.tracking.store import TrackingParams
    from deepsky.tracking.studies import open_study_run
    from deepsky.training.fit import ScratchParams, TrainParams
    from deepsky.tuning.inputs import read_material
    from deepsky.tuning.measure import population_of
    from deepsky.tuning.objective import Objective
    from deepsky.tuning.params import TuneParams
    from deepsky.tuning.search import Worker
    from deepsky.tuning.study import meaning_of, open_study

    params = read_section("tune", TuneParams)
    params = replace(params, trials=trials or params.trials, storage=storage or params.storage)
    of_head = network in BACKBONES
    if not of_head and len(params.objectives) > 1:
        where, problem = f"network {network}", f"{params.objectives[1]} is the same for every candidate"
        raise ConfigError(where, problem, "leave one objective under tune.objectives in params.yaml")
    reference = read_section("train", TrainParams) if of_head else read_section(f"scratch.{network}", ScratchParams)
    material = read_material(
        dataset,
        network,
        params,
        reference,
        packed=Path("data/packed") / dataset,
        split=Path("data/splits") / f"{dataset}.csv",
        features=Path("data/features") / dataset / f"{network}.npy",
    )
    meaning = meaning_of(dataset, network, params, reference, material.data)
    study = open_study(name, params, reference, meaning)
    # Networks trained from the images are trained one after the other anyway.
    population = population_of(study, params, reference, material.trainer, material.folds[0]) if of_head else 1
    experiment = f"{read_section('tracking', TrackingParams).experiment}-tuning"
    stays = {**meaning.settings, "space": meaning.space}
    tags = {"dataset": dataset, "network": network, "population": str(population)}
    tags |= {f"deepsky.data.{path}": md5 for path, md5 in material.data.items()}
    tracked = open_study_run(experiment, name, stays, tags)
    print(f"{_READY}{name}: {params.trials} trials, {population} at a time", flush=True)
    objective = Objective(params, material.trainer, material.folds)
    Worker(study, params, reference, objective, tracked, population=population).run(params.trials)


def _run_side_by_side(command: list[str], workers: int) -> None:
    """Start workers that share the cores; the first has made the study and its databases before the others begin."""
    from deepsky.tuning.worker import Stop

    ready, processes = threading.Event(), list[subprocess.Popen[str]]()
    readers = list[threading.Thread]()
    with Stop().watched():
        try:
            for number in range(1, workers + 1):
                process = subprocess.Popen(
                    command, env=_shared_env(workers), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                    process_group=0,  # Ctrl-C reaches this process, and through it each of them once
                )  # fmt: skip
                processes.append(process)
                readers.append(threading.Thread(target=_echo, args=(process, number, ready)))
                readers[-1].start()
                ready.wait()
                if processes[0].poll():
                    break
            for process in processes:
                process.wait()
        except KeyboardInterrupt:
            for process in processes:
                process.send_signal(signal.SIGINT)
            raise
        finally:
            for reader in readers:
                reader.join()
    failed = [number for number, process in enumerate(processes, start=1) if process.returncode]
    if failed:
        raise DeepSkyError(f"worker {failed[0]}", "failed", "its own line above says why; what is done is kept")


def _echo(process: "subprocess.Popen[str]", number: int, ready: threading.Event) -> None:
    """Print a worker's lines with its number; say when it has begun, or ended without."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(_READY):
            ready.set()
        click.echo(f"[{number}] {line}", nl=False)
    process.wait()
    ready.set()


def _shared_env(workers: int) -> dict[str, str]:
    """Return an environment in which a worker takes its share of the cores, whatever the backend."""
    threads = str(max(1, len(os.sched_getaffinity(0)) // workers))
    # The last two are JAX's: the size of XLA's thread pool.
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC", "PJRT_NPROC")
    xla = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen={'true' if threads != '1' else 'false'}"
    return {**os.environ, **dict.fromkeys(names, threads), "XLA_FLAGS": xla.strip()}
