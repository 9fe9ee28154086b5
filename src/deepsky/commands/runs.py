"""The runs of the store, and whether they and the trained networks belong together."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import click

from deepsky.commands.models import FILE, TRAINED
from deepsky.commands.planned import log_pulled_runs
from deepsky.errors import DataError, DeepSkyError, TrackingError
from deepsky.evaluation.restored import restore_run
from deepsky.evaluation.trained import read_trained
from deepsky.experiment.experiment import read_experiment
from deepsky.tracking.journal import deliver_waiting, waiting
from deepsky.tracking.recorded import RecordedRun, recorded_runs
from deepsky.tracking.runs import close_dead_runs, find_run
from deepsky.tracking.tags import is_alive
from deepsky.tracking.trained_files import model_hash, run_key


def list_runs() -> None:
    """Print every run of the experiment, the newest first, and those that wait on disk for the store.

    Raises:
        TrackingError: the store cannot be used.
    """
    for name, left in Counter(f"{one.name}, {one.status.lower()}" for one in waiting()).items():
        click.echo(f"waits on disk, deepsky runs --sync delivers it: {name}{f' ({left} times)' if left > 1 else ''}")
    for one in recorded_runs(read_experiment().tracking.experiment):
        score = next(
            (f"{one.metrics[name]:.3f}" for name in ("test_accuracy", "test_rmse") if name in one.metrics), "–"
        )
        click.echo(f"{one.run_id}  {one.started:%Y-%m-%d %H:%M}  {one.status.lower():9} {score:6} {one.name}")


def sync() -> None:
    """Deliver the runs that wait on disk, and enter those that came by ``dvc pull``.

    Raises:
        TrackingError: the store cannot be used.
    """
    click.echo(f"delivered: {deliver_waiting():,}")
    log_pulled_runs()
    left = len(waiting())
    if left:
        click.echo(f"still waiting: {left:,}")


def check() -> None:
    """Print what does not belong together, and mend what can be mended.

    What waits on disk is delivered; a network of models/trained without a run gets one; a run of a dead process is
    closed as killed. Runs whose network is not the one that they logged, and those of processes that cannot be seen
    from here, are told.

    Raises:
        DeepSkyError: something is left that nobody but a person can mend.
        TrackingError: the store cannot be used.
    """
    experiment = read_experiment().tracking.experiment
    done = Counter({"delivered that waited on disk": deliver_waiting()})
    done["closed as killed: their process is gone"] = close_dead_runs(experiment)
    left = list[str]()
    for folder in sorted(model.parent for model in TRAINED.glob(f"*/*/{FILE}")):
        try:
            key = run_key(folder)
        except TrackingError as error:
            left.append(str(error))
            continue
        if find_run(experiment, key) is None:
            try:
                name = json.loads((folder / "run.json").read_text(encoding="utf-8"))["run"]
                restore_run(experiment, read_trained(folder, name))
            except (DataError, ValueError, KeyError, TypeError) as error:
                left.append(f"{folder}: has no run, and none can be made of it ({error})")
                continue
            done["networks without a run: given one"] += 1
    left += [problem for one in recorded_runs(experiment) if (problem := "; ".join(_problems(one)))]
    for what, n in (+done).items():
        click.echo(f"{n} {what}")
    for problem in left:
        click.echo(problem)
    if left:
        raise DeepSkyError("runs", f"{len(left)} cannot be mended", "the lines above say which and why")
    if not +done:
        click.echo("every network has its run, every run its network")


def _problems(one: RecordedRun) -> Iterator[str]:
    if one.status == "RUNNING" and is_alive(one.tags) is None:
        where = one.hidden("host") or "another machine"
        yield f"{one.run_id} {one.name}: runs, or died, on {where} where this machine cannot look; run this there"
    if one.status != "FINISHED" or not one.hidden("model") or not one.is_local:
        return  # a server keeps its files whole itself
    network = None
    with suppress(TrackingError):  # the model was deleted
        network = one.network_file()
    if network is None or not network.is_file():
        yield f"{one.run_id} {one.name}: its {FILE} is gone from the store; deepsky reproduce makes it again"
    elif model_hash(network.parent) != one.hidden("model"):
        yield f"{one.run_id} {one.name}: {network} is not what it logged; deepsky reproduce makes it again"
