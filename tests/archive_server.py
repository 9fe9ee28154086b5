"""A real HTTP/1.1 server on the loopback that stands for an archive, with its faults."""

import bz2
import gzip
import hashlib
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

import cv2
import numpy as np
from astropy.io import fits

from deepsky.catalogue.survey import FRAME_DELAY

Page = Callable[[Mapping[str, str], bytes], tuple[int, dict[str, str], bytes]]
LAST_MODIFIED = "Sat, 07 Mar 2015 10:11:12 GMT"


def frame_content(run: int, camcol: int, field: int, band: str, *, noisy_rows: int = 100) -> bytes:
    """A frame in the survey's form, about 2 kB for each row that is not zero; each place has its own noise."""
    pixels = np.zeros((1489, 2048), np.float32)
    rng = np.random.default_rng([run, camcol, field, ord(band)])
    pixels[:noisy_rows] = np.round(rng.normal(size=(noisy_rows, 2048)) * 30) / 30  # few bits, as real ones
    image = fits.PrimaryHDU(pixels)
    named = {"RUN": run, "CAMCOL": camcol, "FRAME": field + FRAME_DELAY[band], "FILTER": band}
    image.header.update(named)
    return bz2.compress(image.header.tostring().encode() + pixels.astype(">f4").tobytes().ljust(12_199_680, b"\0"))


