"""Where a run comes from: the git commit, the DVC stage and the hashes of the data it reads."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from ruamel.yaml import YAML, YAMLError

from deepsky.errors import TrackingError

# DVC rewrites these while the pipeline runs; what they say is in the data hashes.
_LOCK_LOOKS = 25
_PACKAGES = ("deepsky", "keras", "tensorflow", "numpy")
_WRITTEN_BY_DVC = (":(exclude)dvc.lock", ":(exclude)evaluation")


@dataclass(frozen=True)
class Lineage:
    """What is known of a run's origin.

    Attributes:
        stage: name of the DVC stage, empty outside DVC.
        data: hash of each data input by its path, as dvc.lock has it (``.dir`` at the end for folders).
        git_commit: HEAD, empty outside git.
        git_dirty: whether tracked or new files differ from HEAD; None outside git.
    """

    stage: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    git_commit: str = ""
    git_dirty: bool | None = None


def current_lineage(inputs: Sequence[Path]) -> Lineage:
    """Return the lineage of the stage that DVC is running now in this process.

    dvc.lock holds the hash of every upstream output while a stage runs.

    Args:
        inputs: outputs of other stages that it reads, or what lies in them.

    Raises:
        TrackingError: dvc.lock is there but is not valid YAML, or lacks an input of the stage.
    """
    stage, root = os.environ.get("DVC_STAGE", ""), workspace_root(Path.cwd())
    commit, dirty = _git_state()
    if not stage or root is None:
        return Lineage(git_commit=commit, git_dirty=dirty)
    read = [Path(os.path.relpath(path, root)).as_posix() for path in inputs]
    return Lineage(stage.rpartition(":")[2], _wait_for_hashes(root, read), commit, dirty)


def recorded_lineage(output: Path) -> Lineage:
    """Return the lineage of a finished stage by one of its outputs, as dvc.lock has it.

    Args:
        output: a path of the stage's ``outs``.

    Raises:
        TrackingError: dvc.lock is there but is not valid YAML.
    """
    root = workspace_root(Path.cwd())
    if root is None:
        return Lineage()
    wanted, entries = Path(os.path.relpath(output, root)).as_posix(), _read(root / "dvc.lock").get("stages", {})
    hashes = _output_hashes(root)
    for stage, entry in entries.items():
        if any(out["path"] == wanted for out in entry.get("outs", ())):
            read = (dep["path"] for dep in entry.get("deps", ()))
            return Lineage(stage, dict(filter(None, (_hash_of(path, hashes) for path in read))))
    return Lineage()


def recorded_hashes(paths: Sequence[str]) -> dict[str, str]:
    """Return the hash of each output that dvc.lock knows; the others are left out.

    Args:
        paths: as dvc.yaml writes them, for example ``data/splits/sdss_cutouts.csv``.

    Raises:
        TrackingError: dvc.lock is there but is not valid YAML.
    """
    root = workspace_root(Path.cwd())
    recorded = _output_hashes(root) if root else {}
    return {path: recorded[path] for path in paths if path in recorded}


def workspace_root(start: Path) -> Path | None:
    """Return the nearest folder with a dvc.yaml, from ``start`` upwards.

    DVC_ROOT is not it: in a temporary copy of the project (``dvc exp run --temp``) it names the original.
    """
    here = start.resolve()
    return next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").is_file()), None)


def package_versions() -> str:
    """Return what trains here: python and the packages that shape a result."""
    return ", ".join([f"python {python_version()}", *(f"{name} {version(name)}" for name in _PACKAGES)])


def _wait_for_hashes(root: Path, paths: Sequence[str]) -> dict[str, str]:
    """Return the hash of each path; a stage beside this one may just be rewriting dvc.lock, so look again for a while.

    Raises:
        TrackingError: dvc.lock stays unreadable, or has no hash of a path.
    """
    looks = _LOCK_LOOKS
    while True:
        try:
            recorded = _output_hashes(root)
            found = {path: _hash_of(path, recorded) for path in paths}
            return dict(found[path] or _unknown(path) for path in paths)
        except (TrackingError, KeyError) as error:
            looks -= 1
            if not looks:
                problem = f"has no hash of {error}" if isinstance(error, KeyError) else error.problem
                raise TrackingError(root / "dvc.lock", problem, "run the stage by dvc repro") from error
            time.sleep(0.2)


def _hash_of(path: str, recorded: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the output that is, or holds, a path, with its hash."""
    places = (str(place) for place in (Path(path), *Path(path).parents))
    return next(((place, recorded[place]) for place in places if place in recorded), None)


def _unknown(path: str) -> tuple[str, str]:
    raise KeyError(path)


def _output_hashes(root: Path) -> dict[str, str]:
    """Return the hash of every stage's outputs by path."""
    try:
        entries = _read(root / "dvc.lock").get("stages", {}).values()
        return {out["path"]: out["md5"] for entry in entries for out in entry.get("outs", ()) if "md5" in out}
    except (AttributeError, TypeError, KeyError) as error:  # DVC is writing it: valid YAML, but not all of it
        raise TrackingError(root / "dvc.lock", "is not whole", "run dvc repro, or restore it with git") from error


def _read(path: Path) -> dict[str, Any]:
    """Return a YAML file's mapping, empty when there is no such file."""
    if not path.exists():
        return {}
    now = path.stat()
    return _parse(path, (now.st_mtime_ns, now.st_size))  # two writes within one tick of the clock differ in size


@lru_cache(maxsize=4)
def _parse(path: Path, _version: tuple[int, int]) -> dict[str, Any]:
    """Parse a file once per version of it: a lock of 90 stages takes half a second."""
    try:
        return YAML(typ="safe").load(path) or {}
    except (OSError, YAMLError) as error:
        raise TrackingError(path, f"cannot be read ({error})", "mend it, or restore it with git") from error


def _git_state() -> tuple[str, bool | None]:
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return "", None
    return commit, bool(_git("--no-optional-locks", "status", "--porcelain", "--", ".", *_WRITTEN_BY_DVC))


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
