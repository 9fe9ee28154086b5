"""Make a run's network the champion of its dataset."""

import json
import re

import click

from deepsky.commands.models import find_model
from deepsky.commands.planned import EVALUATED
from deepsky.errors import TrackingError
from deepsky.experiment.experiment import read_experiment
from deepsky.tracking.registry import CARD, PREFIX, Version, promote
from deepsky.tracking.runs import find_run, run_key

_SUMMARY = EVALUATED / "summary.json"
_RUN_ID = re.compile(r"[0-9a-f]{32}")


def run(name: str, alias: str) -> None:
    """Register the network of a run, let the alias name it, and say what it named before.

    Args:
        name: MLflow's id of the run, or what ``find_model`` finds.
        alias: of the version.

    Raises:
        DataError: there is no such run.
        TrackingError: the store cannot be used, or does not know the run.
    """
    experiment = read_experiment().tracking.experiment
    run_id = name if _RUN_ID.fullmatch(name) else _run_id(experiment, name)
    now, before = promote(experiment, run_id, alias, _simulated())
    click.echo(f"{PREFIX}{now.name}@{alias} is version {now.number}, {_in_words(now)}; see {CARD} in its files")
    if before is None:
        click.echo(f"nothing was {alias} before")
    elif before.number != now.number:
        click.echo(f"before: version {before.number}, {_in_words(before)}")


def _in_words(version: Version) -> str:
    figures = ", ".join(f"{name} {value:.4f}" for name, value in version.figures.items())
    return f"run {version.run} ({figures or 'not evaluated'})"


def _simulated() -> list[str]:
    """Return the keys of the evaluated runs that learned from simulated pictures."""
    if not _SUMMARY.exists():
        return []
    return [one["key"] for one in json.loads(_SUMMARY.read_text())["runs"].values() if one["is_simulated"]]


def _run_id(experiment: str, name: str) -> str:
    """Return MLflow's id of the run that made a network, by the hash of what it wrote."""
    network = find_model(name)
    found = find_run(experiment, run_key(network.parent))
    if found is None:
        raise TrackingError(network, "MLflow has no finished run of it", "say deepsky runs --sync")
    return found.run_id
