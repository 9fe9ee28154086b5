"""Whole fetches from a faulty archive: what has its name is right, the rest is named in one line, nothing is lost."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest

from deepsky import progress
from deepsky.archives.downloader import Outcome, fetch_all
from deepsky.archives.journal import UNFINISHED, set_aside
from deepsky.archives.manifest import Absent, Receipt, read_absent, read_manifest, write_manifest
from deepsky.archives.params import DownloadParams
from deepsky.archives.wanted import Wanted
from deepsky.errors import DataError
from tests.archive_server import ArchiveServer, Fault, frame_content, jpeg_content

PARAMS = DownloadParams(mirror=None, connections=2, requests_per_s=None, timeout_s=1, tries=3, contact=None)
HOST = "http://archive.example"
FRAME = frame_content(752, 1, 10, "g")
JPEG = jpeg_content(1)
FILES = {
    "/dr17/frame-g": FRAME,
    "/dr17/frame-r": frame_content(752, 1, 10, "r"),
    "/jpg?ra=1&dec=2": JPEG,
    "/jpg?ra=3&dec=4": jpeg_content(2),
}
WANTED = [
    Wanted("frames/752/1/g.fits.bz2", f"{HOST}/dr17/frame-g", "frame", (752, 1, 10, "g")),
    Wanted("frames/752/1/r.fits.bz2", f"{HOST}/dr17/frame-r", "frame", (752, 1, 10, "r")),
    Wanted("sdss_jpg/1.jpg", f"{HOST}/jpg?ra=1&dec=2", "jpeg", (1.0, 2.0)),
    Wanted("sdss_jpg/2.jpg", f"{HOST}/jpg?ra=3&dec=4", "jpeg", (3.0, 4.0)),
]
CHILD = """
import resource, signal, sys
from tests.test_downloader import PARAMS, WANTED, fetch, replace
from deepsky.errors import DataError
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
url, out, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    fetch(url, out, replace(PARAMS, timeout_s=60))
except DataError as error:
    sys.exit(str(error))
