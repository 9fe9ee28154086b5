"""Which code ran: git's commit, and how the files differed from it."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from deepsky.tracking.secrets import masked

# DVC and the stages rewrite these while the pipeline runs; what they say is in the hashes of the data.
_WRITTEN_BY_STAGES = (":(exclude)dvc.lock", ":(exclude)evaluation")
_DIFF = ("diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/")
_LARGEST_BYTES = 1_000_000  # of a new file: larger ones are data


@dataclass(frozen=True)
class Revision:
    """The code of a run, as git knows it.

    Attributes:
        commit: HEAD; empty where none can be told.
        why: no commit can be told, in words; empty where it can.
        patch: what turns the commit into the files that ran, with passwords masked; empty where nothing differed.
    """

    commit: str = ""
    why: str = ""
    patch: str = ""

    @property
    def is_dirty(self) -> bool:
        """Tell whether the files differed from the commit."""
        return bool(self.patch)


def current_revision(folder: Path) -> Revision:
    """Return the revision of the repository that a folder lies in, as far as the folder goes."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
    except OSError:
        return Revision(why="there is no git on this machine")
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or ["git fails"])[0]
        return Revision(why="nothing was committed yet" if "ambiguous argument" in said else said)
    try:
        return Revision(commit.strip(), patch=masked(_patch(folder)))
    except subprocess.CalledProcessError as error:
        return Revision(why=f"git fails: {error.stderr.strip()[:200]}")


def _patch(folder: Path) -> str:
    """Return the difference from HEAD; new files are told by their content, data by name and size only."""
    places = ("--", ".", *_WRITTEN_BY_STAGES)
    parts = [_git(folder, *_DIFF, "--relative", "HEAD", *places)]
    new = _git(folder, "--no-optional-locks", "ls-files", "--others", "--exclude-standard", "-z", *places)
    for name in filter(None, new.split("\0")):
        size = (folder / name).lstat().st_size
        if size > _LARGEST_BYTES:
            parts.append(f"# new, not shown: {name}, {size} bytes\n")
        else:
            parts.append(_git(folder, *_DIFF, "--no-index", "/dev/null", name, differs=True))
    return "".join(parts)


def _git(folder: Path, *arguments: str, differs: bool = False) -> str:
    """Run git; ``differs`` where it ends with 1 to say that there is a difference."""
    command = ["git", "-c", "core.quotePath=false", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="surrogateescape", check=False)
    if done.returncode > int(differs):
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout
