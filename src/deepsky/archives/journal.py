"""What is known about the files of a fetch, written down so that ``kill -9`` at any moment loses nothing.

manifest.part.csv gets one line per event, each with one write and before what it tells of is done: a file begun (with
the version whose bytes follow), a file complete (before it gets its name). At the end manifest.csv holds every file,
sorted. Nothing is synced to the disk: after a loss of power the sizes tell.
"""

import csv
import errno
import fcntl
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from typing import Self

from deepsky.archives.addresses import FOLDERS
from deepsky.archives.answers import Left, Version
from deepsky.archives.manifest import (
    COLUMNS,
    FAILURES,
    LABELS,
    MANIFEST,
    MISSING,
    Absent,
    Receipt,
    csv_bytes,
    read_absent,
    read_manifest,
    receipt_of,
    write_absent,
    write_manifest,
)
from deepsky.archives.wanted import Wanted
from deepsky.errors import DataError
from deepsky.files import whole_file

UNFINISHED, PARTS = "manifest.part.csv", ".parts"
SIMULATED = ".source.json"  # in a folder that the simulated survey has drawn: the parameters that it was drawn with
ASIDE = ".aside"
# What ``whole_file`` names its temporary files.
_TEMPORARY = re.compile(r"\..*\.[a-z0-9_]{8}(\.[^.]*)?")
_EVENT_COLUMNS = (*COLUMNS, "event")


class Journal:
    """The state of a fetch into ``out``. Threads may share it; after ``close`` nothing changes any more.

    Attributes:
        receipts: complete files by path.
        missing: what the archive does not have, by path.
    """

    def __init__(self, out: Path, *, trust_missing: bool = False) -> None:
        """Read what earlier runs wrote, cut off a torn last line, and go on after it.

        Args:
            out: the folder of raw files.
            trust_missing: whether what a finished fetch found missing is taken to be so still.

        Raises:
            DataError: a file of ours is broken.
        """
        self._out, self._path = out, out / UNFINISHED
        self.receipts = read_manifest(out / MANIFEST)
        listed = [row for name in FOLDERS if trust_missing for row in read_absent(out / name / MISSING)]
        self.missing = {row.path: row for row in listed}
        self._begun: dict[str, tuple[str, Version]] = {}
        self._lock, self._closed = threading.Lock(), False
        self._file: int | None = None
        self._replay()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop: a thread that is still at work raises Left at its next event."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
            self._file, self._closed = None, True

    def part(self, path: str) -> Path:
        """Where a file lies until it is complete."""
        return self._out / PARTS / path

    def known(self, wanted: Wanted) -> Version | None:
        """Give the version of what lies at ``part``; None: nothing useful does."""
        url, version = self._begun.get(wanted.path, ("", None))
        return version if url == wanted.url else None

    def begin(self, wanted: Wanted, version: Version) -> None:
        """Note whose bytes the empty part will get."""
        size = "" if version.bytes is None else version.bytes
        with self._lock:
            self._note((wanted.path, wanted.url, size, "", "", version.etag, version.last_modified, "", "begun"))
            self._begun[wanted.path] = (wanted.url, version)
            self.receipts.pop(wanted.path, None)

    def arrived(self, receipt: Receipt, held: Path) -> None:
        """Note a complete and checked file, then give it its name; ``held`` is where it lies."""
        with self._lock:
            self._note((*astuple(receipt), "complete"))
            self.receipts[receipt.path] = receipt
            self._begun.pop(receipt.path, None)
            held.replace(self._out / receipt.path)

    def lacks(self, absent: Absent) -> None:
        """Note a file that the archive does not have; not for the next run, which may ask at another address."""
        with self._lock:
            self.missing[absent.path] = absent
            self._begun.pop(absent.path, None)

    def finish(self, wanted: Iterable[Wanted], absent: Sequence[Absent], failures: Sequence[Absent]) -> list[Absent]:
        """Write manifest.csv, missing.csv and failures.csv; keep of the journal what resumes failed files.

        Returns:
            All missing files, known before or found out.
        """
        urls = {each.path: each.url for each in wanted}
        write_manifest([row for row in self.receipts.values() if row.url == urls.get(row.path)], self._out)
        missing = [row for row in self.missing.values() if row.url == urls.get(row.path)]
        missing = sorted({row.path: row for row in (*missing, *absent)}.values(), key=lambda row: row.path)
        for name in FOLDERS:
            write_absent(self._out / name / MISSING, [row for row in missing if row.path.startswith(f"{name}/")])
        write_absent(self._out / FAILURES, failures)
        self.close()
        rest = [
            (each.path, each.url, "" if version.bytes is None else version.bytes, "", "",
             version.etag, version.last_modified, "", "begun")
            for each in failures
            for url, version in [self._begun.get(each.path, ("", Version()))]
            if url == each.url
        ]  # fmt: skip
        if rest:
            with whole_file(self._path) as temporary:
                temporary.write_bytes(csv_bytes([_EVENT_COLUMNS, *rest]))
        else:
            self._path.unlink(missing_ok=True)
            shutil.rmtree(self._out / PARTS, ignore_errors=True)
        return missing

    def _note(self, row: tuple[object, ...]) -> None:
        if self._closed:
            raise Left
        line = csv_bytes([row])
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            line = line if os.fstat(self._file).st_size else csv_bytes([_EVENT_COLUMNS, row])
        if (n_bytes := os.write(self._file, line)) < len(line):
            # A full disk took a piece of the line: another thread must not write on after it.
            os.ftruncate(self._file, os.fstat(self._file).st_size - n_bytes)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _replay(self) -> None:
        """Bring events up to date; of a file's events the last counts."""
        if not self._path.exists():
            return
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._path, whole)
        for line in content[:whole].decode("utf-8", "replace").splitlines():
            # A line that a crash of the machine left as garbage only costs that file's transfer.
            try:
                row = next(csv.reader([line]), [])
            except csv.Error:
                continue
            if len(row) != len(_EVENT_COLUMNS) or not re.fullmatch(r"[0-9]{0,18}", row[2]):
                continue
            *known, event = row
            path, url, size, _, _, etag, last_modified, _ = known
            for state in (self._begun, self.receipts):
                state.pop(path, None)
            if event == "begun":
                self._begun[path] = (url, Version(etag, last_modified, int(size) if size else None))
            elif event == "complete":
                self.receipts[path] = receipt_of(known)


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Let one process at a time work in ``out``.

    Raises:
        DataError: another one does, or ``out`` cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / ".lock").open("w")
    except OSError as error:
        remedy = "choose a folder you may write to"
        raise DataError(error.filename or out, f"cannot be written ({error.strerror})", remedy) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(out, "another fetch is at work here", "wait until it ends, or stop it") from error
        yield


