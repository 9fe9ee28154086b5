"""The command line: parse, call, print. One verb per DVC stage, and what a person runs beside them."""

import logging
import os
import signal
import sys

import click

from deepsky.cli import adding, runs, stages, tools  # noqa: F401 - they add their verbs
from deepsky.cli.group import cli
from deepsky.errors import DeepSkyError

__all__ = ["cli", "main"]


def main() -> None:
    """Run the command line; a problem the user can mend becomes one line and exit code 1."""
    # Read when keras first imports TensorFlow, and by OpenCV: a problem is one line of ours.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of small datasets: a network each, compiled anew
    try:
        cli.main(prog_name="deepsky", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; nothing half-written was left behind", err=True)
        sys.exit(128 + signal.SIGINT)
    except DeepSkyError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # deepsky urls | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it closes it
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        place = error.filename or "the output"
        reason = " ".join(str(error.strerror or error).split())
        sys.exit(f"error: {place}: {reason}; free space or permission is missing, mend it and rerun")
