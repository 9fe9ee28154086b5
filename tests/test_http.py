"""Asking servers: rates, retries, mirrors, and errors of one line; against a real server on the loopback."""

import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from deepsky.archives.answers import Failed, Left, Version
from deepsky.archives.http import Client, HTTPAnswer
from deepsky.archives.params import DownloadParams
from deepsky.errors import ConfigError, DataError
from tests.archive_server import LAST_MODIFIED, ArchiveServer, Fault

PARAMS = DownloadParams(mirror=None, connections=4, requests_per_s=None, timeout_s=10, tries=3, contact=None)
BODY = bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def echo(fields: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, repr(sorted(fields.items())).encode()


def test_ask_sends_a_query_a_form_or_a_file_and_says_who_asks() -> None:
    with ArchiveServer({}, {"/service": echo}) as server:
        client, url = Client(replace(PARAMS, contact="me@example.org")), f"{server.url}/service"
        assert client.ask(url, query={"cmd": "SELECT 'a b'", "format": "csv"}) == (
            "[('cmd', \"SELECT 'a b'\"), ('format', 'csv')]"
        )
        assert client.ask(url, form={"type": "stack"}) == "[('type', 'stack')]"
        assert client.ask(url, form={"type": "stack"}, file="1 2\n3 4\n") == (
            "[('file', '1 2\\n3 4\\n'), ('type', 'stack')]"
        )
        assert [asked.method for asked in server.requests] == ["GET", "POST", "POST"]
        headers = server.requests[0].headers
    assert re.fullmatch(r"deepsky/\S+ \(\+mailto:me@example.org\)", headers["User-Agent"])
    assert headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "fault",
    [Fault("status", status=500, times=2), Fault("status", status=408), Fault("status", status=429), Fault("cut")],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
def test_what_passes_is_asked_again(fault: Fault) -> None:
    with ArchiveServer({"/a": b"answer"}, faults=[fault]) as server:
        assert Client(PARAMS).ask(f"{server.url}/a") == "answer"


@pytest.mark.parametrize(("status", "n_requests"), [(500, 3), (404, 1), (400, 1)])
def test_a_final_error_status_carries_the_services_words(status: int, n_requests: int) -> None:
    fault = Fault("status", status=status, times=None, body=b"Incorrect syntax near 'x'")
    with ArchiveServer({}, faults=[fault]) as server:
        with pytest.raises(HTTPAnswer, match=f"/sql: answers {status}; ") as caught:
            Client(PARAMS).ask(f"{server.url}/sql", query={"cmd": "x"})
        assert len(server.requests) == n_requests
    assert (caught.value.status, caught.value.body) == (status, "Incorrect syntax near 'x'")


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_obeyed_by_all_who_ask_that_host(form: str) -> None:
    # A date has whole seconds, so it may be up to one second nearer than it says.
    later = "1" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    fault = Fault("status", match="first", status=429, headers={"Retry-After": later})
    with ArchiveServer({"/first": b"1", "/other": b"2"}, faults=[fault]) as server:
        client = Client(PARAMS)
        thread = threading.Thread(target=client.ask, args=(f"{server.url}/first",))
        thread.start()
        while not server.requests or not server.requests[0].status:
            pass
        threading.Event().wait(0.1)
        client.ask(f"{server.url}/other")
        thread.join()
        times = sorted(asked.time_s for asked in server.requests)
    assert len(times) == 3
    assert times[1] - times[0] > 0.9


def test_the_rate_holds_for_all_threads_together() -> None:
    with ArchiveServer({"/a": b"1"}) as server:
        client = Client(replace(PARAMS, requests_per_s=20))
        threads = [threading.Thread(target=client.ask, args=(f"{server.url}/a",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        slow_from = len(server.requests)
        for _ in range(2):
            client.ask(f"{server.url}/a", requests_per_s=2)
        times = sorted(asked.time_s for asked in server.requests)
    assert times[slow_from - 1] - times[0] > 7 * 0.05 * 0.9
    assert times[-1] - times[-2] > 0.45


def test_a_mirror_keeps_path_and_query(tmp_path: Path) -> None:
    with ArchiveServer({"/base/x/list?ra=1&dec=%2B2": b"from the mirror"}) as server:
        client = Client(replace(PARAMS, mirror=f"{server.url}/base/"))
        assert client.ask("https://archive.example/x/list?ra=1&dec=%2B2") == "from the mirror"
    (tmp_path / "a folder" / "x").mkdir(parents=True)
    (tmp_path / "a folder" / "x" / "list?ra=1&dec=%2B2").write_text("from the folder")
    client = Client(replace(PARAMS, mirror=(tmp_path / "a folder").as_uri()))
    assert client.ask("https://archive.example/x/list?ra=1&dec=%2B2") == "from the folder"
    for posted in ({"form": {"a": "b"}}, {"file": "1 2"}):
        with pytest.raises(HTTPAnswer) as caught:
            client.ask("https://archive.example/x/list", **posted)  # type: ignore[arg-type]
        assert caught.value.status == 405


def test_a_mirror_folder_that_is_not_there_is_an_error_and_no_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere is not a folder"):
        Client(replace(PARAMS, mirror=(tmp_path / "nowhere").as_uri()))


def test_a_closed_port_is_one_line() -> None:
    with ArchiveServer({}) as server:
        url = server.url
    with pytest.raises(DataError, match=r"/a: cannot be downloaded \(.*refused.*\); check the network") as caught:
        Client(replace(PARAMS, tries=1)).ask(f"{url}/a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mirror", "ftp://x"), ("mirror", "file://x"), ("connections", 0), ("connections", 17), ("requests_per_s", 0.0),
        ("timeout_s", 0.0), ("tries", 0), ("contact", "nobody"), ("contact", "a@b\r\nX: y"),
    ],
)  # fmt: skip
def test_params_out_of_range_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        replace(PARAMS, **{key: value})  # type: ignore[arg-type]


def test_a_transfer_resumes_where_the_part_ends(tmp_path: Path) -> None:
    versions: list[Version] = []
    with ArchiveServer({"/a": BODY}, faults=[Fault("cut")]) as server:
        client, part = Client(PARAMS), tmp_path / "part"
        with pytest.raises(Failed) as caught:
            client.fetch(f"{server.url}/a", part, begin=versions.append)
        assert caught.value.sort == "retry"
        held = part.stat().st_size
        assert 0 < held < len(BODY)
        arrival = client.fetch(f"{server.url}/a", part, known=versions[0], begin=versions.append)
        assert server.requests[1].headers["Range"] == f"bytes={held}-"
        assert server.requests[1].headers["If-Range"] == versions[0].etag
    assert (part.read_bytes(), arrival.spliced, len(versions)) == (BODY, True, 1)


def test_a_part_that_is_all_there_is_complete_by_416(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(BODY)
    with ArchiveServer({"/a": BODY}) as server:
        known = Version("", LAST_MODIFIED, None)  # killed after the last byte of an answer without a length
        arrival = Client(PARAMS).fetch(f"{server.url}/a", tmp_path / "part", known=known)
        assert [asked.status for asked in server.requests] == [416]
    assert (arrival.bytes, arrival.spliced) == (len(BODY), True)


def test_a_part_longer_than_the_file_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(BODY + b"more")
    with ArchiveServer({"/a": BODY}) as server:
        client, known = Client(PARAMS), Version("", LAST_MODIFIED, None)
        url = f"{server.url}/a"
        client.persist(url, lambda: client.fetch(url, tmp_path / "part", known=known))
    assert (tmp_path / "part").read_bytes() == BODY


@pytest.mark.parametrize("known", [Version("", "", len(BODY)), Version('W/"weak"', "", len(BODY))])
def test_without_a_strong_validator_nothing_is_resumed(known: Version, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"half of another version")
    with ArchiveServer({"/a": BODY}) as server:
        Client(PARAMS).fetch(f"{server.url}/a", tmp_path / "part", known=known)
        assert "Range" not in server.requests[0].headers
    assert (tmp_path / "part").read_bytes() == BODY


def test_who_is_called_off_leaves_without_writing(tmp_path: Path) -> None:
    with ArchiveServer({"/a": BODY}) as server:
        client = Client(PARAMS)
        client.leave()
        with pytest.raises(Left):
            client.fetch(f"{server.url}/a", tmp_path / "part")
    assert not (tmp_path / "part").exists()