def set_aside(out: Path) -> None:
    """Move all but the simulated survey's own files below ``out`` aside, to make room for those.

    Raises:
        OSError: a file cannot be moved.
        DataError: the manifest is broken.
    """
    others = [path for path, _ in _files(out) if not (out / path.partition("/")[0] / SIMULATED).exists()]
    if others:
        with Journal(out) as journal:
            _put(out, others, journal)


def sort_out(out: Path, wanted: Iterable[Wanted], journal: Journal) -> list[Wanted]:
    """Make the folders hold only complete, wanted files: others move aside, wanted ones back.

    Args:
        out: the folder of raw files.
        wanted: with distinct paths.
        journal: what is known of the files.

    Returns:
        The wanted files that are not there, without those that the archive does not have.
    """
    sizes, by_path = dict(_files(out)), {each.path: each for each in wanted}
    there = {path for path, each in by_path.items() if _counts(each.url, sizes.get(path), journal.receipts.get(path))}
    _put(out, [path for path in sizes if path not in there], journal)
    absent = [each for path, each in by_path.items() if path not in there]
    unnamed = [each for each in absent if not _complete(out, each, journal)]
    todo = _bring_back(out, unnamed, journal)
    for each in todo:
        journal.receipts.pop(each.path, None)  # the manifest must not tell of a file that has gone
    return [each for each in todo if each.path not in journal.missing or journal.missing[each.path].url != each.url]


def _files(out: Path) -> Iterator[tuple[str, int]]:
    """List the files of the four folders, with sizes; not our own tables and the torsos of killed runs' tables."""
    folders = [name for name in FOLDERS if (out / name).is_dir()]
    while folders:
        name = folders.pop()
        with os.scandir(out / name) as entries:
            for entry in entries:
                path = f"{name}/{entry.name}"
                if entry.is_dir():  # or a link to one; DVC may have made links of files
                    folders.append(path)
                elif entry.is_file() and entry.name not in (MISSING, LABELS) and not _TEMPORARY.fullmatch(entry.name):
                    yield path, entry.stat().st_size


def _counts(url: str, size: int | None, receipt: Receipt | None) -> bool:
    return receipt is not None and receipt.url == url and receipt.bytes == size


def _complete(out: Path, wanted: Wanted, journal: Journal) -> bool:
    """Name a file that was killed between its last event and its name."""
    receipt, part = journal.receipts.get(wanted.path), journal.part(wanted.path)
    size = part.stat().st_size if receipt and part.exists() else None
    if receipt is None or not _counts(wanted.url, size, receipt):
        return False
    (out / wanted.path).parent.mkdir(parents=True, exist_ok=True)
    journal.arrived(receipt, part)
    return True


def _put(out: Path, paths: Sequence[str], journal: Journal) -> None:
    """Move files aside; the rows of those that are whole are there before they are."""
    if not paths:
        return
    rows = {row.url: row for row in read_manifest(out / ASIDE / MANIFEST).values()}
    taken, moves = {row.path for row in rows.values()}, []
    for path in paths:
        receipt, name = journal.receipts.get(path), path
        if receipt and receipt.bytes == (out / path).stat().st_size:
            known = rows.get(receipt.url)
            name = known.path if known else _free(out, path, taken)
            rows[receipt.url] = replace(receipt, path=name)
        else:
            name = _free(out, path, taken)
        taken.add(name)
        moves.append((path, name))
    write_manifest(rows.values(), out / ASIDE)
    for path, name in moves:
        (out / ASIDE / name).parent.mkdir(parents=True, exist_ok=True)
        (out / path).replace(out / ASIDE / name)


def _free(out: Path, path: str, taken: set[str]) -> str:
    """Find a name aside: the same, unless another version of the file lies there."""
    name, number = path, 1
    while name in taken or (out / ASIDE / name).exists():
        name, number = f"{path}.{number}", number + 1
    return name


def _bring_back(out: Path, wanted: Sequence[Wanted], journal: Journal) -> list[Wanted]:
    """Bring back what lies aside with its URL; return what does not."""
    rows = {row.url: row for row in read_manifest(out / ASIDE / MANIFEST).values()}
    todo, n_rows = [], len(rows)
    for each in wanted:
        row = rows.get(each.url)
        held = out / ASIDE / row.path if row else None
        if row and held and held.exists() and held.stat().st_size == row.bytes:
            (out / each.path).parent.mkdir(parents=True, exist_ok=True)
            journal.arrived(replace(row, path=each.path), held)
            del rows[each.url]
        else:
            todo.append(each)
    if len(rows) < n_rows:
        write_manifest(rows.values(), out / ASIDE)
    return todo
