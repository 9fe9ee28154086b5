"""What stage train writes, as MLflow knows it: by hashes, and by a name where it is registered."""

import hashlib
from pathlib import Path

from deepsky.errors import TrackingError

NETWORK_FILE = "model.h5"
PREFIX = "models:/"  # before the name of a registered network
KEY_FILES = ("run.json", "predictions.csv")
_AGAIN = "run dvc checkout, which brings back what was there, or dvc repro, which trains it again"


def run_key(trained: Path) -> str:
    """Return the hash that ties a run to what its stage wrote: sha256 over run.json and predictions.csv.

    Raises:
        TrackingError: one of the files cannot be read.
    """
    digest = hashlib.sha256()
    for name in KEY_FILES:
        try:
            content = (trained / name).read_bytes()
        except OSError as error:
            raise TrackingError(trained / name, f"cannot be read ({error.strerror})", _AGAIN) from error
        digest.update(len(content).to_bytes(8) + content)
    return digest.hexdigest()


def model_hash(trained: Path) -> str:
    """Return the SHA-256 of a trained network's file.

    Raises:
        TrackingError: it cannot be read.
    """
    try:
        with (trained / NETWORK_FILE).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TrackingError(error.filename, f"cannot be read ({error.strerror})", _AGAIN) from error
