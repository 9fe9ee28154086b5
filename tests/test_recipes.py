"""The recipes for clusters run, and docs/tuning.md names what there is."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest

from deepsky.cli import cli
from deepsky.tuning.params import HeadSpace, TuneParams
from deepsky.tuning.study import is_done, load_study
from tests.tuning_project import DATASET, NETWORK, ROOT, make_project

RECIPES = ROOT / "docs" / "recipes"
PAGE = (ROOT / "docs" / "tuning.md").read_text()
COMMANDS = [line.split(" # ")[0].strip() for line in re.findall(r"^    (\S.*)$", PAGE, re.MULTILINE)]
ENV = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DEEPSKY_", "SLURM_"))} | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"
}
# What a line of #SBATCH may be: https://slurm.schedmd.com/sbatch.html
SBATCH = {
    "job-name": r"[\w-]+",
    "array": r"\d+-\d+",
    "ntasks": r"1",
    "cpus-per-task": r"\d+",
    "mem": r"\d+[MG]",
    "time": r"\d\d:\d\d:\d\d",
    "signal": r"B:TERM@\d+",
    "output": r"[\w-]+%A_%a\.log",
}


def n_done(root: Path) -> int:
    """Finished trials of the study; every other one waits or failed."""
    study = load_study(f"{DATASET}-{NETWORK}", f"sqlite:///{root / 'tuning.db'}")
    trials = study.get_trials(deepcopy=False)
    study._storage._backend.engine.dispose()
    assert not any(trial.state.name == "RUNNING" for trial in trials)
    return sum(map(is_done, trials))


def test_dask_and_slurm_workers_go_on_with_one_study(tmp_path) -> None:
    root = make_project(tmp_path / "project", n_rows=60)
    command = [sys.executable, RECIPES / "dask_tune.py", "--local", "2", "--folder", root, "--trials", "10"]
    ended = subprocess.run(command, cwd=tmp_path, env=ENV, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("tcp://127.0.0.1:") for line in lines)
    assert any(" 10/10 done, best f1_macro " in line for line in lines)
    assert n_done(root) == 10

    env = ENV | {"SLURM_ARRAY_TASK_ID": "0", "DEEPSKY_STORAGE": "sqlite:///tuning.db"}
    task = ["bash", RECIPES / "slurm_tune.sbatch", DATASET, NETWORK, "--trials", "12"]
    ended = subprocess.run(task, cwd=root, env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1].startswith("12/12 done, best f1_macro ")
    assert n_done(root) == 12


def test_dask_workers_that_fail_say_why(tmp_path) -> None:
    command = [sys.executable, RECIPES / "dask_tune.py", "--local", "1", "--folder", tmp_path, "--trials", "0"]
    ended = subprocess.run(command, env=ENV, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stdout.endswith("error: --trials 0: is below 1; give the number of trials in total\n")


def test_a_slurm_task_without_a_database_says_so(tmp_path) -> None:
    ended = subprocess.run(
        ["bash", RECIPES / "slurm_tune.sbatch"], cwd=tmp_path, env=ENV, capture_output=True, text=True
    )
    assert ended.returncode != 0
    assert "DEEPSKY_STORAGE: set it to the URL of a database" in ended.stderr


def test_the_lines_for_slurm() -> None:
    path = RECIPES / "slurm_tune.sbatch"
    subprocess.run(["bash", "-n", path], check=True)
    text = path.read_text()
    asked = re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)
    assert asked
    for line in asked:
        match = re.fullmatch(r"--([a-z-]+)=(\S+)", line)
        assert match is not None, line
        assert re.fullmatch(SBATCH[match[1]], match[2]), line
    # Slurm reads no more of them after the first command.
    first_command = re.search(r"^[^#\s]", text, re.MULTILINE)
    assert first_command is not None
    assert "#SBATCH" not in text[first_command.start() :]


@pytest.mark.parametrize("key", [field.name for field in (*fields(TuneParams), *fields(HeadSpace))])
def test_the_page_explains_every_key(key) -> None:
    assert re.search(rf"^\| [^|]*`{key}`[^|]*\| ", PAGE, re.MULTILINE), f"docs/tuning.md has no row about {key}"


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("deepsky ")])
def test_the_pages_commands_exist(command) -> None:
    words, group = shlex.split(command)[1:], cli
    context = click.Context(cli)
    while isinstance(group, click.Group):
        group = group.commands[words.pop(0)]
    parsed = group.make_context(command, words, parent=context)  # raises on an unknown or missing option
    assert parsed.command is group
    assert not parsed.args


def test_the_pages_targets_and_links_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {word for command in COMMANDS for word in re.findall(r"\bmake ([a-z-]+)", command)}
    assert {"tune", "tune-workers", "dashboard"} <= shown <= targets
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert link.startswith("https://") or (ROOT / "docs" / link).exists(), link
