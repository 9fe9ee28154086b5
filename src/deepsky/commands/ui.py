"""The MLflow UI on this machine's loopback address."""

import socket
import subprocess
import time

import click
import requests

from deepsky.commands.planned import log_pulled_runs
from deepsky.errors import ConfigError
from deepsky.tracking.runs import close_dead_runs
from deepsky.tracking.store import page_of_runs, ui_command

_WAIT_S = 1.0  # between two looks whether the server is there


def run(experiment: str, port: int) -> None:
    """Serve the store until Ctrl-C, after closing the runs of processes that died and entering those that were pulled.

    Args:
        experiment: created when it is not there yet.
        port: on 127.0.0.1.

    Raises:
        ConfigError: something else serves at the port.
        TrackingError: the store cannot be used.
    """
    with socket.socket() as probe:
        if not probe.connect_ex(("127.0.0.1", port)):
            raise ConfigError(f"port {port}", "is taken", "say make ui PORT=5001, or end what serves there")
    page = page_of_runs(experiment)
    close_dead_runs(experiment)
    log_pulled_runs()
    address = f"http://127.0.0.1:{port}"
    click.echo("MLflow starts ...")
    command, environment = ui_command("127.0.0.1", port)
    with subprocess.Popen(command, env=environment) as server:
        if _answers(address, server):
            click.echo(f"open {address}/{page}   (Ctrl-C stops)")


def _answers(address: str, server: "subprocess.Popen[bytes]") -> bool:
    """Wait until the server answers; False where it ended before."""
    session = requests.Session()
    session.trust_env = False  # no proxy leads to this machine
    while server.poll() is None:
        try:
            session.get(f"{address}/health", timeout=_WAIT_S).raise_for_status()
            return True
        except requests.RequestException:
            time.sleep(_WAIT_S)
    return False
