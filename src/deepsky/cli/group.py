"""The command group, and what several verbs share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from deepsky.config import read_choice, read_entries, read_section, read_yaml

if TYPE_CHECKING:
    from deepsky.datasets.splits import GroupBy  # slow to import


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


def on_bad_file() -> Literal["stop", "skip"]:
    """Return what params.yaml wants done with bad files."""
    return "skip" if read_choice("on_bad_file", ("stop", "skip")) == "skip" else "stop"


def experiment() -> str:
    """Return the MLflow experiment of params.yaml."""
    from deepsky.tracking.store import TrackingParams

    return read_section("tracking", TrackingParams).experiment


def group_by(dataset: str) -> "GroupBy":
    """Return what stays together when a dataset or collection is split."""
    from deepsky.datasets.splits import DatasetParams
    from deepsky.formats.collection import CollectionParams

    if dataset in read_entries("collections"):
        return read_section(f"collections.{dataset}", CollectionParams).group_by
    return read_section(f"datasets.{dataset}", DatasetParams).group_by


def data_sections(dataset: str) -> dict[str, Any]:
    """Return the parameters that shaped a dataset's split, to be logged with its runs."""
    return {"split": {**read_yaml("split"), "group_by": group_by(dataset)}}
