"""Outputs appear whole or not at all: write beside the target, then rename. Inputs are the ones that were meant."""

import fcntl
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deepsky.errors import DataError

# Longer than a network file system lets a machine believe what it knew of a folder (NFS: a minute).
_PATIENCE_S, _POLL_S = 90.0, 0.5


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it there when the block ends well, delete it when not.

    Raises:
        OSError: names ``path``, whatever the temporary file was called.
    """
    with _errors_naming(path):
        _make_room(path, f".{path.stem}.", path.suffix)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        temporary = Path(name)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # alive; gone with the process, however it ends
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside ``path``; it replaces ``path`` when the block ends well.

    Raises:
        OSError: names ``path``, whatever the temporary folder was called.
    """
    with _errors_naming(path):
        _make_room(path, f".{path.name}.", "")
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        handle = os.open(temporary, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            temporary.chmod(0o777 & ~_umask())
            yield temporary
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(handle)


def leave_empty(*outs: Path) -> None:
    """Make the outputs of a stage that nothing needs: empty folders, and empty files where a name has a suffix.

    What is there already stays.
    """
    for out in outs:
        (out.parent if out.suffix else out).mkdir(parents=True, exist_ok=True)
        if out.suffix:
            out.touch()


@dataclass(frozen=True)
class Version:
    """One version of a file, so that another machine does not take an older one for it.

    Attributes:
        path: of the file.
        n_bytes: its size; -1 where there is no such file.
        mtime_ns: when it was written.
    """

    path: Path
    n_bytes: int
    mtime_ns: int

    @staticmethod
    def of(path: Path) -> "Version":
        """Return the version that is there now."""
        try:
            stat = path.stat()
        except OSError:
            return Version(path, -1, 0)
        return Version(path, stat.st_size, stat.st_mtime_ns)

    def found(self) -> Path:
        """Return the path once this machine sees the same version there.

        Raises:
            DataError: after a while it still sees another one, or none.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while Version.of(self.path) != self:
            if time.monotonic() > deadline:
                problem = f"is another file, or none, on the worker {socket.gethostname()}"
                raise DataError(self.path.absolute(), problem, "start all workers in the shared folder of the project")
            time.sleep(_POLL_S)
        return self.path


@contextmanager
def _errors_naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        about_another = error.filename is not None and f"/.{path.stem}." not in f"/{error.filename}"
        if about_another or error.errno is None:  # a library's own kind (requests') says what it means
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _make_room(path: Path, prefix: str, suffix: str) -> None:
    """Create the folder, and delete what processes that were killed left there: nobody holds its lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ours = re.compile(rf"{re.escape(prefix)}[a-z0-9_]{{8}}{re.escape(suffix)}")
    for leftover in [entry for entry in path.parent.iterdir() if ours.fullmatch(entry.name)]:
        handle = os.open(leftover, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
