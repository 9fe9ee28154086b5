"""What stages print: a log file each, however much it is."""

from pathlib import Path
from typing import BinaryIO

LOGS = Path("logs")
_END_BYTES = 100_000


def log_of(stage: str) -> Path:
    """Return the log file of a stage, from the project's root."""
    return LOGS / f"{stage.replace('/', '_').replace(':', '_')}.log"


def open_log(stage: str, *, goes_on: bool) -> BinaryIO:
    """Open the log of a stage, without a buffer: a full disk is told at once.

    Args:
        stage: its DVC address.
        goes_on: whether a command of the same stage wrote there before.
    """
    LOGS.mkdir(exist_ok=True)
    return log_of(stage).open("ab" if goes_on else "wb", buffering=0)


def said(stage: str) -> list[str]:
    """Return the lines that a stage has printed: the first and the last ones, where they are very many."""
    try:
        with log_of(stage).open("rb") as file:
            return ends_of(file).splitlines()
    except OSError:  # it never began
        return []


def ends_of(file: BinaryIO) -> str:
    """Return the text of a file; of a very long one only its beginning and its end."""
    size = file.seek(0, 2)
    file.seek(0)
    if size <= 2 * _END_BYTES:
        return file.read(size).decode(errors="replace")
    head = file.read(_END_BYTES).decode(errors="replace")
    file.seek(size - _END_BYTES)
    tail = file.read().decode(errors="replace")
    return f"{head}\n... ({size - 2 * _END_BYTES:,} bytes are left out)\n{tail}"
