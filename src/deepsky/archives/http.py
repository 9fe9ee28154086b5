"""Ask servers politely and download files whole: rates, retries, resuming, and what each failure means."""

import hashlib
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote, unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests_file import FileAdapter
from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

from deepsky.archives.answers import (
    Failed,
    Gate,
    Left,
    OtherPart,
    Version,
    reason_of,
    refusal,
    resumed_version,
    sort_of,
    version_of,
)
from deepsky.archives.params import DownloadParams
from deepsky.errors import ConfigError, DataError

CHUNK_BYTES = 1 << 18
BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 60.0
Algorithm = Literal["md5", "sha256"]
T = TypeVar("T")


class HTTPAnswer(DataError):
    """A server's final answer was an error status."""

    def __init__(self, where: str, status: int, body: str) -> None:
        """Compose the line.

        Args:
            where: the URL.
            status: of HTTP.
            body: the answer's text, for whoever can read the service's own words.
        """
        self.status, self.body = status, body
        super().__init__(where, f"answers {status}", "check the address, or try again later")

    def __reduce__(self) -> tuple[type, tuple[str, int, str]]:  # type: ignore[override]
        return type(self), (self.where, self.status, self.body)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A body that has come: its hash, bytes and version, and whether it was put together from several transfers."""

    digest: str
    bytes: int
    version: Version
    spliced: bool


class Client:
    """Asks servers: one gate per host, and at most ``connections`` to it. Threads may share it."""

    def __init__(self, params: DownloadParams) -> None:
        """Prepare; nothing is asked yet.

        Raises:
            ConfigError: the mirror is a folder that does not exist.
        """
        self.params = params
        self._mirror = params.mirror.rstrip("/") if params.mirror else ""
        if self._mirror.startswith("file:") and not Path(unquote(urlsplit(self._mirror).path)).is_dir():
            raise ConfigError("download.mirror", f"{params.mirror} is not a folder", "mount or correct it")
        contact = f" (+mailto:{params.contact})" if params.contact else ""
        # identity: a transparently unzipped body cannot be compared with Content-Length, or resumed.
        self._headers = {
            "User-Agent": f"deepsky/{installed_version('deepsky')}{contact}",
            "Accept-Encoding": "identity",
        }
        self._thread, self._lock, self._leaving = threading.local(), threading.Lock(), threading.Event()
        self._gates: dict[str, Gate] = {}
        # Sessions are a thread's own, connections are not: a thread that checks a file leaves its to another.
        self._adapter = HTTPAdapter(pool_maxsize=params.connections)

    def ask(
        self,
        url: str,
        *,
        query: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        file: str | None = None,
        requests_per_s: float | None = None,
        timeout_s: float | None = None,
        final: Callable[[str], bool] = lambda body: False,
    ) -> str:
        """Get a small text answer, whole.

        Args:
            url: without a query.
            query: its fields.
            form: fields of a POST.
            file: text, sent by POST as multipart field ``file``.
            requests_per_s: lowers the host's rate further.
            timeout_s: instead of the parameters'.
            final: whether an error's text is the last word, whatever its status (SQL errors come with 500 too).

        Raises:
            HTTPAnswer: the final answer was an error status.
            DataError: nothing answers, or what comes is cut off each time.
        """
        asked = requests.Request("GET", url, params=dict(query or {})).prepare().url or url
        posted = form is not None or file is not None
        if posted and self._mirror.startswith("file:"):
            raise HTTPAnswer(url, 405, "")
        files = None if file is None else {"file": ("positions.txt", file)}

        def attempt() -> str:
            try:
                with self._answer(
                    asked, "POST" if posted else "GET", timeout_s=timeout_s, rate=requests_per_s, data=form, files=files
                ) as response:
                    return response.content.decode("utf-8", "replace")
            except Failed as failed:
                if failed.status and final(failed.body):
                    failed.sort = "refused"
                raise

        try:
            return self.persist(asked, attempt)
        except Failed as failed:
            if failed.status:
                raise HTTPAnswer(url, failed.status, failed.body) from failed
            raise DataError(url, failed.reason, "check the network, then try again") from failed

    def persist(self, url: str, attempt: Callable[[], T]) -> T:
        """Try up to ``params.tries`` times, with growing pauses; 429 and 503 make everyone wait who asks that host.

        Raises:
            Failed: of the last try, or of one that another cannot mend.
        """
        for number in range(1, self.params.tries + 1):
            try:
                return attempt()
            except Failed as failed:
                if failed.sort in ("missing", "refused") or number == self.params.tries:
                    raise
                pause_s = min(BACKOFF_S * 2 ** (number - 1), LONGEST_BACKOFF_S) * random.uniform(0.5, 1.5)
                pause_s = max(pause_s, failed.wait_s)
                if failed.status in (429, 503):
                    self._gate(self._address(url)).hold(pause_s)
                elif self._leaving.wait(pause_s):
                    raise Left from failed
        raise AssertionError("tries is at least 1")

    def fetch(
        self,
        url: str,
        part: Path,
        *,
        known: Version | None = None,
        begin: Callable[[Version], None] = lambda version: None,
        advance: Callable[[int], None] = lambda n_bytes: None,
        algorithm: Algorithm = "sha256",
    ) -> Arrival:
        """Try once to get a file into ``part``, going on where ``part`` ends if its version is still served.

        A file without validators is never resumed: its halves could be of two versions.

        Args:
            url: of the file.
            part: where to; what came stays there when the try fails.
            known: version of what is in ``part``; None: nothing useful is.
            begin: called with the version before the first byte of a new body is written.
            advance: called with the number of bytes of each chunk.
            algorithm: hash of the arrival.

        Raises:
            Failed: it did not come whole.
            Left: ``leave`` was called.
            OSError: ``part`` cannot be written.
        """
        have = part.stat().st_size if known and part.exists() else 0
        if known and have and have == known.bytes:  # killed between the last byte and the name
            return Arrival(_hash_of(part, algorithm).hexdigest(), have, known, spliced=True)
        resume = bool(known and known.validator and have > 0 and (known.bytes is None or have < known.bytes))
        headers = {"Range": f"bytes={have}-", "If-Range": known.validator} if known and resume else {}
        try:
            with self._answer(url, headers=headers) as response:
                version = version_of(response)
                if known and response.status_code == 206:
                    version, found = resumed_version(response, known, have, version), _hash_of(part, algorithm)
                else:
                    part.write_bytes(b"")  # before the new version is known: old bytes must never pass for it
                    begin(version)
                    have, found = 0, _new_hash(algorithm)
                n_bytes = have + self._stream(response, part, found, advance)
        except Failed as failed:
            if failed.status == 416 and known and failed.body == f"bytes */{have}":
                return Arrival(_hash_of(part, algorithm).hexdigest(), have, known, spliced=True)
            if failed.status == 416 or isinstance(failed, OtherPart):
                part.unlink(missing_ok=True)
            raise
        if version.bytes is not None and n_bytes != version.bytes:
            raise Failed("retry", f"ended after {n_bytes} of {version.bytes} bytes")
        return Arrival(found.hexdigest(), n_bytes, version, spliced=have > 0)

    def leave(self) -> None:
        """Call everything off: whoever waits or reads raises Left before it writes another byte."""
        self._leaving.set()

    def _stream(
        self, response: requests.Response, part: Path, found: "hashlib._Hash", advance: Callable[[int], None]
    ) -> int:
        n_bytes = 0
        with part.open("ab") as file:
            for chunk in _chunks(response):
                if self._leaving.is_set():
                    raise Left
                file.write(chunk)
                found.update(chunk)
                n_bytes += len(chunk)
                advance(len(chunk))
        return n_bytes

    @contextmanager
    def _answer(
        self,
        url: str,
        method: str = "GET",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        rate: float | None = None,
        data: Mapping[str, str] | None = None,
        files: Mapping[str, tuple[str, str]] | None = None,
    ) -> Iterator[requests.Response]:
        """Ask once, when the host's gate opens; only success is given on."""
        address = self._address(url)
        gate, session, timeout_s = self._gate(address), self._session(), timeout_s or self.params.timeout_s
        rates = [each for each in (rate, self.params.requests_per_s) if each is not None]
        spacing_s = 1 / min(rates) if rates and not address.startswith("file:") else 0.0
        with gate.slots:
            gate.wait(spacing_s, self._leaving)
            answered = False
            try:
                with session.request(
                    method, address, headers=headers, data=data, files=files, stream=True, timeout=timeout_s
                ) as response:
                    answered = True
                    if response.status_code not in (200, 206) or (response.status_code == 206 and not headers):
                        raise refusal(response)
                    yield response
            except (requests.RequestException, HTTPError, ValueError) as error:  # ValueError: of a redirect's address
                said = f"cannot be downloaded ({reason_of(error)})"
                raise Failed(sort_of(error, answered=answered), said) from error

    def _address(self, url: str) -> str:
        """Where to ask for ``url``: there, or at the mirror."""
        parts = urlsplit(url)
        name = parts.path + (f"?{parts.query}" if parts.query else "")
        if not self._mirror:
            return url
        return self._mirror + (quote(name) if self._mirror.startswith("file:") else name)

    def _session(self) -> requests.Session:
        if not hasattr(self._thread, "session"):
            self._thread.session = requests.Session()
            self._thread.session.headers.update(self._headers)
            if self._mirror.startswith("file:"):  # else a redirect could read this machine's files
                self._thread.session.mount("file://", FileAdapter())
            for scheme in ("http://", "https://"):
                self._thread.session.mount(scheme, self._adapter)
        session: requests.Session = self._thread.session
        return session

    def _gate(self, address: str) -> Gate:
        with self._lock:
            return self._gates.setdefault(urlsplit(address).netloc, Gate(self.params.connections))


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Give bytes as they come: ``iter_content`` waits for a whole chunk, and a stall would cost what came of it."""
    raw = response.raw
    if not isinstance(raw, HTTPResponse):  # requests-file's
        yield from response.iter_content(CHUNK_BYTES)
        return
    while chunk := raw.read1(CHUNK_BYTES, decode_content=True):
        yield chunk


def _new_hash(algorithm: Algorithm) -> "hashlib._Hash":
    return hashlib.new(algorithm, usedforsecurity=False)


def _hash_of(path: Path, algorithm: Algorithm) -> "hashlib._Hash":
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: _new_hash(algorithm))
