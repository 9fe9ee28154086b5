"""Make a run's network the champion of its dataset."""

import click

from deepsky.commands.stored import find_stored
from deepsky.experiment.experiment import read_experiment
from deepsky.tracking.registry import CARD, Version, promote
from deepsky.tracking.trained_files import PREFIX


def run(name: str, alias: str) -> None:
    """Register the network of a run, let the alias name it, and say what it named before.

    Args:
        name: see ``find_stored``.
        alias: of the version.

    Raises:
        ConfigError: this cannot be an alias.
        DataError: there is no such run.
        TrackingError: the store cannot be used, or does not know the run.
    """
    now, before = promote(read_experiment().tracking.experiment, find_stored(name).run_id, alias)
    click.echo(f"{PREFIX}{now.name}@{alias} is version {now.number}, {_in_words(now)}; see {CARD} in its files")
    if before is None:
        click.echo(f"nothing was {alias} before")
    elif before.number != now.number:
        click.echo(f"before: version {before.number}, {_in_words(before)}")


def _in_words(version: Version) -> str:
    figures = ", ".join(f"{name} {value:.4f}" for name, value in version.figures.items())
    return f"run {version.run} ({figures or 'not evaluated'})"
