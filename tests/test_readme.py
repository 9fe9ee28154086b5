"""Every command of the README exists and takes the options shown there."""

import re
import shlex
from pathlib import Path

import click
import pytest
from distributed.cli.dask_scheduler import main as dask_scheduler
from dvc.cli import parse_args

from deepsky.cli import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [line.split(" # ")[0].strip() for line in re.findall(r"^    (\S.*)$", README, re.MULTILINE)]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_readme_shows_the_commands_that_matter():
    assert {"make repro", "make test", "make ui"} <= set(COMMANDS)
    assert any(command.startswith("deepsky predict") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_exists(command):
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    if words[0] == "make":
        assert words[1] in TARGETS
        return
    if words[0] == "dvc":
        parse_args(words[1:])  # raises on an unknown or missing option
        return
    if words[:2] == ["dask", "scheduler"]:
        dask_scheduler.make_context("dask scheduler", words[2:])
        return
    assert words[0] == "deepsky", f"{command!r} is no command of this project"
    context, group = click.Context(cli), cli
    rest = words[1:]
    while isinstance(group, click.Group):
        group = group.commands[rest.pop(0)]
    group.make_context(words[0], rest, parent=context)  # raises on an unknown or missing option


def test_every_verb_of_the_command_line_has_help():
    waiting = list(cli.commands.values())
    while waiting:
        command = waiting.pop()
        assert command.help
        waiting += command.commands.values() if isinstance(command, click.Group) else []


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    listed = set(re.findall(r"^([a-z-]+):.*##", text, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    assert listed == set(phony[1].split())


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(link):
    assert link.startswith("https://") or (ROOT / link).exists()
