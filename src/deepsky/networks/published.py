"""Published weights: where their files may lie, and how Keras' own come there when a person asks for them."""

import fcntl
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from deepsky.archives.answers import Failed, Version
from deepsky.archives.http import Arrival, Client
from deepsky.archives.params import DownloadParams
from deepsky.errors import DataError, WeightsError
from deepsky.networks.backbone import Backbone

FOLDER_VARIABLE = "DEEPSKY_WEIGHTS"
URL_VARIABLE = "DEEPSKY_WEIGHTS_URL"
KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"


def find_file(backbone: Backbone, folder: str | None) -> tuple[Path | None, str]:
    """Look for the published weights of a network, never over the network.

    Args:
        backbone: the architecture.
        folder: where params.yaml says they may be; the environment variable DEEPSKY_WEIGHTS overrides it.

    Returns:
        The file, or None; and the places where it was looked for, in words.

    Raises:
        WeightsError: the folder does not exist.
    """
    places = [*_named_folder(folder), _home(backbone)]
    found = next((place / backbone.weights_file for place in places if (place / backbone.weights_file).is_file()), None)
    return found, ", ".join(map(str, places))


def remedy(backbone: Backbone) -> str:
    """Say how a person gets what ``find_file`` does not find."""
    if backbone.package:
        return f"make clean setup installs its package {backbone.package[0]}"
    return f"make weights downloads what is missing; or name a folder of yours in {FOLDER_VARIABLE} or weights.folder"


def download_file(backbone: Backbone, params: DownloadParams, advance: Callable[[int, int | None], None]) -> Path:
    """Download Keras' own file into Keras' cache, one process at a time; what had come of it before goes on.

    Args:
        backbone: an architecture whose file is Keras'.
        params: how to ask.
        advance: told how many bytes there are, and how many there will be, if the server says.

    Returns:
        The file.

    Raises:
        DataError: it cannot be had, or what came is another file.
    """
    base = os.environ.get(URL_VARIABLE) or KERAS_URL
    url = f"{base.rstrip('/')}/{backbone.weights_folder}/{backbone.weights_file}"
    target = _home(backbone) / backbone.weights_file
    part = target.with_name(f"{target.name}.part")
    note = part.with_name(f"{part.name}.json")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.with_name(f"{part.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_file():  # else another process downloaded it meanwhile
                _fetch(url, part, note, backbone, params, advance)
                part.replace(target)
                note.unlink(missing_ok=True)
    except (Failed, ValueError) as failed:  # the latter: of an address that is none
        reason = failed.reason if isinstance(failed, Failed) else str(failed)
        raise DataError(url, reason, "check the network, then make weights goes on from there") from failed
    except OSError as error:
        remedy = "free the disk, or name a folder you may write to in KERAS_HOME"
        raise DataError(error.filename or target, f"cannot be written ({error.strerror})", remedy) from error
    return target


def _fetch(
    url: str,
    part: Path,
    note: Path,
    backbone: Backbone,
    params: DownloadParams,
    advance: Callable[[int, int | None], None],
) -> None:
    """Get the whole file into ``part``, by what ``note`` says of the bytes that are there."""
    known, client = _read_note(note), Client(params)

    def begin(version: Version) -> None:
        nonlocal known
        known = version
        note.write_text(json.dumps(asdict(version)))

    def tell(n_bytes: int) -> None:
        advance(part.stat().st_size, known.bytes if known else None)

    def attempt() -> Arrival:
        return client.fetch(url, part, known=known, begin=begin, advance=tell, algorithm=backbone.weights_algorithm)

    arrival = client.persist(url, attempt)
    if arrival.digest != backbone.weights_digest:
        for path in (part, note):
            path.unlink(missing_ok=True)
        problem = f"has the {backbone.weights_algorithm} {arrival.digest}, not {backbone.weights_digest}"
        raise DataError(url, problem, "that is not Keras' file: is a proxy between? give its file in a folder")


def digest_of(path: Path, algorithm: str) -> str:
    """Return the hash of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _named_folder(named: str | None) -> list[Path]:
    key = FOLDER_VARIABLE if os.environ.get(FOLDER_VARIABLE) else "params.yaml: weights.folder"
    folder = os.environ.get(FOLDER_VARIABLE) or named
    if folder and not Path(folder).is_dir():
        problem = f"{folder} is not a folder"
        raise WeightsError(key, problem, "name a folder with Keras' no-top .h5 files, or unset it")
    return [Path(folder)] if folder else []


def _home(backbone: Backbone) -> Path:
    """Return where the file is at home: in the package that carries it, or in Keras' cache."""
    if backbone.package:
        spec = importlib.util.find_spec(backbone.package[1])  # which imports nothing of it
        places = list(spec.submodule_search_locations or ()) if spec else []
        return Path(places[0] if places else f"package {backbone.package[0]}", backbone.weights_folder)
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def _read_note(note: Path) -> Version | None:
    try:
        return Version(**json.loads(note.read_text()))
    except (OSError, ValueError, TypeError):
        return None
