"""A real MLflow server on the loopback, and a proxy before it that can be slow, silent or gone."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests


@contextmanager
def mlflow_server(folder: Path, seconds: float = 120.0) -> Iterator[int]:
    """Serve a store in a folder whose mlflow.db is there already; gives the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stores = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, env={**os.environ, **stores}, stdout=log, stderr=log, start_new_session=True, cwd=folder
        )
        try:
            deadline = time.monotonic() + seconds
            while server.poll() is None and time.monotonic() < deadline:
                with suppress(requests.RequestException):
                    if requests.get(f"http://127.0.0.1:{port}/health", timeout=1).ok:
                        break
                time.sleep(0.1)
            else:
                raise AssertionError((folder / "server.log").read_text())
            yield port
        finally:
            os.killpg(server.pid, 15)
            server.wait()


class Proxy:
    """A TCP proxy on the loopback.

    Attributes:
        port: where it listens, also after a stop.
        latency_s: seconds by which what the client says arrives later.
        is_silent: whether it takes connections and says nothing.
    """

    def __init__(self, target: int) -> None:
        self._target, self.latency_s, self.is_silent = target, 0.0, False
        self._listener: socket.socket | None = None
        self._pairs: list[socket.socket] = []
        self.port = 0
        self.start()

    def start(self) -> None:
        """Take connections."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections and cut those that are open."""
        assert self._listener is not None
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._pairs:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._pairs.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client = listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._target))
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pairs += [client, server]
                threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_asking: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                while self.is_silent:
                    time.sleep(0.05)
                time.sleep(self.latency_s if is_asking else 0)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