def jpeg_content(seed: int, side_px: int = 60) -> bytes:
    """A colour cutout of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".jpg", pixels)[1])


@dataclass
class Fault:
    """What goes wrong with the first ``times`` requests (None: all) whose target ``match`` (a regex) finds.

    Kinds: ``status`` answers ``status`` with ``headers``; ``stall`` stops in mid-body; ``cut`` closes in mid-body;
    ``short`` announces and sends half; ``reset`` resets in mid-body; ``html`` sends a page with status 200; ``other``
    sends ``body`` under this name; ``changes`` cuts, and from then on the file is ``body``; ``redirect``; ``gzip``;
    ``no_range`` and ``wrong_range`` ignore the Range, the latter with status 206; ``chunked`` tells no length and cuts.
    """

    kind: Literal[
        "status", "stall", "cut", "short", "reset", "html", "other", "changes", "redirect", "gzip", "no_range",
        "wrong_range", "chunked",
    ]  # fmt: skip
    match: str = ""
    times: int | None = 1
    status: int = 500
    headers: Mapping[str, str] | None = None
    body: bytes = b""


@dataclass
class Asked:
    """One request as the server saw it; ``sent_bytes`` grows while its body is sent."""

    method: str
    target: str
    headers: Mapping[str, str]
    time_s: float
    status: int = 0
    sent_bytes: int = 0


class ArchiveServer:
    """Serves ``files`` by target (path with query, exactly as asked) and ``pages`` by path.

    ``latency_s`` passes before each answer, and between two pieces of 64 KiB of its body.
    """

    def __init__(
        self,
        files: Mapping[str, bytes | Path],
        pages: Mapping[str, Page] | None = None,
        faults: Sequence[Fault] = (),
        *,
        validators: bool = True,
        latency_s: float = 0.0,
    ) -> None:
        self.files, self.pages, self.faults = dict(files), dict(pages or {}), list(faults)
        self.validators, self.latency_s = validators, latency_s
        self.requests: list[Asked] = []
        self.n_connections = self.most_connections = 0  # in all, side by side
        self.lock, self.closing = threading.Lock(), threading.Event()
        self._http = _Http(self)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        with self.lock:
            connections = list(self._http.connections)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._http.server_close()

    def targets(self) -> list[str]:
        """What was asked, in order."""
        with self.lock:
            return [asked.target for asked in self.requests]

    def take_fault(self, target: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times != 0 and re.search(fault.match, target):
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None


class _Http(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for all of them
    request_queue_size = 128

    def __init__(self, archive: ArchiveServer) -> None:
        self.archive, self.connections = archive, set[socket.socket]()
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # the client's leaving is no news
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def setup(self) -> None:
        super().setup()
        with self.server.archive.lock:
            self.server.connections.add(self.connection)
            archive = self.server.archive
            archive.n_connections += 1
            archive.most_connections = max(archive.most_connections, len(self.server.connections))

    def finish(self) -> None:
        with self.server.archive.lock:
            self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        archive = self.server.archive
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked = Asked(self.command, self.path, dict(self.headers), time.monotonic())
        with archive.lock:
            archive.requests.append(self.asked)
        if archive.latency_s:
            time.sleep(archive.latency_s)
        fault = archive.take_fault(self.path)
        path = urlsplit(self.path).path
        if fault and fault.kind == "status":
            self._send(fault.status, dict(fault.headers or {}), fault.body)
        elif path in archive.pages:
            self._send(*archive.pages[path](self._fields(body), body))
        else:
            self._send_file(fault)

    do_POST = do_HEAD = do_GET

    def _fields(self, body: bytes) -> dict[str, str]:
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("multipart/form-data"):
            message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
            return {
                str(part.get_param("name", header="content-disposition")): part.get_content()
                if part.get_content_maintype() == "text"
                else part.get_payload(decode=True).decode()
                for part in message.iter_parts()
            }
        text = body.decode() if self.command == "POST" else urlsplit(self.path).query
        return dict(parse_qsl(text, keep_blank_values=True))

    def _send_file(self, fault: Fault | None) -> None:
        archive, kind = self.server.archive, fault.kind if fault else ""
        target = self.path.removeprefix("/elsewhere")
        if kind == "redirect":
            self._send(302, {"Location": "/elsewhere" + target}, b"")
            return
        held = archive.files.get(target)
        if held is None:
            self._send(404, {"Content-Type": "text/html"}, b"<html><title>404 Not Found</title></html>")
            return
        content = held.read_bytes() if isinstance(held, Path) else held
        if fault and kind == "other":
            content = fault.body
        if fault and kind == "changes":
            archive.files[target] = fault.body
        if kind == "html":
            self._send(200, {"Content-Type": "text/html"}, b"<html><title>Down for service</title></html>")
            return
        headers = {"Accept-Ranges": "bytes"}
        if archive.validators:
            headers |= {"ETag": f'"{hashlib.md5(content).hexdigest()}"', "Last-Modified": LAST_MODIFIED}
        if kind == "gzip":
            content = gzip.compress(content)
            headers["Content-Encoding"] = "gzip"
        if kind == "short":
            content = content[: len(content) // 2]
        self._send_content(headers, content, kind)

    def _send_content(self, headers: dict[str, str], content: bytes, kind: str) -> None:
        """Send what the Range asks for, or half of it and the fault."""
        asked, start, status = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")), 0, 200
        known = (None, headers.get("ETag"), headers.get("Last-Modified"))
        if asked and kind not in ("no_range", "gzip") and self.headers.get("If-Range") in known:
            start, status = int(asked[1]), 206
            if start >= len(content):
                self._send(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
                return
            start = 0 if kind == "wrong_range" else start
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if kind in ("cut", "reset", "stall", "changes", "chunked"):
            headers |= {"Transfer-Encoding": "chunked"} if kind == "chunked" else {"Content-Length": str(len(body))}
            half = body[: len(body) // 2]
            self._send(status, headers, b"%x\r\n%b\r\n" % (len(half), half) if kind == "chunked" else half)
            self.wfile.flush()
            if kind == "stall":
                self.server.archive.closing.wait()
            if kind == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            self.close_connection = True
        else:
            self._send(status, headers, body)

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.asked.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if not {"Content-Length", "Transfer-Encoding"} & set(headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for start in range(0, len(body) if self.command != "HEAD" else 0, 1 << 16):
            if start and self.server.archive.latency_s:
                time.sleep(self.server.archive.latency_s)
            self.wfile.write(body[start : start + (1 << 16)])
            self.asked.sent_bytes = min(start + (1 << 16), len(body))
