"""What a run says of itself as tags and parameters."""

import getpass
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from deepsky.tracking.lineage import Lineage

HIDDEN = "mlflow.deepsky."  # of tags that MLflow's pages do not show, as of all that begin with mlflow.
SIMULATED = "deepsky.simulated"  # the tag that tells whether a run learned from pictures that were drawn
_START_TOLERANCE_S = 5.0  # the kernel's clock and ours drift apart
_SHOWN_AS_PARAMETERS = ("run", "dataset", "network")


def named_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags under their whole names: ``deepsky.NAME``, or a hidden one for what the parameters show too."""
    prefixes = {name: "" if "." in name else HIDDEN if name in _SHOWN_AS_PARAMETERS else "deepsky." for name in tags}
    return {prefixes[name] + name: value for name, value in tags.items()}


def lineage_tags(lineage: Lineage) -> dict[str, str]:
    """Return a run's origin as tags."""
    tags = {f"{HIDDEN}data.{path}": digest for path, digest in lineage.data.items()}
    tags |= {"mlflow.source.type": "LOCAL", "mlflow.source.name": lineage.stage or Path(sys.argv[0]).name}
    if lineage.stage:
        tags[f"{HIDDEN}stage"] = lineage.stage
    if lineage.made_by:
        tags[SIMULATED] = str(lineage.is_simulated).lower()
    if (code := lineage.revision) is not None:
        tags["deepsky.code"] = f"{code.commit[:10]}{' + patch' if code.is_dirty else ''}" if code.commit else code.why
        if code.commit:
            tags["mlflow.source.git.commit"] = code.commit
            tags[f"{HIDDEN}git_dirty"] = str(code.is_dirty).lower()
    return tags


def process_tags() -> dict[str, str]:
    """Return what tells this process from every other of this machine, also from a later one with the same id."""
    return {
        "mlflow.user": _user(),
        f"{HIDDEN}host": socket.gethostname(),
        f"{HIDDEN}boot": _read_word(Path("/proc/sys/kernel/random/boot_id")),
        f"{HIDDEN}container": _pid_namespace(),
        f"{HIDDEN}pid": str(os.getpid()),
        f"{HIDDEN}process_start": f"{psutil.Process().create_time():.2f}",
    }


def process_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Return those of a run's tags that tell its process, see ``process_tags``; not its user."""
    return {name: tags[name] for name in process_tags() if name in tags and name.startswith(HIDDEN)}


def process_start_s(tags: Mapping[str, str]) -> float:
    """Return when the process of a run's tags was started, in seconds since 1970.

    Raises:
        KeyError, ValueError: they do not say.
    """
    return float(tags[f"{HIDDEN}process_start"])


def is_alive(tags: Mapping[str, str]) -> bool | None:
    """Tell whether the process lives that opened a run; None where that cannot be told from here.

    A machine that was started anew has none of its old processes. Those of another machine, or of another container of
    this one, cannot be seen.

    Args:
        tags: of the run.
    """
    own = process_tags()
    same = {name: tags.get(f"{HIDDEN}{name}") == own[f"{HIDDEN}{name}"] for name in ("host", "boot", "container")}
    knows_boot = bool(tags.get(f"{HIDDEN}boot"))
    if same["host"] and knows_boot and not same["boot"]:
        return False
    if not (same["boot"] and same["container"] if knows_boot else same["host"]):
        return None
    try:
        process = psutil.Process(int(tags[f"{HIDDEN}pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - process_start_s(tags)) < _START_TOLERANCE_S
    except psutil.NoSuchProcess:
        return False
    except (psutil.AccessDenied, KeyError, ValueError):
        return None


def _read_word(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        return ""


def _pid_namespace() -> str:
    """Return what tells the processes of one container from those of another, whose numbers may be the same."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user id has no name
        return str(os.getuid())


def flatten(params: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Return ``outer.inner`` names with the values as text."""
    flat: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(list(value) if isinstance(value, tuple) else value)
    return flat
