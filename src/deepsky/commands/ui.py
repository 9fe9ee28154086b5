"""The MLflow UI on this machine's loopback address."""

import subprocess

import click

from deepsky.commands.planned import log_pulled_runs
from deepsky.tracking.runs import close_dead_runs
from deepsky.tracking.store import prepare, ui_command


def run(experiment: str, port: int) -> None:
    """Serve the store until Ctrl-C, after closing the runs of processes that died and entering those that were pulled.

    Args:
        experiment: created when it is not there yet.
        port: on 127.0.0.1.

    Raises:
        TrackingError: the store cannot be used.
    """
    _, experiment_id = prepare(experiment)
    close_dead_runs(experiment)
    log_pulled_runs()
    click.echo(f"open http://127.0.0.1:{port}/#/experiments/{experiment_id}   (Ctrl-C stops)")
    subprocess.run(ui_command("127.0.0.1", port))
