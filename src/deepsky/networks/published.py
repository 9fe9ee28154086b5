"""Published weights: where their files may lie, and how Keras' own come there when a person asks for them."""

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from deepsky.archives.answers import Failed, Version
from deepsky.archives.http import Client
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
        The file, or None; and where it was looked for, in words.

    Raises:
        WeightsError: the folder does not exist.
    """
    places = [*_named_folder(folder), _home(backbone)]
    found = next((place / backbone.weights_file for place in places if (place / backbone.weights_file).is_file()), None)
    return found, f"no {backbone.weights_file} in {', '.join(map(str, places))}"


def remedy(backbone: Backbone) -> str:
    """Say how a person gets what ``find_file`` does not find."""
    if backbone.package:
        return f"make setup installs its package {backbone.package[0]}"
    return f"make weights downloads it; or name a folder that holds it in {FOLDER_VARIABLE} or weights.folder"


def download_file(backbone: Backbone, params: DownloadParams, advance: Callable[[int, int | None], None]) -> Path:
    """Download Keras' own file into Keras' cache; what had come of it before is kept and goes on.

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
    part, note = target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.json")
    known: list[Version | None] = [_read_note(note)]

    def begin(version: Version) -> None:
        known[0] = version
        note.write_text(json.dumps(asdict(version)))

    def tell(n_bytes: int) -> None:
        advance(part.stat().st_size, known[0].bytes if known[0] else None)

    client = Client(params)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        arrival = client.persist(
            url,
            lambda: client.fetch(
                url, part, known=known[0], begin=begin, advance=tell, algorithm=backbone.weights_algorithm
            ),
        )
        if arrival.digest != backbone.weights_digest:
            part.unlink()
            problem = f"has the {backbone.weights_algorithm} {arrival.digest}, not {backbone.weights_digest}"
            raise DataError(url, problem, "that is not Keras' file: is a proxy between? give its file in a folder")
        part.replace(target)
    except Failed as failed:
        raise DataError(url, failed.reason, "check the network, then make weights goes on from there") from failed
    except OSError as error:
        raise DataError(error.filename or target, f"cannot be written ({error.strerror})", "free the disk") from error
    finally:
        if not part.exists():
            note.unlink(missing_ok=True)
    return target


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
        return Path(places[0] if places else backbone.package[1], backbone.weights_folder)
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def _read_note(note: Path) -> Version | None:
    try:
        return Version(**json.loads(note.read_text()))
    except (OSError, ValueError, TypeError):
        return None
