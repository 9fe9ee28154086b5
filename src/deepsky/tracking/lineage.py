"""Where a run comes from: the code, the DVC stage, what it reads, and the stages that made that."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from ruamel.yaml import YAML, YAMLError

from deepsky.errors import TrackingError
from deepsky.tracking.environment import environment
from deepsky.tracking.revision import Revision, current_revision
from deepsky.tracking.secrets import masked

LINEAGE, PATCH = "lineage/lineage.json", "lineage/patch.diff"  # among the artifacts of a run
_LOCK_LOOKS = 25  # at dvc.lock, which a stage beside this one may be rewriting
_PACKAGES = ("deepsky", "keras", "tensorflow", "numpy")


@dataclass(frozen=True)
class Lineage:
    """What is known of a run's origin.

    Attributes:
        stage: name of the DVC stage, empty outside DVC.
        settings: what the plan says of the run, and by which code (``code``); empty outside DVC.
        data: hash of each data input by its path, as dvc.lock has it (``.dir`` at the end for folders).
        revision: of the code; None where the run was made of restored files.
        made_by: the stages that the data came from, by name: ``deps`` and ``outs`` (hash by path) and ``settings``,
            what the stage ran with and by which code.
        command: what was called, with passwords masked.
        environment: what it was computed by, see ``environment``; empty where the run was made of restored files.
    """

    stage: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    revision: Revision | None = None
    made_by: Mapping[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_simulated(self) -> bool:
        """Whether any of the data was drawn: by stage simulate, or by fetch from the simulated survey."""
        fetched = self.made_by.get("fetch", {}).get("settings", {}).get("catalogue", {})
        return "simulate" in self.made_by or fetched.get("survey") == "simulated"

    def split_settings(self, dataset: str) -> dict[str, Any]:
        """Return what shaped the split of a dataset; nothing where that is not known."""
        path = f"data/splits/{dataset}.csv"
        made: Mapping[str, Any] = next((one["settings"] for one in self.made_by.values() if path in one["outs"]), {})
        return {key: value for key, value in made.items() if key != "code"}

    def as_json(self) -> dict[str, Any]:
        """Return all but the patch as plain values."""
        code = self.revision or Revision(why="the files came from the DVC cache")
        return {
            "code": {"commit": code.commit, "why": code.why, "is_dirty": code.is_dirty},
            "command": list(self.command),
            "stage": self.stage,
            "settings": dict(self.settings),
            "data": dict(self.data),
            "made_by": dict(self.made_by),
            "environment": dict(self.environment),
        }


def current_lineage(inputs: Sequence[Path], run: str = "") -> Lineage:
    """Return the lineage of the stage that DVC is running now in this process.

    dvc.lock holds the hash of every upstream output while a stage runs.

    Args:
        inputs: outputs of other stages that it reads, or what lies in them.
        run: its name in the plan.

    Raises:
        TrackingError: dvc.lock is there but is not valid YAML, or lacks an input of the stage.
    """
    stage, root = os.environ.get("DVC_STAGE", ""), workspace_root(Path.cwd())
    here = Lineage(
        revision=current_revision(root or Path.cwd()),
        command=tuple(masked(word) for word in (Path(sys.argv[0]).name, *sys.argv[1:])),
        environment=environment(),
    )
    if not stage or root is None:
        return here
    read = [Path(os.path.relpath(path, root)).as_posix() for path in inputs]
    data, planned = _wait_for_hashes(root, read), _settings(_plan(root), f"train.{run}")
    return replace(here, stage=stage.rpartition(":")[2], settings=planned, data=data, made_by=_made_by(root, data))


def recorded_lineage(output: Path, unread: Sequence[str] = ()) -> Lineage:
    """Return the lineage of a finished stage by one of its outputs, as dvc.lock has it.

    Args:
        output: a path of the stage's ``outs``.
        unread: beginnings of paths that DVC knows as its inputs, but that it did not read.

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
            read = (dep["path"] for dep in entry.get("deps", ()) if not dep["path"].startswith(tuple(unread)))
            data = dict(filter(None, (_hash_of(path, hashes) for path in read)))
            return Lineage(stage, _as_recorded(entry, _plan(root))["settings"], data, made_by=_made_by(root, data))
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


def _made_by(root: Path, data: Mapping[str, str]) -> dict[str, Any]:
    """Return the stages that some data came from, and those before them, as dvc.lock and the plan have them now."""
    entries, plan = _read(root / "dvc.lock").get("stages", {}), _plan(root)
    makers = {out["path"]: name for name, entry in entries.items() for out in entry.get("outs", ())}
    found: dict[str, Any] = {}
    waiting = list(data)
    while waiting:
        stage = next((makers[place] for place in _places(waiting.pop()) if place in makers), None)
        if stage is not None and stage not in found:
            found[stage] = _as_recorded(entries[stage], plan)
            waiting += found[stage]["deps"]
    return dict(sorted(found.items()))


def _as_recorded(entry: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of dvc.lock: hashes of what it reads and writes, and the plan's settings that it depends on."""
    hashes = {kind: {one["path"]: one.get("md5", "") for one in entry.get(kind, ())} for kind in ("deps", "outs")}
    names = [name for values in entry.get("params", {}).values() for name in values]
    return {**hashes, "settings": {key: value for name in names for key, value in _settings(plan, name).items()}}


def _plan(root: Path) -> Mapping[str, Any]:
    return _read(root / "plan.yaml").get("stages", {})


def _settings(plan: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return what the plan has at STAGE or STAGE.ITEM; nothing where it has nothing there."""
    stage, _, item = place.partition(".")
    found = plan.get(stage) or {}
    return dict((found.get(item) if item else found) or {})


def _places(path: str) -> list[str]:
    """Return a path and the folders that it lies in."""
    return [str(place) for place in (Path(path), *Path(path).parents)]


def _hash_of(path: str, recorded: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the output that is, or holds, a path, with its hash."""
    return next(((place, recorded[place]) for place in _places(path) if place in recorded), None)


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
