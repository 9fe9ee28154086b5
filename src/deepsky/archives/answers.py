"""What a server's answer, or its silence, means for the next try, and when a host may be asked again."""

import re
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

import requests
from urllib3.exceptions import HTTPError

LONGEST_RETRY_AFTER_S = 300.0
Sort = Literal["retry", "missing", "refused", "connection"]


class Failed(Exception):
    """One try that brought no file, and what that means: try again, the archive has none, refused, or no answer."""

    def __init__(self, sort: Sort, reason: str, *, status: int = 0, body: str = "", wait_s: float = 0.0) -> None:
        """Keep the facts; ``wait_s`` is what the server asked for."""
        super().__init__(reason)
        self.sort, self.reason, self.status, self.body, self.wait_s = sort, reason, status, body, wait_s


class OtherPart(Failed):
    """A server answered a Range with something else than the rest of our file."""


class Left(Exception):
    """The fetch was called off while this thread waited or read."""


@dataclass(frozen=True, slots=True)
class Version:
    """What a server says about a file's content: validators ("" for none), and bytes in all (None: not said)."""

    etag: str = ""
    last_modified: str = ""
    bytes: int | None = None

    @property
    def validator(self) -> str:
        """What If-Range may compare; a weak ETag does not promise equal bytes."""
        return self.etag if self.etag.startswith('"') else self.last_modified


class Gate:
    """Spaces the requests to one host, and closes when the host asks for a pause.

    Attributes:
        slots: held while a request is under way, as many as there may be side by side.
    """

    def __init__(self, connections: int) -> None:
        self.slots = threading.BoundedSemaphore(connections)
        self._lock, self._next_s, self._closed_until_s = threading.Lock(), 0.0, 0.0

    def wait(self, spacing_s: float, leaving: threading.Event) -> None:
        """Return when it is this caller's turn."""
        while True:
            if leaving.is_set():
                raise Left
            with self._lock:
                now_s = time.monotonic()
                opens_s = max(self._next_s, self._closed_until_s)
                if opens_s <= now_s:
                    self._next_s = now_s + spacing_s
                    return
            leaving.wait(opens_s - now_s)

    def hold(self, seconds: float) -> None:
        """Let nobody through for so long."""
        with self._lock:
            self._closed_until_s = max(self._closed_until_s, time.monotonic() + seconds)


def refusal(response: requests.Response) -> Failed:
    """Say what an answer without a file means."""
    status, headers = response.status_code, response.headers
    body = headers.get("Content-Range", "") if status == 416 else response.content.decode("utf-8", "replace")
    retry = status in (408, 416, 425, 429) or status >= 500 or status < 400
    sort: Sort = "missing" if status in (404, 410) else "retry" if retry else "refused"
    reason = f"answers {status} {response.reason}"
    return Failed(sort, reason, status=status, body=body, wait_s=_retry_after_s(headers.get("Retry-After", "")))


def _retry_after_s(text: str) -> float:
    """Read Retry-After, seconds or an HTTP date; a nonsensical one counts as none."""
    if text.isdecimal():
        return min(float(text), LONGEST_RETRY_AFTER_S)
    try:
        seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)


def sort_of(error: Exception, *, answered: bool) -> Sort:
    """Tell servers that do not answer from answers that broke off."""
    if isinstance(error, requests.ConnectionError | requests.Timeout):  # of proxies and TLS too
        return "retry" if answered else "connection"
    broken_off = HTTPError | requests.exceptions.ChunkedEncodingError | requests.exceptions.ContentDecodingError
    return "retry" if isinstance(error, broken_off) else "refused"


def reason_of(error: Exception) -> str:
    """Return the innermost cause: the outer ones repeat it inside object representations."""
    cause: BaseException = error
    while (deeper := cause.__cause__ or cause.__context__ or getattr(cause, "reason", None)) is not None:
        if not isinstance(deeper, BaseException):
            break
        cause = deeper
    proxy = "proxy: " if isinstance(error, requests.exceptions.ProxyError) else ""
    return f"{proxy}{type(cause).__name__}: {cause}"


def version_of(response: requests.Response) -> Version:
    """Read which version of a file an answer brings."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return Version()  # its length and validators are of the encoded form; urllib3 compares the raw length
    length = response.headers.get("Content-Length", "")
    return Version(
        response.headers.get("ETag", ""),
        response.headers.get("Last-Modified", ""),
        int(length) if length.isdecimal() else None,
    )


def resumed_version(response: requests.Response, known: Version, have: int, now: Version) -> Version:
    """Check that a 206 is the rest of what we have; return the version with its length."""
    span = response.headers.get("Content-Range", "")
    parsed = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", span)
    n_bytes = int(parsed[2]) if parsed and parsed[2] != "*" else known.bytes
    same = all(not new or new == old for new, old in ((now.etag, known.etag), (now.last_modified, known.last_modified)))
    if parsed is None or int(parsed[1]) != have or not same or known.bytes not in (None, n_bytes):
        raise OtherPart("retry", f"answers with another part ({span or 'no Content-Range'}) than asked")
    return Version(known.etag, known.last_modified, n_bytes)
