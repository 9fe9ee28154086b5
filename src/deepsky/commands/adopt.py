"""Write what a search found into params.yaml as a run, which `dvc repro` trains beside the run that was searched."""

import json
from typing import Any

import click

from deepsky.config import PARAMS
from deepsky.errors import ConfigError
from deepsky.experiment import edit
from deepsky.experiment.experiment import read_experiment
from deepsky.tuning.database import study_errors
from deepsky.tuning.selection import entry_of, select_trial, tuned_name
from deepsky.tuning.study import load_study


def run(study: str, trial: int | None, storage: str | None) -> None:
    """Enter a trial below ``runs`` in params.yaml, and print what changed and what to run next.

    Args:
        study: its name.
        trial: number of a complete trial; None takes the one with the best first objective.
        storage: URL of the database; None takes tune.storage.

    Raises:
        StudyError: the database cannot be used, or has no such study or complete trial.
        ConfigError: the run that was searched is no longer in params.yaml, or the name of the new one is taken.
    """
    experiment = read_experiment()
    url = storage or experiment.tune.storage
    opened = load_study(study, url)
    with study_errors(url):
        selected = select_trial(opened, trial)
    origin, document = selected.origin, edit.load()
    runs: dict[str, Any] = json.loads(json.dumps(document.get("runs") or {}))
    entry = entry_of(selected, experiment.run(origin.run), runs.get(origin.run, {}), experiment.tune)
    name = tuned_name(origin.run)
    if name in runs and "origin" not in runs[name]:
        raise ConfigError(f"{PARAMS}: runs.{name}", "stands there already, and no search wrote it", "rename it")
    values = ", ".join(f"{name} {value:.4g}" for name, value in selected.values.items())
    click.echo(f"study {study}, trial {origin.trial}: {values}")
    if runs.get(name) == entry:
        click.echo(f"{PARAMS} has it already")
        return
    before = edit.text_of(document)
    edit.set_entry(document, ("runs", name), entry)
    edit.save(document)
    click.echo(edit.diff(before, edit.text_of(document)))
    click.echo(f"make repro trains it as {name}, beside {origin.run}")
