"""The runs that the store does not know whole yet: each keeps a journal on disk until all of it is delivered."""

import fcntl
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from deepsky.errors import UnreachableError
from deepsky.tracking.artifacts import place_files
from deepsky.tracking.delivery import Delivery, Entry
from deepsky.tracking.lineage import workspace_root
from deepsky.tracking.store import impatient, project_root

SPOOL = "mlflow-spool"
_LINES, _FILES = "journal.jsonl", "files"


class Journal:
    """The entries of one run of this process, a line each; the process holds its lock as long as it lives.

    Attributes:
        folder: of the journal, and of the files that are to become artifacts.
        name: what no other run has.
    """

    def __init__(self) -> None:
        """Begin one in the project's spool."""
        self.name = uuid.uuid4().hex
        self.folder = spool() / self.name
        made = spool() / f".{self.name}"  # nobody looks into it before its lock is held
        spool().mkdir(parents=True, exist_ok=True)
        with _one_begins():
            made.mkdir()
            self._lines: TextIO = (made / _LINES).open("a")
            fcntl.flock(self._lines, fcntl.LOCK_EX)
            made.rename(self.folder)
        self._n_kept = 0

    def append(self, entry: Entry) -> Entry:
        """Write an entry down, with the files that it speaks of; return it as it stands there.

        Trained networks are linked, so that a stage that replaces them takes nothing away.
        """
        if "path" in entry:
            kept = f"{_FILES}/{self._n_kept}"
            place_files(self.folder / kept, Path(entry["path"]))
            name = Path(entry["path"]).name
            entry = entry | {"path": f"{kept}/{name}" if entry["kind"] == "model" else kept}
            self._n_kept += 1
        self._lines.write(json.dumps(entry) + "\n")
        self._lines.flush()
        return entry

    def close(self, *, is_delivered: bool) -> None:
        """Let go of the journal, which goes away where all of it is delivered."""
        if is_delivered:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lines.close()


def spool() -> Path:
    """Return the folder of the journals: in the project, or here where there is none."""
    root = project_root() if workspace_root(Path.cwd()) else Path.cwd()
    return root / SPOOL


def deliver_waiting() -> int:
    """Deliver the journals of processes that have ended; a run without an end was killed.

    What the store refuses is told on stderr and waits on.

    Returns:
        How many runs are complete now.

    Raises:
        UnreachableError: the store does not answer now.
    """
    n_delivered = 0
    _remove_half_begun()
    with impatient():
        for path in _journals():
            with _locked(path) as is_free:
                if not is_free:
                    continue
                try:
                    _deliver(path.parent)
                    n_delivered += 1
                except UnreachableError:
                    raise
                except Exception as error:  # whatever ails an old journal must not cost a new training
                    print(f"WARNING: {path.parent} waits on: {error}", file=sys.stderr)
    return n_delivered


@dataclass(frozen=True)
class Waiting:
    """A run that waits in the spool.

    Attributes:
        name: of the run.
        experiment: of MLflow.
        status: MLflow's word for how it ended; RUNNING where it has not, or was killed.
    """

    name: str
    experiment: str
    status: str


def waiting() -> list[Waiting]:
    """Return the runs of the spool, also those of processes that work, the oldest first."""
    found = []
    for path in _journals():
        entries = list(_read(path))
        if entries:
            found.append(Waiting(entries[0]["name"], entries[0]["experiment"], entries[-1].get("status", "RUNNING")))
    return found


def _journals() -> list[Path]:
    found = []
    for path in spool().glob(f"[!.]*/{_LINES}"):
        with suppress(FileNotFoundError):  # its run is whole now
            found.append((path.stat().st_ctime, path))
    return [path for _, path in sorted(found)]


def _remove_half_begun() -> None:
    """Remove what a process left that was killed while it began a journal; nothing of its run was told yet."""
    if spool().is_dir():
        with _one_begins():
            for left in spool().glob(f".{'[0-9a-f]' * 32}/"):
                shutil.rmtree(left, ignore_errors=True)  # another person's may stay


@contextmanager
def _one_begins() -> Iterator[None]:
    """Hold the lock of the spool, under which journals are begun."""
    handle = os.open(spool(), os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _deliver(folder: Path) -> None:
    entries, last_ms = list(_read(folder / _LINES)), int((folder / _LINES).stat().st_mtime * 1000)
    if entries and entries[-1]["kind"] != "end":
        entries.append({"kind": "end", "status": "KILLED", "end_ms": last_ms})
    Delivery(base=folder).write(*entries)
    shutil.rmtree(folder)


def _read(path: Path) -> Iterator[Any]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:  # its run is whole now
        return
    for line in lines:
        with suppress(ValueError):  # a process was killed, or a disk full, while it was written
            yield json.loads(line)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold a journal's lock; False where another process does, or has just delivered it."""
    try:
        handle = path.open("a")
    except FileNotFoundError:
        yield False
        return
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield path.exists()
