"""What networks answer, a line each: printed, or appended to a CSV that can be gone on with."""

import csv
import fcntl
import io
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import click
import numpy as np
import numpy.typing as npt

from deepsky.errors import DataError
from deepsky.training.saved import ModelCard

Append = Callable[[Sequence[str], npt.NDArray[np.float32]], None]  # names, and the answers about them, (n, n_outputs)
# File names need not be UTF-8.
_ENCODING: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}
_BLOCK = 65536  # bytes that are looked through at a time
_OTHER = "delete it, or give another file as --csv"


def columns_of(card: ModelCard, first: str) -> list[str]:
    """Return the header: ``first`` (path or id), class, confidence, p_CLASS...; of fractions these alone."""
    if card.target == "fractions":
        return [first, *card.outputs]
    return [first, "class", "confidence", *(f"p_{name}" for name in card.outputs)]


@contextmanager
def printed(card: ModelCard, first: str, names: Collection[str]) -> Iterator[Append]:
    """Print a table; ``names`` are all that will come, so that it can be aligned."""
    columns = columns_of(card, first)
    widths = [max(map(len, [*names, first])), *(max(8, len(column)) for column in columns[1:])]
    if card.target == "class":
        widths[1] = max(map(len, [*card.classes, "class"]))

    def show(cells: Sequence[str]) -> None:
        left = f"{cells[0]:{widths[0]}}"
        click.echo("  ".join([left, *(f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True))]))

    header = [columns]

    def append(some: Sequence[str], answers: npt.NDArray[np.float32]) -> None:
        for row in [*header, *_rows(some, answers, card)]:
            show(row)
        header.clear()

    yield append


@contextmanager
def appended(path: Path, card: ModelCard, first: str) -> Iterator[Append]:
    """Append to a CSV, which is made at the first answer; whatever ends the process, whole lines stay.

    Raises:
        DataError: another process appends to it.
    """
    file: TextIO | None = None

    def append(names: Sequence[str], answers: npt.NDArray[np.float32]) -> None:
        nonlocal file
        if file is None:
            file = _opened(path, _line(columns_of(card, first)))
        file.write("".join(map(_line, _rows(names, answers, card))))  # in one go: a kill cuts one line at most
        file.flush()

    try:
        yield append
    finally:
        if file is not None:
            file.close()


def answered(path: Path, card: ModelCard, first: str) -> set[str]:
    """Return what a CSV has answers about, after dropping a last line that was cut by the end of its process.

    Raises:
        DataError: it is no CSV of such answers.
    """
    if not path.exists():
        return set()
    if not path.is_file():
        raise DataError(path, "is no file", _OTHER)
    _drop_cut_line(path, _line(columns_of(card, first)).encode())
    return {row[0] for row in _read(path, columns_of(card, first))}


def answers_about(path: Path, card: ModelCard, first: str, names: Collection[str]) -> npt.NDArray[np.float32]:
    """Return the answers that a CSV has about some names, in their order, (n, n_outputs)."""
    n_outputs, wanted = len(card.outputs), set(names)
    found = {row[0]: row[-n_outputs:] for row in _read(path, columns_of(card, first)) if row[0] in wanted}
    return np.array([found[name] for name in names], np.float32)


def _rows(names: Sequence[str], answers: npt.NDArray[np.float32], card: ModelCard) -> Iterator[list[str]]:
    for name, answer in zip(names, answers.tolist(), strict=True):
        numbers = [f"{value:.6f}" for value in answer]
        best = answer.index(max(answer))
        yield [name, card.classes[best], numbers[best], *numbers] if card.target == "class" else [name, *numbers]


def _read(path: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    with path.open(newline="", **_ENCODING) as file:
        reader = csv.reader(file)
        header = next(reader, list(columns))
        if header != list(columns):
            problem = f"has the columns {', '.join(header[:4])}..., not {', '.join(columns[:4])}..."
            raise DataError(path, problem, _OTHER)
        for row in reader:
            if len(row) != len(columns):
                raise DataError(path, f"line {reader.line_num} has {len(row)} cells, not {len(columns)}", _OTHER)
            yield row


def _drop_cut_line(path: Path, header: bytes) -> None:
    """Cut a file of ours behind its last whole line; any other file stays as it is."""
    with path.open("rb+") as file:
        start = file.read(len(header))
        if start == header[: len(start)]:
            place = file.seek(0, os.SEEK_END)
            while place and not (line_ends := _line_ends(file, max(0, place - _BLOCK), place)):
                place = max(0, place - _BLOCK)
            file.truncate(line_ends if place else 0)


def _line_ends(file: BinaryIO, start: int, end: int) -> int:
    """Return where the last line ends between two places; 0: none does."""
    file.seek(start)
    newline = file.read(end - start).rfind(b"\n")
    return start + newline + 1 if newline >= 0 else 0


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _opened(path: Path, header: str) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", newline="", **_ENCODING)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise DataError(path, "is being written by another process", "wait for it, or give another file") from error
    if not file.tell():
        file.write(header)
    return file