"""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def fetch(
    url: str | None,
    out: Path,
    params: DownloadParams = PARAMS,
    *,
    wanted: Sequence[Wanted] = WANTED,
    absent: Sequence[Absent] = (),
    missing: Literal["skip", "stop"] = "skip",
    **options: Any,
) -> Outcome:
    return fetch_all(wanted, absent, out, replace(params, mirror=url), missing=missing, **options)


def contents(out: Path) -> dict[str, bytes]:
    """All files with their names; tables and what is hidden left out."""
    paths = [path.relative_to(out) for path in out.rglob("*") if path.is_file() and path.suffix != ".csv"]
    return {str(path): (out / path).read_bytes() for path in paths if not str(path).startswith(".")}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


EXPECTED = dict(zip([each.path for each in WANTED], FILES.values(), strict=True))


@pytest.mark.parametrize(
    ("faults", "validators"),
    [
        ([Fault("status", status=500, times=2)], True),
        ([Fault("status", status=429, headers={"Retry-After": "1"})], True),
        ([Fault("stall", "frame-g")], True),
        ([Fault("cut", "frame"), Fault("reset", "frame"), Fault("cut", "jpg")], True),
        ([Fault("reset", ""), Fault("cut", "")], False),
        ([Fault("chunked", "frame-g"), Fault("chunked", "jpg")], True),
        ([Fault("short", "frame-g"), Fault("short", "jpg")], True),
        ([Fault("html", "frame-g"), Fault("html", "jpg")], True),
        ([Fault("other", "frame-g", body=JPEG), Fault("other", "jpg", body=FRAME)], True),
        ([Fault("other", "frame-g", body=FILES["/dr17/frame-r"])], True),
        ([Fault("redirect", "^/(dr17|jpg)", times=None)], True),
        ([Fault("gzip", "", times=None)], True),
        ([Fault("cut", "frame-g"), Fault("no_range", "frame-g")], True),
        ([Fault("cut", "frame-g"), Fault("wrong_range", "frame-g")], True),
    ],
    ids=lambda value: "+".join(dict.fromkeys(fault.kind for fault in value)) if isinstance(value, list) else None,
)
def test_a_passing_fault_leaves_no_trace(faults: list[Fault], validators: bool, tmp_path: Path) -> None:
    faults = [replace(fault) for fault in faults]
    with ArchiveServer(FILES, faults=faults, validators=validators) as server:
        fetch(server.url, tmp_path)
        assert all(fault.times in (0, None) for fault in faults), "the fault must have happened"
        n_requests = len(server.requests)
        assert fetch(server.url, tmp_path) == Outcome(0, 0, 0, 0)
        assert len(server.requests) == n_requests
    assert contents(tmp_path) == EXPECTED
    assert not [name for name in (UNFINISHED, "failures.csv", ".parts") if (tmp_path / name).exists()]
    assert [row["path"] for row in rows(tmp_path / "manifest.csv")] == sorted(EXPECTED)


@pytest.mark.parametrize("validators", [True, False], ids=["new ETag", "no validators"])
def test_a_file_that_changes_between_two_requests_comes_whole_in_its_new_form(validators: bool, tmp_path: Path) -> None:
    new = frame_content(752, 1, 10, "g", noisy_rows=101)
    with ArchiveServer(FILES, faults=[Fault("changes", "frame-g", body=new)], validators=validators) as server:
        fetch(server.url, tmp_path)
    assert contents(tmp_path) == EXPECTED | {WANTED[0].path: new}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("status", status=500), "answers 500"),
        (Fault("status", status=403), "answers 403"),
        (Fault("cut"), "IncompleteRead"),
        (Fault("reset"), "ConnectionReset"),
        (Fault("stall"), "timed out"),
        (Fault("short"), "end mark"),
        (Fault("html"), r"is a web page \(Down for service\)"),
        (Fault("other", body=frame_content(752, 1, 11, "g")), "another file: FRAME 19, not 18"),
        (Fault("other", body=frame_content(752, 2, 10, "g")), "another file: CAMCOL 2, not 1"),
        (Fault("other", body=frame_content(752, 1, 10, "r")), "another file"),
        (Fault("other", body=JPEG), "is no bzip2 file"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else None,
)
def test_a_lasting_fault_fails_in_one_line_the_rest_comes_and_the_list_is_tried_again(
    fault: Fault, reason: str, tmp_path: Path
) -> None:
    fault = replace(fault, match="frame-g", times=None)
    with ArchiveServer(FILES, faults=[fault]) as server:
        params = replace(PARAMS, tries=2)
        with pytest.raises(
            DataError, match=rf"1 of 4 files failed; first frames/752/1/g.*{reason}.*--retry-"
        ) as caught:
            fetch(server.url, tmp_path, params)
        assert "\n" not in str(caught.value)
        assert contents(tmp_path) == {path: body for path, body in EXPECTED.items() if path != WANTED[0].path}
        assert [row["url"] for row in rows(tmp_path / "failures.csv")] == [WANTED[0].url]
        server.faults.clear()
        n_requests = len(server.requests)
        fetch(server.url, tmp_path, params, retry_failed=True)
        assert set(server.targets()[n_requests:]) == {"/dr17/frame-g"}
    assert contents(tmp_path) == EXPECTED
    assert not (tmp_path / "failures.csv").exists()


def test_retry_failed_needs_a_list_and_is_no_fetch_of_other_files(tmp_path: Path) -> None:
    with ArchiveServer(FILES, faults=[Fault("status", "frame-g", status=403)]) as server:
        with pytest.raises(DataError, match=r"failures\.csv: is not there: no file has failed; run the stage"):
            fetch(server.url, tmp_path, retry_failed=True)
        with pytest.raises(DataError, match="1 of 2 files failed"):
            fetch(server.url, tmp_path, wanted=WANTED[:2])
        with pytest.raises(DataError, match="2 wanted files were never asked for"):
            fetch(server.url, tmp_path, retry_failed=True)


@pytest.mark.parametrize("status", [404, 410])
def test_what_the_archive_does_not_have_is_listed_and_looked_for_by_the_next_fetch(status: int, tmp_path: Path) -> None:
    absent = Absent("stsci_jpg/9.jpg", "http://lists.example", "no stack covers the place")
    blank = bytes(cv2.imencode(".jpg", np.zeros((60, 60, 3), np.uint8))[1])
    files = FILES | {"/jpg?ra=3&dec=4": blank}
    with ArchiveServer(files, faults=[Fault("status", "frame-g", times=None, status=status)]) as server:
        assert fetch(server.url, tmp_path, absent=[absent]).n_missing == 3
        n_requests = len(server.requests)
        assert n_requests == 4
        with pytest.raises(DataError, match=rf"lack 3 files; first frames/752/1/g\S+: answers {status}.*missing: skip"):
            fetch(server.url, tmp_path, absent=[absent], missing="stop")
        assert len(server.requests) == n_requests + 2
        server.faults.clear()
        assert fetch(server.url, tmp_path, absent=[absent]).n_fetched == 1
    assert rows(tmp_path / "sdss_jpg" / "missing.csv") == [
        {"path": WANTED[3].path, "url": WANTED[3].url, "reason": "blank: outside the survey's footprint"}
    ]
    assert [row["reason"] for row in rows(tmp_path / "stsci_jpg" / "missing.csv")] == [absent.reason]
    assert contents(tmp_path) == {path: body for path, body in EXPECTED.items() if path != WANTED[3].path}


def test_a_file_mirror_serves_the_same_bytes(tmp_path: Path) -> None:
    mirror, out = tmp_path / "mirror", tmp_path / "out"
    for target, body in FILES.items():
        (mirror / target[1:]).parent.mkdir(parents=True, exist_ok=True)
        (mirror / target[1:]).write_bytes(body)
    fetch(mirror.as_uri(), out)
    assert contents(out) == EXPECTED


def test_a_host_sees_no_more_connections_than_allowed_and_each_serves_many_files(tmp_path: Path) -> None:
    files = {f"/jpg?{n}": jpeg_content(n) for n in range(30)}
    wanted = [Wanted(f"sdss_jpg/{n}.jpg", f"{HOST}/jpg?{n}", "jpeg", (1.0, 2.0)) for n in range(30)]
    with ArchiveServer(files, latency_s=0.01) as server:
        fetch(server.url, tmp_path, replace(PARAMS, connections=3), wanted=wanted)
        assert (server.n_connections, server.most_connections) == (3, 3)


def test_the_manifest_says_what_came_and_whence(tmp_path: Path) -> None:
    with ArchiveServer(FILES) as server:
        fetch(server.url, tmp_path)
    row = read_manifest(tmp_path / "manifest.csv")[WANTED[0].path]
    assert (row.url, row.bytes, len(row.sha256)) == (WANTED[0].url, len(FRAME), 64)
    assert row.time.endswith("Z")
    assert row.etag.startswith('"')
    assert row.last_modified.endswith("GMT")


def test_how_far_a_fetch_is_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[tuple[float, float]]()
    monkeypatch.setattr(progress, "listener", lambda done, total: told.append((done, total)))
    with ArchiveServer(FILES) as server:
        fetch(server.url, tmp_path)
    assert told[-1] == (4, 4)


def test_what_another_catalogue_does_not_want_is_set_aside_and_brought_back(tmp_path: Path) -> None:
    other_release = [replace(WANTED[0], url=f"{HOST}/dr18/frame-g")]
    new = frame_content(752, 1, 10, "g", noisy_rows=80)
    with ArchiveServer(FILES | {"/dr18/frame-g": new}) as server:
        fetch(server.url, tmp_path)
        (tmp_path / "sdss_jpg" / "mine.txt").write_text("a stray file")
        (tmp_path / "sdss_jpg" / "labels.csv").write_text("of stage fetch")
        fetch(server.url, tmp_path, wanted=other_release)
        assert contents(tmp_path) == {WANTED[0].path: new}
        n_requests = len(server.requests)
        fetch(server.url, tmp_path)
        assert contents(tmp_path) == EXPECTED
        fetch(server.url, tmp_path, wanted=other_release)
        assert contents(tmp_path) == {WANTED[0].path: new}
        assert len(server.requests) == n_requests, "everything was there"
    assert (tmp_path / ".aside" / "sdss_jpg" / "mine.txt").read_text() == "a stray file"
    assert (tmp_path / "sdss_jpg" / "labels.csv").read_text() == "of stage fetch"
    assert not (tmp_path / ".aside" / "sdss_jpg" / "labels.csv").exists()


def test_the_simulated_survey_loses_no_download(tmp_path: Path) -> None:
    set_aside(tmp_path)
    assert list(tmp_path.iterdir()) == [], "where nothing was downloaded nothing is left behind"
    with ArchiveServer(FILES) as server:
        fetch(server.url, tmp_path)
        set_aside(tmp_path)
        assert contents(tmp_path) == {}
        write_manifest([Receipt("sdss_jpg/1.jpg", "simulated:x", 3, "0")], tmp_path)
        n_requests = len(server.requests)
        fetch(server.url, tmp_path)
        assert len(server.requests) == n_requests
    assert contents(tmp_path) == EXPECTED


def test_downloads_without_a_manifest_are_not_lost_to_the_simulated_survey(tmp_path: Path) -> None:
    with ArchiveServer(FILES) as server:
        fetch(server.url, tmp_path)
    (tmp_path / "manifest.csv").unlink()
    set_aside(tmp_path)
    assert contents(tmp_path) == {}
    assert contents(tmp_path / ".aside") == EXPECTED


def test_a_file_that_lost_bytes_is_fetched_again(tmp_path: Path) -> None:
    with ArchiveServer(FILES) as server:
        fetch(server.url, tmp_path)
        (tmp_path / WANTED[0].path).write_bytes(FRAME[:1000])
        assert fetch(server.url, tmp_path).n_fetched == 1
    assert contents(tmp_path) == EXPECTED


def test_a_broken_manifest_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"manifest\.csv: has not the columns path, url.*; restore it, or delete it"):
        fetch("http://127.0.0.1:1", tmp_path)


def test_an_unreachable_host_stops_the_fetch_and_names_the_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ArchiveServer({}) as server:
        closed = server.url
    wanted = [Wanted(f"sdss_jpg/{n}.jpg", f"{HOST}/jpg?{n}", "jpeg", (1.0, 2.0)) for n in range(30)]
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, closed)
    with pytest.raises(DataError, match=r"archive\.example: 10 files in a row failed.*proxy.*HTTPS_PROXY") as caught:
        fetch(None, tmp_path, replace(PARAMS, tries=1), wanted=wanted)
    assert "\n" not in str(caught.value)


def test_a_host_that_is_down_stops_the_fetch_and_what_came_is_kept(tmp_path: Path) -> None:
    names = [f"/jpg?{n}" for n in range(300)]  # many: threads go on until the fetch hears of ten failures
    files = {name: jpeg_content(n % 20) for n, name in enumerate(names)}
    wanted = [Wanted(f"sdss_jpg/{n}.jpg", f"{HOST}{name}", "jpeg", (1.0, 2.0)) for n, name in enumerate(names)]
    with ArchiveServer(files, faults=[Fault("status", r"\?([2-9]\d|\d\d\d)$", None, status=503)]) as server:
        with pytest.raises(DataError, match=r"archive\.example: 10 files in a row failed, the last: answers 503"):
            fetch(server.url, tmp_path, replace(PARAMS, connections=1, tries=1), wanted=wanted)
        assert len(server.requests) < 300
        server.faults = []
        fetch(server.url, tmp_path, wanted=wanted)
        asked = Counter(server.targets())
    assert [asked[name] for name in names[:20]] == [1] * 20
    assert contents(tmp_path) == {f"sdss_jpg/{n}.jpg": files[name] for n, name in enumerate(names)}


def test_a_file_that_has_gone_leaves_the_manifest(tmp_path: Path) -> None:
    with ArchiveServer(FILES) as server:
        fetch(server.url, tmp_path)
        (tmp_path / WANTED[0].path).unlink()
        del server.files[WANTED[0].url.removeprefix(HOST)]
        assert fetch(server.url, tmp_path).n_missing == 1
    assert set(read_manifest(tmp_path / "manifest.csv")) == {each.path for each in WANTED[1:]}


def test_an_address_that_has_nothing_is_no_empty_sky(tmp_path: Path) -> None:
    wanted = [Wanted(f"sdss_jpg/{n}.jpg", f"{HOST}/jpg?{n}", "jpeg", (1.0, 2.0)) for n in range(50)]
    with ArchiveServer({}) as server, pytest.raises(DataError, match=r"none of the first 20 files.*download\.mirror"):
        fetch(server.url, tmp_path, wanted=wanted)
    assert not (tmp_path / "sdss_jpg" / "missing.csv").exists()


def test_what_always_fails_need_not_stop_the_rest(tmp_path: Path) -> None:
    """A file that is an object's own trouble, such as 500 for ever, is listed; the others are the dataset."""
    bad = WANTED[0]
    fault = Fault("status", re.escape(bad.url.removeprefix(HOST)), None, status=500)
    with ArchiveServer(FILES, faults=[fault]) as server:
        outcome = fetch(server.url, tmp_path, replace(PARAMS, tries=1), on_failure="skip")
    assert (outcome.n_failed, outcome.n_fetched) == (1, len(WANTED) - 1)
    assert [row.path for row in read_absent(tmp_path / "failures.csv")] == [bad.path]
    assert contents(tmp_path) == {path: content for path, content in EXPECTED.items() if path != bad.path}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "frames").write_text("a file where a folder must be")
    with pytest.raises(DataError, match=r"frames: cannot be written \(.*\); free the disk"):
        fetch("http://127.0.0.1:1", tmp_path)


