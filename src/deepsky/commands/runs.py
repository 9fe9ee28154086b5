"""The runs of the store, and whether they and the trained networks belong together."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from deepsky.commands.models import FILE
from deepsky.commands.planned import TRAINED
from deepsky.errors import DeepSkyError
from deepsky.evaluation.restored import restore_run
from deepsky.evaluation.trained import read_trained
from deepsky.experiment.experiment import read_experiment
from deepsky.tracking.recorded import RecordedRun, recorded_runs
from deepsky.tracking.runs import close_dead_runs, find_run, is_alive, model_hash, run_key


def list_runs() -> None:
    """Print every run of the experiment, the newest first.

    Raises:
        TrackingError: the store cannot be used.
    """
    for one in recorded_runs(read_experiment().tracking.experiment):
        score = next(
            (f"{one.metrics[name]:.3f}" for name in ("test_accuracy", "test_rmse") if name in one.metrics), "–"
        )
        click.echo(f"{one.run_id}  {one.started:%Y-%m-%d %H:%M}  {one.status.lower():9} {score:6} {one.name}")


def check() -> None:
    """Print what does not belong together, and mend what can be mended.

    A network of models/trained without a run gets one; a run of a dead process is closed as killed. Runs whose network
    is not the one that they logged, and those of processes that cannot be seen from here, are told.

    Raises:
        DeepSkyError: something is left that nobody but a person can mend.
        TrackingError: the store cannot be used.
    """
    experiment = read_experiment().tracking.experiment
    n_dead = close_dead_runs(experiment)
    done = Counter({"closed as killed: their process is gone": n_dead} if n_dead else {})
    for folder in sorted(model.parent for model in TRAINED.glob(f"*/*/{FILE}")):
        if find_run(experiment, run_key(folder)) is None:
            name = json.loads((folder / "run.json").read_text(encoding="utf-8"))["run"]
            restore_run(experiment, read_trained(folder, name))
            done["networks without a run: given one"] += 1
    left = [problem for one in recorded_runs(experiment) if (problem := "; ".join(_problems(one)))]
    for what, n in done.items():
        click.echo(f"{n} {what}")
    for problem in left:
        click.echo(problem)
    if left:
        raise DeepSkyError("runs", f"{len(left)} cannot be mended", "the lines above say which and why")
    if not done:
        click.echo("every network has its run, every run its network")


def _problems(one: RecordedRun) -> Iterator[str]:
    if one.status == "RUNNING" and is_alive(one.tags) is None:
        where = one.hidden("host") or "another machine"
        yield f"{one.run_id} {one.name}: runs, or died, on {where} where this machine cannot look; run this there"
    logged = Path(one.artifact_uri.removeprefix("file://")) if one.artifact_uri.startswith(("/", "file://")) else None
    if one.status != "FINISHED" or not one.hidden("model") or logged is None:
        return  # a server keeps its files whole itself
    try:
        found = model_hash(logged)
    except DeepSkyError:
        yield f"{one.run_id} {one.name}: its model.h5 is gone from {logged}; deepsky reproduce makes it again"
        return
    if found != one.hidden("model"):
        yield f"{one.run_id} {one.name}: {logged / FILE} is not what it logged; deepsky reproduce makes it again"
