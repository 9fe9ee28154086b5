"""Put files under DVC's care."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deepsky.errors import DataError


def dvc_add(paths: Sequence[Path]) -> None:
    """Version files or folders of this DVC project; outside of one do nothing.

    Raises:
        DataError: DVC refuses.
    """
    if not any((folder / ".dvc").is_dir() for folder in paths[0].resolve().parents):
        return
    command = [sys.executable, "-m", "dvc", "add", "--quiet", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), done.stderr)
        raise DataError(paths[0], f"dvc add failed ({reason})", "mend that and run the command again")
