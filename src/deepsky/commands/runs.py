"""Runs that MLflow does not know whole yet."""

import click

from deepsky.commands.planned import log_pulled_runs
from deepsky.tracking.journal import deliver_waiting, waiting


def run(*, sync: bool) -> None:
    """List the runs that wait on disk; with ``sync`` deliver them, and enter those that came by ``dvc pull``.

    Raises:
        TrackingError: the store cannot be used.
    """
    if sync:
        click.echo(f"delivered: {deliver_waiting():,}")
        log_pulled_runs()
    left = waiting()
    for one in left:
        click.echo(f"{one.name}: {one.status} (experiment {one.experiment})")
    click.echo(f"waiting: {len(left):,}" + ("; deepsky runs --sync delivers them" if left and not sync else ""))
