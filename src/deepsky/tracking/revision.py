"""Which code ran: git's commit, and how the files differed from it."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from deepsky.tracking.secrets import masked

# DVC and the stages rewrite these while the pipeline runs; what they say is in the hashes of the data.
_WRITTEN_BY_STAGES = (":(exclude)dvc.lock", ":(exclude)evaluation")
# The commit is known, so a patch needs no context; and lines that nobody changed stay out of it.
_DIFF = (
    "-c", "core.quotePath=false", "diff", "--binary", "--unified=0", "--no-color", "--no-ext-diff", "--no-textconv",
    "--src-prefix=a/", "--dst-prefix=b/",
)  # fmt: skip
# New files that a run may follow from. Any other may be data, or hold a person's secrets: it is named only.
_CODE = ("src", "dvc.yaml", "params.yaml")
_LARGEST_BYTES, _MOST_BYTES, _MOST_NAMED = 1_000_000, 5_000_000, 50  # of a new file; of all; files that are named
NOT_SHOWN = "# not shown: "


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
        commit = _git(folder, "rev-parse", "HEAD").decode()
    except OSError:
        return Revision(why="there is no git on this machine")
    except subprocess.CalledProcessError as error:
        said = (error.stderr.decode(errors="replace").strip().splitlines() or ["git fails"])[0]
        return Revision(why="nothing was committed yet" if "ambiguous argument" in said else said)
    try:
        return Revision(commit.strip(), patch=_patch(folder))
    except (subprocess.CalledProcessError, OSError) as error:
        return Revision(commit.strip(), patch=f"{NOT_SHOWN}git cannot tell what differs ({error})\n")


def _patch(folder: Path) -> str:
    """Return the difference from HEAD, in which new files that are no code are named only."""
    places = ("--", ".", *_WRITTEN_BY_STAGES)
    content = _git(folder, *_DIFF, "--relative", "HEAD", *places)
    listed = _git(folder, "ls-files", "--others", "--exclude-standard", "-z", *places).decode(errors="surrogateescape")
    others = []
    for name in filter(None, listed.split("\0")):
        is_code = name.partition("/")[0] in _CODE and (folder / name).lstat().st_size <= _LARGEST_BYTES
        if is_code and len(content) <= _MOST_BYTES:
            content += _git(folder, *_DIFF, "--no-index", "/dev/null", name, differs=True)
        else:
            others.append(name.encode(errors="replace").decode())
    if len(content) > _MOST_BYTES:
        content, others = b"", [f"a difference of {len(content):,} bytes", *others]
    more = [f"{len(others) - _MOST_NAMED} more"] if len(others) > _MOST_NAMED else []
    notes = [f"{NOT_SHOWN}{name}\n" for name in others[:_MOST_NAMED] + more]
    try:
        return "".join(notes) + masked(content.decode())
    except UnicodeDecodeError:  # a file in another encoding: what can be read
        return "".join([*notes, f"{NOT_SHOWN}letters that are not UTF-8\n", masked(content.decode(errors="replace"))])


def _git(folder: Path, *arguments: str, differs: bool = False) -> bytes:
    """Run git; ``differs`` where it ends with 1 to say that there is a difference."""
    command = ["git", "--no-optional-locks", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    if done.returncode > int(differs):
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout
