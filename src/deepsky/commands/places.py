"""Files and folders as a person names them: paths, patterns, and lists of these."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from deepsky.errors import DataError


def named_places(names: Sequence[str], listed: Path | None = None) -> list[Path]:
    """Return the files and folders that are named, each once, in the order of the names.

    Args:
        names: paths; patterns such as ``night_*/*.jpg``, where no file is called so (``**`` goes through folders);
            ``@FILE``: what the lines of this file name.
        listed: another such file.

    Raises:
        DataError: a path that is not there, a pattern that fits nothing, or a list that cannot be read. What a list
            names need not be there: that shows when it is read.
    """
    found: list[Path] = []
    for name in names:
        found += _lines(Path(name[1:])) if name.startswith("@") and not os.path.lexists(name) else _matching(name)
    if listed is not None:
        found += _lines(listed)
    return list(dict.fromkeys(found))


def _lines(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise DataError(path, f"cannot be read as a list ({reason})", "give a text file with a path a line") from error
    if not any(map(str.strip, lines)):
        raise DataError(path, "is an empty list", "write a path a line into it")
    return [Path(line.strip()) for line in lines if line.strip()]


def _matching(name: str) -> list[Path]:
    if os.path.lexists(name):
        return [Path(name)]
    if not glob.has_magic(name):
        raise DataError(name, "does not exist", "name a file, a folder, or a pattern in quotes")
    found = sorted(glob.iglob(name, recursive=True))  # noqa: PTH207 - pathlib's takes no absolute pattern
    if not found:
        raise DataError(name, "fits no file", "name a file, a folder, or another pattern")
    return [Path(one) for one in found]
