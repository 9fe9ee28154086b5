"""A PostgreSQL server of the tests' own, on loopback, that asks for a password."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

PASSWORD, ENCODED = "p@ss:w/rd", "p%40ss%3Aw%2Frd"  # as it is, and as a URL has it


@contextmanager
def postgresql() -> Iterator[str]:
    """Give the URL of a server; skip where no PostgreSQL is installed. It refuses to be root."""
    places = [Path(found).resolve().parent for found in (shutil.which("initdb"),) if found]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    binaries = next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)
    if binaries is None:
        pytest.skip("needs PostgreSQL's initdb and postgres")
    with tempfile.TemporaryDirectory() as name:  # pytest's folder is closed to other users
        folder, other = Path(name), dict[str, Any]()
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            other = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        port = closed_port()
        url = f"postgresql://deepsky:{ENCODED}@127.0.0.1:{port}/postgres"
        subprocess.run(
            [binaries / "initdb", "--pgdata", "data", "--username", "deepsky", "--pwfile", "password", "--no-sync",
             "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"],
            cwd=folder, check=True, capture_output=True, **other,
        )  # fmt: skip
        server = subprocess.Popen(
            [binaries / "postgres", "-D", "data", "-p", str(port), "-k", folder, "-h", "127.0.0.1", "-F"],
            cwd=folder, stderr=subprocess.DEVNULL, **other,
        )  # fmt: skip
        try:
            while not _answers(url):
                assert server.poll() is None, "it ended before that"
                time.sleep(0.05)
            yield url
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()


def closed_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
