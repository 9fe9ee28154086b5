"""The command group, and what several verbs share."""

from pathlib import Path
from typing import Any

import click


class _Path(click.Path):
    """A path argument that arrives as pathlib.Path."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)


PATH = _Path()


class _Verbs(click.Group):
    """Lists what a person runs before the stages, which dvc repro runs; no summary is cut."""

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both lists."""
        sections: dict[str, list[tuple[str, str]]] = {"Commands": [], "Stages (make repro runs them)": []}
        everyday, stages = sections.values()
        for name, command in sorted(self.commands.items()):
            is_stage = command.help is not None and command.help.startswith("Stage ")
            (stages if is_stage else everyday).append((name, command.get_short_help_str(limit=200)))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="deepsky")
def cli() -> None:
    """Classify deep-space objects from images. `make help` lists the everyday targets."""


def path_option(name: str, what: str) -> Any:
    """Return an option --NAME PATH that must be given."""
    return click.option(f"--{name}", required=True, type=PATH, help=what)
