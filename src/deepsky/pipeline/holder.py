"""One `deepsky repro` per project: two would run the same stage into the same files."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from deepsky.errors import DeepSkyError

HOLDER = Path(".dvc/tmp/deepsky-repro.lock")


@contextmanager
def held_project() -> Iterator[None]:
    """Hold the project of the working directory; the hold ends with the process, however that ends.

    Raises:
        DeepSkyError: it is no DVC project, or another process holds it.
    """
    if not HOLDER.parent.parent.is_dir():
        raise DeepSkyError(Path.cwd(), "is no DVC project", "run this where .dvc and dvc.yaml are")
    HOLDER.parent.mkdir(exist_ok=True)
    with HOLDER.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            # Empty for the moment between its lock and its line.
            who = file.read().strip() or "another process"
            raise DeepSkyError("deepsky repro", f"{who} holds this project", "wait for it to end or stop it") from error
        file.truncate(0)
        file.write(f"process {os.getpid()}, started {datetime.now():%Y-%m-%d %H:%M:%S},\n")
        file.flush()
        yield
