"""Train a run again from what it recorded, away from the project, and tell whether the same comes out."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import click
from ruamel.yaml import YAML

from deepsky.commands.compared import compare, score_of
from deepsky.commands.stored import find_stored
from deepsky.errors import DataError, DeepSkyError
from deepsky.interruption import interruptible
from deepsky.tracking.cached import Cache, read_config, resolved
from deepsky.tracking.lineage import workspace_root
from deepsky.tracking.recorded import RecordedRun, differing, tag_run
from deepsky.tracking.revision import NOT_SHOWN
from deepsky.tracking.secrets import HIDDEN as MASK

_COPIED = ("src", "dvc.yaml", "params.yaml", "pyproject.toml")  # of a project without git
_NO_HOOKS = ("-c", "core.hooksPath=/dev/null")  # those of DVC would look for a cache
# Values of DVC's configuration of caches and remotes that may be paths.
_PATHS = {
    "dir", "url", "keyfile", "credentialpath", "configpath", "cert_path", "key_path", "gdrive_user_credentials_file",
    "gdrive_service_account_json_file_path",
}  # fmt: skip
_FROM_HERE = ("config", "config.local")  # of DVC: where the cache and the remotes are


@interruptible()
def run(name: str, n_seeds: int, *, keep: bool) -> None:
    """Train a run once more from its own commit, settings and data in a temporary folder, and compare.

    Args:
        name: see ``find_stored``.
        n_seeds: how many trainings with other seeds follow, to see what chance does.
        keep: leave the temporary folder there.

    Raises:
        DataError: the run, its code or its data are not to be had any more.
        DeepSkyError: the network that came out differs by more than ``compare`` allows.
        TrackingError: the store cannot be used, or the run recorded nothing.
    """
    stored = find_stored(name)
    recorded, root = stored.lineage(), workspace_root(Path.cwd())
    if root is None or not recorded["stage"]:
        raise DataError(name, "was not trained by a stage of DVC", "give a run that dvc repro trained")
    if not recorded["command"]:
        problem = "was made of files from DVC's cache: how they were trained is not recorded"
        raise DataError(name, problem, "give the run that trained them, or train it again")
    with _place(keep) as place, _code_of(stored, recorded, root, place) as project:
        _bring_data(recorded, root, project)
        said = _plan(stored, recorded, project)
        out = _train(stored, recorded, project, place)
        answer = compare(stored, recorded, out, place)
        for line in (*said, *answer.lines):
            click.echo(line)
        if n_seeds:
            _other_seeds(stored, recorded, project, place, n_seeds)
        if keep:
            click.echo(f"left in {project}")
    tag_run(stored.run_id, "deepsky.reproduced", f"{answer.word}, {datetime.now(UTC):%Y-%m-%d}")
    if answer.word == "different":
        raise DeepSkyError(stored.name, "came out different", "the lines above say what differs")


@contextmanager
def _place(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="deepsky-reproduce-"))
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _code_of(stored: RecordedRun, recorded: Mapping[str, Any], root: Path, place: Path) -> Iterator[Path]:
    """Lay out the code that a run was trained by; without a commit, the code of now, whose fingerprint will tell."""
    code, folder = recorded["code"], place / "project"
    if not code["commit"]:
        click.echo(f"no commit can be told ({code['why']}): the code of now is used")
        folder.mkdir()
        for name in _COPIED:
            source = root / name
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)
        _configure(root, folder)
        yield folder
        return
    try:
        _git(root, *_NO_HOOKS, "worktree", "prune")  # of an earlier one that was killed
        _git(root, *_NO_HOOKS, "worktree", "add", "--quiet", "--detach", str(folder), code["commit"])
    except subprocess.CalledProcessError as error:
        problem = f"cannot be checked out ({error.stderr.strip()[:200]})"
        raise DataError(f"commit {code['commit']}", problem, "run git fetch where another clone has it") from error
    try:
        project = folder / _git(root, "rev-parse", "--show-prefix").strip()
        if code["is_dirty"]:
            _patch(stored.patch(), project)
        _configure(root, project)
        yield project
    finally:
        subprocess.run(
            ["git", "worktree", "remove", "--force", str(folder)], cwd=root, capture_output=True, check=False
        )


def _patch(patch: str, project: Path) -> None:
    for line in (line for line in patch.splitlines() if line.startswith(NOT_SHOWN)):
        click.echo(f"its code differed from the commit in what the patch does not show: {line.removeprefix(NOT_SHOWN)}")
    if MASK in patch:
        click.echo("the patch of its code hides passwords: these lines are not as they were")
    if "diff --git" not in patch:
        return
    command = ["git", "apply", "--unidiff-zero", "--whitespace=nowarn", "-"]
    done = subprocess.run(command, cwd=project, input=patch.encode(), capture_output=True, check=False)
    if done.returncode:
        problem = f"cannot be applied ({done.stderr.decode(errors='replace').strip()[:200]})"
        raise DataError("lineage/patch.diff", problem, "apply it by hand: mlflow artifacts download has it")


def _configure(root: Path, project: Path) -> None:
    """Let DVC know the cache and the remotes of the project."""
    (project / ".dvc").mkdir(exist_ok=True)
    for name in _FROM_HERE:
        config = read_config(root / ".dvc" / name)
        for section in config.values():
            for key in (key for key in _PATHS & set(section) if isinstance(section[key], str)):
                section[key] = resolved(root / ".dvc" / name, section[key])
        with (project / ".dvc" / name).open("wb") as file:
            config.write(file)
    _dvc(project, "config", "--local", "cache.dir", str(Cache(root).folder))
    if not (root / ".git").exists():
        _dvc(project, "config", "--local", "core.no_scm", "true")


def _bring_data(recorded: Mapping[str, Any], root: Path, project: Path) -> None:
    """Put each input there as it was: from DVC's cache, else from its remotes."""
    scratch = project.parent / f"{project.name}-data"
    shutil.copytree(project / ".dvc", scratch / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    _dvc(scratch, "config", "--local", "core.no_scm", "true")
    yaml = YAML(typ="safe")
    for path, digest in recorded["data"].items():
        told = scratch / f"{path}.dvc"
        told.parent.mkdir(parents=True, exist_ok=True)
        with told.open("w", encoding="utf-8") as file:
            yaml.dump({"outs": [{"md5": digest, "hash": "md5", "path": told.stem}]}, file)
    names = [f"{path}.dvc" for path in recorded["data"]]
    here = _dvc(scratch, "checkout", *names, may_fail=True)
    if here.returncode:
        fetched = _dvc(scratch, "pull", *names, may_fail=True)
        if fetched.returncode:
            problem = f"the data of the run are neither in DVC's cache nor in a remote ({_last(fetched)})"
            raise DataError(
                ", ".join(recorded["data"]), problem, "run dvc pull in a clone that has them, then dvc push"
            )
    for path in recorded["data"]:
        target = project / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        (scratch / path).rename(target)


def _plan(stored: RecordedRun, recorded: Mapping[str, Any], project: Path) -> list[str]:
    """Resolve the settings by the run's code; return what they say else than the run recorded."""
    _deepsky(project, project.parent, ["plan", "--out", "plan.yaml"])
    plan = YAML(typ="safe").load(project / "plan.yaml")["stages"]["train"]
    if stored.name not in plan:
        raise DataError("params.yaml", f"has no run {stored.name} at this commit", "the run's patch is incomplete")
    changed = differing([recorded["settings"], plan[stored.name]])
    return [f"{key}: was {before}, is {now}" for key, (before, now) in changed.items()]


def _train(stored: RecordedRun, recorded: Mapping[str, Any], project: Path, place: Path) -> Path:
    """Run the stage's own command, under the backend that it had; return the folder that it wrote."""
    words, backend = list(recorded["command"][1:]), recorded["environment"].get("backend", "")
    click.echo(f"training {stored.name} again ...")
    _deepsky(project, place, words, backend)
    return project / words[words.index("--out") + 1]


def _other_seeds(stored: RecordedRun, recorded: Mapping[str, Any], project: Path, place: Path, n_seeds: int) -> None:
    """Train with other seeds, and print how far the test score spreads."""
    yaml, file = YAML(typ="safe"), project / "plan.yaml"
    plan = yaml.load(file)
    first, measured = int(plan["stages"]["train"][stored.name]["seed"]), []
    for seed in range(first + 1, first + 1 + n_seeds):
        plan["stages"]["train"][stored.name]["seed"] = seed
        with file.open("w", encoding="utf-8") as stream:
            yaml.dump(plan, stream)
        measure, score = score_of(_train(stored, recorded, project, place))
        measured.append(score)
        click.echo(f"seed {seed}: {measure} {score:.4f}")
    spread = f" +- {stdev(measured):.4f} (standard deviation)" if n_seeds > 1 else ""
    click.echo(f"{n_seeds} other seeds: {measure} {fmean(measured):.4f}{spread}")


def _deepsky(project: Path, place: Path, words: Sequence[str], backend: str = "") -> None:
    """Run a verb of the project's own code, with a store of its own that goes with the folder."""
    own = {"PYTHONPATH": str(project / "src"), "MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}"}
    own |= {"KERAS_BACKEND": backend} if backend else {}
    others = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    command = [sys.executable, "-m", "deepsky", *words]
    done = subprocess.run(command, cwd=project, env=others | own, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(f"deepsky {words[0]}", f"failed in {project} ({_last(done)})", "add --keep to look at it there")


def _dvc(project: Path, *words: str, may_fail: bool = False) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words], cwd=project, capture_output=True, text=True, check=False
    )
    if done.returncode and not may_fail:
        raise DataError(f"dvc {words[0]}", f"failed in {project} ({_last(done)})", "run deepsky doctor")
    return done


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def _last(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else f"exit code {done.returncode}"
