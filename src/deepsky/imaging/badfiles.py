"""What to do with a file that cannot be used: stop at it, or leave it out and say so.

A file that the archive does not have is no bad file: stage fetch lists it in FOLDER/missing.csv, and its objects are
left out whatever ``on_bad_file`` says.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import click
import numpy as np

from deepsky.catalogue.tables import read_table
from deepsky.errors import ConfigError, DataError

OnBadFile = Literal["stop", "skip"]


@dataclass
class BadFiles:
    """The bad files of one stage.

    Attributes:
        policy: ``stop`` raises the first error, ``skip`` collects them.
        skipped: (file, reason) of everything left out so far.
    """

    policy: OnBadFile
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.policy not in get_args(OnBadFile):
            raise ConfigError("params.yaml: on_bad_file", f"{self.policy!r} is unknown", "choose stop or skip")

    def meet(self, error: DataError) -> None:
        """Raise ``error`` under ``stop``; note it under ``skip``."""
        if self.policy == "stop":
            raise error
        self.skipped.append((error.where, error.problem))

    def leave_out(self, missing: Sequence[tuple[str, str]], what: str) -> None:
        """Note objects whose file the archive does not have, and count them on stderr.

        Args:
            missing: (file, reason), one per object.
            what: names the dataset.
        """
        if missing:
            self.skipped += missing
            click.echo(f"{what}: {len(missing)} objects are left out, the archive lacks their files", err=True)

    def refuse_if_nothing_left(self, n_left: int, what: object) -> None:
        """Raise when skipping has left no object.

        Raises:
            DataError: names the first of the skipped files.
        """
        if not n_left:
            first = f" (the first: {self.skipped[0][0]}: {self.skipped[0][1]})" if self.skipped else ""
            raise DataError(what, f"every object was skipped{first}", "mend the files")


def read_missing(folder: Path) -> dict[Path, str]:
    """Read which files of a folder the archive does not have.

    Args:
        folder: a folder of raw files, with or without the missing.csv of stage fetch (path, url, reason; the path
            begins with the folder's own name).

    Returns:
        The reason by path, ``folder`` included; files that are there all the same are not listed.

    Raises:
        DataError: the list is broken.
    """
    path, remedy = folder / "missing.csv", "run deepsky fetch again, it writes this list"
    if not path.exists():
        return {}
    try:
        table = read_table(path, required=("path", "reason"))
    except DataError as error:
        raise DataError(path, error.problem, remedy) from error
    missing: dict[Path, str] = {}
    for listed, reason in zip(table["path"], table["reason"], strict=True):
        first, _, inner = listed.partition("/")
        if not first or not inner:
            raise DataError(path, f"path {listed!r} names no file of a folder", remedy)
        if not (folder / inner).exists():
            missing[folder / inner] = reason
    return missing


def reserve_space(path: Path) -> None:
    """Claim the disk space of a new array file before it is filled.

    A memory map is a file with a hole; when the disk fills up later, writing to it ends the process with a bus error.

    Raises:
        OSError: the disk is full.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def keep_images(path: Path, kept: Sequence[int]) -> None:
    """Shorten an array file to the images ``kept``, in that order, when some were skipped.

    Args:
        path: ``.npy`` of (n, height, width, channel).
        kept: indices of images, ascending.
    """
    whole = np.load(path, mmap_mode="r", allow_pickle=False)
    if len(kept) == len(whole):
        return
    beside, shape = path.with_name("kept.npy"), (len(kept), *whole.shape[1:])
    shorter = np.lib.format.open_memmap(beside, mode="w+", dtype=whole.dtype, shape=shape)
    reserve_space(beside)
    for target, source in enumerate(kept):
        shorter[target] = whole[source]
    shorter.flush()
    beside.replace(path)