def start(server: ArchiveServer, out: Path, limit: int = 0) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", CHILD, server.url, str(out), str(limit)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def test_a_full_disk_stops_in_one_line_and_loses_nothing(tmp_path: Path) -> None:
    with ArchiveServer(FILES) as server:
        process = start(server, tmp_path, limit=100_000)
        said = process.communicate(timeout=60)[1].splitlines()[-1]
        assert process.returncode == 1
        assert "cannot be written (File too large); free the disk" in said
        fetch(server.url, tmp_path)
        assert any("Range" in asked.headers for asked in server.requests), "what was written is not fetched again"
    assert contents(tmp_path) == EXPECTED


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting needs root")
def test_a_really_full_disk_loses_nothing(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with ArchiveServer(FILES) as server:
            with pytest.raises(DataError, match=r"cannot be written \(No space left on device\); free the disk"):
                fetch(server.url, tmp_path)
            subprocess.run(["mount", "-o", "remount,size=10m", tmp_path], check=True)
            fetch(server.url, tmp_path)
        assert contents(tmp_path) == EXPECTED
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_ctrl_c_leaves_a_stalled_server_at_once_and_the_next_run_goes_on(tmp_path: Path) -> None:
    with ArchiveServer(FILES, faults=[Fault("stall", "frame-g")]) as server:
        process = start(server, tmp_path)
        while not all((tmp_path / each.path).exists() for each in WANTED[1:]):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=20)[1]  # its timeout is 60 s
        n_requests = len(server.requests)
        fetch(server.url, tmp_path)
        assert server.targets()[n_requests:] == ["/dr17/frame-g"]
        assert "Range" in server.requests[-1].headers
    assert contents(tmp_path) == EXPECTED
