"""dvc repro with independent stages side by side; DVC itself runs one stage at a time."""

import sys
from collections.abc import Sequence
from pathlib import Path

from deepsky.config import PARAMS
from deepsky.errors import ConfigError, DeepSkyError
from deepsky.experiment.experiment import Experiment, read_experiment
from deepsky.pipeline.children import Children
from deepsky.pipeline.holder import held_project
from deepsky.pipeline.runner import bring_up_to_date

MAX_JOBS = 64
LAST = ("evaluate", "report")
_READ_WHOLE = (Path("data/packed"), Path("models/trained"))


def run(jobs: int, targets: Sequence[str] = (), only: Sequence[str] = ()) -> None:
    """Bring every stage, or the targets and what they need, up to date.

    Stages that are up to date, and whose inputs are, start no process. The last word is `dvc repro`'s own,
    so the outcome is the same as with one job.

    Args:
        jobs: stages that may run at a time, 1 to MAX_JOBS.
        targets: DVC addresses of stages; none means all.
        only: names of datasets, frames or runs: their runs, whatever else params.yaml holds, then evaluate and report.

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
        if only:
            bring_up_to_date(jobs, targets=stages_of(experiment, only))
            bring_up_to_date(1, stages=LAST)
        else:
            if jobs > 1:
                bring_up_to_date(jobs, targets=targets)
            _dvc_repro(targets)
    from deepsky.commands.planned import log_pulled_runs  # slow to import
    from deepsky.tracking.runs import close_dead_runs

    # A killed training whose outputs then came from DVC's cache has no successor to close its run.
    close_dead_runs(experiment.tracking.experiment)
    log_pulled_runs()


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


def _dvc_repro(targets: Sequence[str]) -> None:
    sys.stdout.flush()  # what was printed stands above what DVC prints
    with Children() as children:
        children.start("dvc", ["dvc", "--wait-for-lock", "repro", *targets], keep_output=False)
        if children.next_ended().returncode:
            raise DeepSkyError("dvc repro", "a stage failed", "its own line above says why")
