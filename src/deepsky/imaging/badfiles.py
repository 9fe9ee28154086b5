"""What to do with a file that cannot be used: stop at it, or leave it out and say so."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

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

    def refuse_if_nothing_left(self, n_left: int, what: object) -> None:
        """Raise when skipping has left no object.

        Raises:
            DataError: names the first of the skipped files.
        """
        if not n_left:
            first = f" (the first: {self.skipped[0][0]}: {self.skipped[0][1]})" if self.skipped else ""
            raise DataError(what, f"every object was skipped{first}", "mend the files; on_bad_file: stop shows each")


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
