"""The command group, and what several verbs share."""

from pathlib import Path
from typing import Any

import click


class _Path(click.Path):
    """A path argument that arrives as pathlib.Path."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)


PATH = _Path()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Classify deep-space objects from images. `make help` lists the everyday targets."""


def path_option(name: str, what: str) -> Any:
    """Return an option --NAME PATH that must be given."""
    return click.option(f"--{name}", required=True, type=PATH, help=what)
