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

from deepsky.errors import ConfigError, DeepSkyError
from deepsky.experiment.experiment import Experiment, read_experiment
from deepsky.interruption import Terminated, interruptible, uninterrupted
from deepsky.lean_keras import compute_deterministically
from deepsky.tuning.params import check_objectives

MAX_WORKERS = 64
_READY = "study "  # how a worker's first line begins


def run(
    dataset: str | None = None,
    network: str | None = None,
    *,
    name: str | None = None,
    trials: int | None = None,
    study: str | None = None,
    storage: str | None = None,
    workers: int = 1,
) -> None:
    """Search until the study has its trials; a study that has some already goes on.

    Args:
        dataset: with ``network``: searches the run DATASET-NETWORK.
        network: with ``dataset``.
        name: of the run; None takes tune.run, where no dataset and network are given.
        trials: in total; None takes tune.trials.
        study: its name; None: the run's.
        storage: URL of the database; None takes tune.storage.
        workers: processes on this machine, each with its share of the cores.

    Raises:
        ConfigError: an argument or a key of params.yaml is wrong.
        DataError: what the candidates learn from is missing or stale.
        StudyError: the database cannot be used, the study's trials mean something else, or all diverged.
        TrackingError: the MLflow store refuses.
        DeepSkyError: one of several workers failed.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise ConfigError(f"--workers {workers}", "is out of range", f"give 1 to {MAX_WORKERS}")
    if trials is not None and trials < 1:
        raise ConfigError(f"--trials {trials}", "is below 1", "give the number of trials in total")
    experiment = read_experiment()
    compute_deterministically(experiment.deterministic)
    chosen = _chosen(experiment, dataset, network, name)
    base = experiment.run(chosen)
    check_objectives(experiment.tune.of_run(base).objectives, base, chosen)
    if workers > 1:
        named = {"--run": chosen, "--trials": trials, "--study": study, "--storage": storage}
        options = [word for option, value in named.items() if value is not None for word in (option, str(value))]
        _run_side_by_side([sys.executable, "-m", "deepsky", "tune", "run", *options], workers)
    else:
        _work(experiment, chosen, trials=trials, study=study or chosen, storage=storage)


def dashboard(storage: str | None, port: int) -> None:
    """Serve optuna-dashboard on 127.0.0.1 until Ctrl-C.

    Raises:
        StudyError: the database cannot be used.
    """
    from deepsky.tuning.study import serve_dashboard

    serve_dashboard(storage or read_experiment().tune.storage, "127.0.0.1", port)


def list_studies(storage: str | None) -> None:
    """Print each study, its trials done and its best value.

    Raises:
        StudyError: the database cannot be used.
    """
    from deepsky.tuning.study import summaries

    lines = [("study", "done", "best")]
    for one in summaries(storage or read_experiment().tune.storage):
        best = "none complete yet" if one.best is None else f"{one.objective} {one.best:.4f} (trial {one.best_trial})"
        lines.append((one.name, str(one.n_done), best))
    width = max(len(name) for name, _, _ in lines)
    for name, done, best in lines:
        click.echo(f"{name:<{width}}  {done:>6}  {best}")


def _chosen(experiment: Experiment, dataset: str | None, network: str | None, name: str | None) -> str:
    """Return the name of the run to search."""
    if name and (dataset or network):
        raise ConfigError(f"--run {name}", "names a run already", "leave DATASET and NETWORK out")
    if bool(dataset) != bool(network):
        raise ConfigError(
            f"{dataset or network}", "needs a dataset and a network", "give DATASET NETWORK, or --run RUN"
        )
    return f"{dataset}-{network}" if dataset else name or experiment.tune.run


def _work(experiment: Experiment, name: str, *, trials: int | None, study: str, storage: str | None) -> None:
    """Be one worker."""
    if experiment.run(name).of_head:
        os.environ.setdefault("KERAS_BACKEND", experiment.tune.backend)
        # What one worker has compiled, the others and the next search find; by host, because processors differ.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(".jax_cache", socket.gethostname()).absolute()))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    with interruptible(), uninterrupted():  # JAX swallows an interruption that comes while it is imported
        import deepsky.tuning.search  # noqa: F401
    _search(experiment, name, trials=trials, study=study, storage=storage)


def _search(experiment: Experiment, name: str, *, trials: int | None, study: str, storage: str | None) -> None:
    from deepsky.tracking.runs import HIDDEN
    from deepsky.tracking.studies import open_study_run
    from deepsky.tuning.inputs import read_search_data
    from deepsky.tuning.objective import Objective
    from deepsky.tuning.search import Worker
    from deepsky.tuning.study import meaning_of, open_study
    from deepsky.tuning.throughput import population_of

    base = experiment.run(name)
    params = experiment.tune.of_run(base)
    params = replace(params, trials=trials or params.trials, storage=storage or params.storage)
    data = read_search_data(
        name,
        base,
        params,
        packed=Path("data/packed") / base.dataset,
        split=Path("data/splits") / f"{base.dataset}.csv",
        features=Path("data/features") / base.dataset,
        weights=Path("models/pretrained"),
    )
    meaning = meaning_of(name, params, base, data.hashes)
    opened = open_study(study, params, base, meaning)
    population = population_of(opened, params, base, data.trainer, data.folds[0]) if data.together else 1
    tags = {"run": name, "dataset": base.dataset, "network": base.network, "population": str(population)}
    tags |= {f"{HIDDEN}data.{path}": md5 for path, md5 in data.hashes.items()}
    stays = {**meaning.settings, "space": meaning.space}
    tracked = open_study_run(f"{experiment.tracking.experiment}-tuning", study, stays, tags)
    print(f"{_READY}{study}: {params.trials} trials, {population} at a time", flush=True)
    objective = Objective(params, data.trainer, data.folds)
    Worker(opened, params, base, objective, tracked, population=population).run(params.trials)


def _run_side_by_side(command: list[str], workers: int) -> None:
    """Start workers that share the cores; the first has made the study and its databases before the others begin."""
    ready, processes = threading.Event(), list[subprocess.Popen[str]]()
    readers = list[threading.Thread]()
    with interruptible():
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
        except (KeyboardInterrupt, Terminated):
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
