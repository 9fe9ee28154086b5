"""Download one file over HTTP, whole and verified, or fail with one line."""

import hashlib
from pathlib import Path
from typing import Literal

import requests

from deepsky.errors import DataError
from deepsky.files import whole_file

CHUNK_BYTES = 1 << 20


def download(
    url: str,
    target: Path,
    *,
    digest: str | None = None,
    algorithm: Literal["md5", "sha256"] = "sha256",
    timeout_s: float = 30.0,
) -> str:
    """Fetch ``url`` into ``target``; the file appears only when it is complete and its hash fits.

    Args:
        url: http or https address.
        target: the file to write.
        digest: expected hash as hexadecimal digits; None skips the comparison.
        algorithm: which hash ``digest`` is.
        timeout_s: seconds without a byte after which the server counts as gone.

    Returns:
        The hash of what came, hexadecimal digits of ``algorithm``.

    Raises:
        DataError: no answer, an HTTP error status, a shortened body or another hash.
    """
    try:
        # identity: a transparently unzipped body could not be compared with Content-Length.
        headers = {"Accept-Encoding": "identity"}
        with requests.get(url, stream=True, timeout=timeout_s, headers=headers) as response, whole_file(target) as path:
            if response.status_code != requests.codes.ok:
                raise DataError(url, f"answers {response.status_code} {response.reason}", "check the address")
            n_bytes, found = _stream(response, path, algorithm)
            _check(url, n_bytes, response.headers.get("Content-Length"), found, digest)
    except requests.RequestException as error:
        raise DataError(url, f"cannot be downloaded ({_reason(error)})", "check the network, then try again") from error
    return found


def _stream(response: requests.Response, path: Path, algorithm: str) -> tuple[int, str]:
    """Write the body to ``path``; return its length in bytes and its hash."""
    found, n_bytes = hashlib.new(algorithm, usedforsecurity=False), 0
    with path.open("wb") as file:
        for chunk in response.iter_content(CHUNK_BYTES):
            file.write(chunk)
            found.update(chunk)
            n_bytes += len(chunk)
    return n_bytes, found.hexdigest()


def _check(url: str, n_bytes: int, announced: str | None, found: str, expected: str | None) -> None:
    if announced is not None and n_bytes != int(announced):
        raise DataError(url, f"ended after {n_bytes} of {announced} bytes", "try again")
    if expected is not None and found != expected:
        raise DataError(
            url, f"has the hash {found}, not {expected}", "the file is not the official one: check the address"
        )


def _reason(error: requests.RequestException) -> str:
    """Return the innermost cause: the outer ones repeat it inside object representations."""
    cause: BaseException = error
    while (deeper := cause.__cause__ or cause.__context__ or getattr(cause, "reason", None)) is not None:
        if not isinstance(deeper, BaseException):
            break
        cause = deeper
    return f"{type(cause).__name__}: {cause}"
