"""dvc repro with independent stages side by side, in warm processes; DVC itself runs one stage at a time."""

from collections.abc import Sequence
from pathlib import Path

import click

from deepsky.config import PARAMS
from deepsky.errors import ConfigError
from deepsky.experiment.experiment import Experiment, read_experiment
from deepsky.experiment.fingerprint import Code
from deepsky.experiment.plan import VERSIONS, plan_stages, versions_of
from deepsky.pipeline.holder import held_project
from deepsky.pipeline.ledger import open_ledger
from deepsky.pipeline.runner import StagesFailed, bring_up_to_date

MAX_JOBS = 64
LAST = ("evaluate", "report")
_UP_TO_DATE = "everything is up to date"
_READ_WHOLE = (Path("data/packed"), Path("models/trained"))


def run(jobs: int, targets: Sequence[str] = (), only: Sequence[str] = (), scheduler: str | None = None) -> None:
    """Bring every stage, or the targets and what they need, up to date.

    Stages that are up to date, and whose inputs are, start no process. The outcome is that of `dvc repro`.

    Args:
        jobs: stages that may run at a time, 1 to MAX_JOBS.
        targets: DVC addresses of stages; none means all.
        only: names of datasets, frames or runs: their runs, whatever else params.yaml holds, then evaluate and report.
        scheduler: address of a Dask scheduler whose workers run the stages; None: workers of this process.

    Raises:
        ConfigError: jobs out of range, or whatever is wrong in params.yaml.
        DeepSkyError: a stage failed; those that do not wait for it were finished. Or another `deepsky repro`
            is at work in this project.
        KeyboardInterrupt: Ctrl-C came; what ran has ended.
        SystemExit: SIGTERM or a hangup came; what ran has ended.
    """
    if not 1 <= jobs <= MAX_JOBS:
        raise ConfigError(f"--jobs {jobs}", "is out of range", f"give 1 to {MAX_JOBS}")
    experiment = read_experiment()  # our own lines about params.yaml come before DVC's
    if not experiment.runs:
        for folder in _READ_WHOLE:  # by evaluate, whose stage DVC would not start without them
            folder.mkdir(parents=True, exist_ok=True)
    with held_project():
        try:
            if only:
                n_stale = _bring_these(experiment, only, jobs, scheduler)
            else:
                n_stale = bring_up_to_date(jobs, targets=targets, scheduler=scheduler)
        except StagesFailed:
            _complete_runs(experiment, pulled=False)
            raise
        if not n_stale:
            click.echo(_UP_TO_DATE)
    _complete_runs(experiment, pulled=True)


def _bring_these(experiment: Experiment, names: Sequence[str], jobs: int, scheduler: str | None) -> int:
    """Bring the runs of some datasets up to date, then show what is there, though some of them failed."""
    try:
        n_stale = bring_up_to_date(jobs, targets=stages_of(experiment, names), scheduler=scheduler)
    except StagesFailed as error:
        if "plan" not in error.stages:
            bring_up_to_date(1, stages=LAST, scheduler=scheduler)
        raise
    return n_stale + bring_up_to_date(1, stages=LAST, scheduler=scheduler)


def _complete_runs(experiment: Experiment, *, pulled: bool) -> None:
    """Close the runs of killed trainings that have no successor (it failed as well, or came from DVC's cache).

    Args:
        experiment: whose runs.
        pulled: also enter the runs that came by ``dvc pull``.
    """
    from deepsky.commands.planned import log_pulled_runs  # slow to import
    from deepsky.tracking.runs import close_dead_runs
    from deepsky.tracking.store import without_if_away

    with without_if_away("deepsky runs --sync completes it when it answers"):
        close_dead_runs(experiment.tracking.experiment)
        if pulled:
            log_pulled_runs()


def list_stale(targets: Sequence[str] = (), only: Sequence[str] = ()) -> None:
    """Print what ``run`` would run, and why; nothing is run or written.

    Args:
        targets: as for ``run``.
        only: as for ``run``.

    Raises:
        ConfigError: whatever is wrong in params.yaml.
        DeepSkyError: the pipeline cannot be read.
    """
    experiment = read_experiment()
    versions = versions_of(plan_stages(experiment, Code()))
    with open_ledger(lambda: None) as ledger:
        ledger.plan(stages_of(experiment, only) if only else targets, None)
        stale = ledger.reasons(versions, str(VERSIONS))
        if only:
            ledger.plan((), LAST)
            stale += ledger.reasons(versions, str(VERSIONS))
    for address, reason in stale:
        click.echo(f"{address}: {reason}")
    click.echo(f"{len(stale)} stages" if stale else _UP_TO_DATE)


def stages_of(experiment: Experiment, names: Sequence[str]) -> list[str]:
    """Return the DVC addresses of the runs that names stand for.

    Args:
        experiment: params.yaml.
        names: of datasets, frames or runs.

    Raises:
        ConfigError: nothing has such a name, or no run learns from it.
    """
    found: dict[str, None] = {}
    for name in names:
        of_entry = {dataset for dataset, one in experiment.datasets.items() if name in (dataset, one.entry)}
        runs = [run for run in experiment.runs.values() if run.recipe.dataset in of_entry or run.name == name]
        if not runs:
            known = ", ".join([*experiment.datasets, *experiment.runs]) or "none is there"
            problem = "no run learns from it" if of_entry else f"is no dataset or run of {PARAMS}"
            remedy = "add it to compare.datasets, or a run of it" if of_entry else f"choose of: {known}"
            raise ConfigError(f"--only {name}", problem, remedy)
        found |= {f"{'train' if run.is_cell else 'train_run'}@{run.name}": None for run in runs}
    return list(found)
