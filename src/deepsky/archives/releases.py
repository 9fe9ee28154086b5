"""Download one large published file: in pieces over several runs if need be, and only with its published hash."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from deepsky.archives.answers import Failed, Version
from deepsky.archives.http import Client
from deepsky.archives.params import DownloadParams
from deepsky.errors import DataError


def download_release(url: str, target: Path, sha256: str, params: DownloadParams) -> None:
    """Fetch ``url`` into ``target``, which appears only when it is complete and its hash fits.

    What came of an interrupted download stays beside ``target``, and the next call goes on from there.

    Args:
        url: of the file.
        target: the file to write.
        sha256: its published hash, lower-case hexadecimal digits.
        params: section ``download`` of params.yaml.

    Raises:
        DataError: no answer, an error status, a shortened body or another hash.
    """
    part, note = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.part.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    client = Client(params)
    with _progress() as progress:
        task = progress.add_task(target.name, total=None)

        def begin(version: Version) -> None:
            note.write_text(json.dumps(asdict(version)))
            progress.update(task, completed=0, total=version.bytes)

        def attempt() -> str:
            known = _read_version(note)
            if known and part.exists():
                progress.update(task, completed=part.stat().st_size, total=known.bytes)
            advance = partial(progress.advance, task)
            return client.fetch(url, part, known=known, begin=begin, advance=advance).digest

        try:
            found = client.persist(url, attempt)
        except Failed as failed:
            raise DataError(url, failed.reason, "check the network, then run the same command again") from failed
    note.unlink(missing_ok=True)
    if found != sha256:
        part.unlink()
        raise DataError(url, f"has the SHA-256 {found}, not {sha256}", "the file is not the official one")
    part.replace(target)


def _read_version(note: Path) -> Version | None:
    """Read which version of the file its part is of; None where that is not known."""
    try:
        return Version(**json.loads(note.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=2,
    )
