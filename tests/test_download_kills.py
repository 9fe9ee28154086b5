"""``kill -9`` at any moment: no complete file is fetched twice, no bad one accepted, and the end is the same."""

import multiprocessing
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from deepsky.archives.downloader import fetch_all
from deepsky.archives.journal import UNFINISHED
from deepsky.archives.manifest import read_manifest
from deepsky.archives.params import DownloadParams
from deepsky.archives.wanted import Wanted
from tests.archive_server import ArchiveServer, Fault, frame_content, jpeg_content

HOST = "http://archive.example"
PARAMS = DownloadParams(mirror=None, connections=4, requests_per_s=None, timeout_s=10, tries=3, contact=None)
N_FRAMES, N_JPEGS, N_KILLS = 12, 188, 30
FIELDS = range(10, 10 + N_FRAMES)
WANTED = [
    *(Wanted(f"frames/{n}.fits.bz2", f"{HOST}/f/{n}", "frame", (752, 1, n, "r")) for n in FIELDS),
    *(Wanted(f"sdss_jpg/{n}.jpg", f"{HOST}/jpg?{n}", "jpeg", (float(n), 0.0)) for n in range(N_JPEGS)),
]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    frames = {f"/f/{n}": frame_content(752, 1, n, "r") for n in FIELDS}
    return frames | {f"/jpg?{n}": jpeg_content(n) for n in range(N_JPEGS)}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def fetch(url: str, out: Path) -> None:
    fetch_all(WANTED, [], out, replace(PARAMS, mirror=url), missing="skip", retry_failed=False)


def named(out: Path) -> dict[str, bytes]:
    """What lies under its name, by target."""
    return {
        each.url.removeprefix(HOST): (out / each.path).read_bytes() for each in WANTED if (out / each.path).exists()
    }


def test_thirty_kills_cost_nothing_but_the_bytes_in_flight(files: dict[str, bytes], tmp_path: Path) -> None:
    rng, processes = random.Random(20150307), multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    n_killed, n_resumed = 0, 0
    # Three frames stall in mid-body, so that kills surely hit some there; the fourth connection goes on.
    stalls = [Fault("stall", "^/f/", times=3)]
    with ArchiveServer(files, faults=stalls, latency_s=0.01) as server:
        for _ in range(N_KILLS):
            there, n_requests = named(tmp_path), len(server.requests)
            process = processes.Process(target=fetch, args=(server.url, tmp_path))
            process.start()
            n_more = rng.randrange(1, 9)
            while len(server.requests) < n_requests + n_more and process.is_alive():
                process.join(0.001)
            process.join(rng.uniform(0, 0.03))
            n_killed += process.is_alive()
            process.kill()
            process.join()
            assert not set(there) & set(server.targets()[n_requests:]), "a complete file was asked for again"
            for target, content in named(tmp_path).items():
                assert content == files[target], f"{target} has its name but not its bytes"
        there, n_requests = named(tmp_path), len(server.requests)
        assert 0 < len(there) < len(WANTED), "all kills must have hit a fetch at work"
        fetch(server.url, tmp_path)
        assert not set(there) & set(server.targets()[n_requests:])
        n_resumed = sum("Range" in asked.headers for asked in server.requests)
        undisturbed = tmp_path / "undisturbed"
        fetch(server.url, undisturbed)
    assert n_killed == N_KILLS
    assert n_resumed > 0, "some kill must have hit a frame in mid-body"
    assert named(tmp_path) == named(undisturbed) == files
    rows = [list(read_manifest(out / "manifest.csv").values()) for out in (tmp_path, undisturbed)]
    assert [replace(row, time="") for row in rows[0]] == [replace(row, time="") for row in rows[1]]
    left = {path.name for path in tmp_path.iterdir()} - {"undisturbed"}
    assert left == {path.name for path in undisturbed.iterdir()}


def test_killed_between_the_last_event_and_the_name(files: dict[str, bytes], tmp_path: Path) -> None:
    with ArchiveServer(files) as server:
        fetch(server.url, tmp_path)
        n_requests = len(server.requests)
        shutil.move(tmp_path / "manifest.csv", tmp_path / "all.csv")
        events = [f"{line},complete" for line in (tmp_path / "all.csv").read_text().splitlines()[1:]]
        (tmp_path / UNFINISHED).write_text("\n".join(events) + "\n")
        for each in WANTED[:20]:
            (tmp_path / ".parts" / each.path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / each.path).rename(tmp_path / ".parts" / each.path)
        fetch(server.url, tmp_path)
        assert len(server.requests) == n_requests
    assert named(tmp_path) == files
    assert (tmp_path / "manifest.csv").read_text() == (tmp_path / "all.csv").read_text()


@pytest.mark.parametrize("n_lost", [1, 2, 30, 150])
def test_a_torn_journal_costs_the_torn_line_only(n_lost: int, files: dict[str, bytes], tmp_path: Path) -> None:
    with ArchiveServer(files) as server:
        fetch(server.url, tmp_path)
        n_requests = len(server.requests)
        lines = (tmp_path / "manifest.csv").read_text().splitlines()[1:]
        (tmp_path / "manifest.csv").unlink()
        journal = "".join(f"{line},complete\n" for line in lines)
        (tmp_path / UNFINISHED).write_text(journal[:-n_lost])
        fetch(server.url, tmp_path)
        n_torn = 2 if n_lost > len(lines[-1]) else 1
        assert len(server.requests) - n_requests <= n_torn
    assert named(tmp_path) == files
    assert len(read_manifest(tmp_path / "manifest.csv")) == len(WANTED)
