"""Many frames from a server on this machine: ours against aria2c, or wget under xargs, with as many connections.

    python benchmarks/download.py [--n-files 1000] [--connections 4] [--rounds 2]

The server is a process of its own: 50 ms latency per request, then sendfile. Files are frames of 3 MB; 16 are distinct
in content, all in name. Ours checks every file (length, first block, header, end mark) and hashes it; the others
write what comes. Rounds alternate the order. Then: our peak memory at N and at N/10 files, and the seconds that a
fetch takes to find that everything is there, with 10,000 and 100,000 small files.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from tests.archive_server import frame_content  # noqa: E402

from deepsky.archives.downloader import fetch_all  # noqa: E402
from deepsky.archives.manifest import Receipt, write_manifest  # noqa: E402
from deepsky.archives.params import DownloadParams  # noqa: E402
from deepsky.archives.wanted import Wanted  # noqa: E402

TARGET, FILE_BYTES, N_DISTINCT, LATENCY_S = 0.9, 3_000_000, 16, 0.05
HOST = "http://archive.example"
SERVER = """
import sys, time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
class Handler(SimpleHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    def do_GET(self):
        time.sleep(float(sys.argv[2]))
        with (Path(sys.argv[1]) / str(int(self.path.rpartition("/")[2]) % int(sys.argv[3]))).open("rb") as file:
            self.send_response(200)
            self.send_header("Content-Length", str(Path(file.name).stat().st_size))
            self.send_header("ETag", '"1"')
            self.end_headers()
            self.wfile.flush()
            self.connection.sendfile(file)
    def log_message(self, *_): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-files", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ours", help=argparse.SUPPRESS)  # a child: URL,OUT,N
    options = parser.parse_args()
    if options.ours:
        ours_in_this_process(options.ours, options.connections)
        return
    os.environ["NO_PROXY"] = "127.0.0.1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        needed = options.n_files * FILE_BYTES * 1.5
        if shutil.disk_usage(folder).free < needed:
            sys.exit(f"{folder}: {needed / 1e9:.1f} GB must be free; set TMPDIR, or lower --n-files")
        compare(folder, options)
        for n_files in (10_000, 100_000):
            print(f"{n_files:,} files there already: start and finish {all_there_s(folder / 'raw', n_files):.1f} s")


def compare(folder: Path, options: argparse.Namespace) -> None:
    write_content(folder / "content")
    command = [sys.executable, "-c", SERVER, str(folder / "content"), str(LATENCY_S), str(N_DISTINCT)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        theirs = "aria2c" if shutil.which("aria2c") else "wget under xargs"
        ways: list[tuple[str, Callable[[], float]]] = [
            ("ours", lambda: ours_s(url, folder / "out", options.n_files, options.connections)[0]),
            (theirs, lambda: theirs_s(theirs, url, folder / "out", options.n_files, options.connections)),
        ]
        best = dict.fromkeys(("ours", theirs), 0.0)
        for number in range(options.rounds):
            for way, run in ways if number % 2 == 0 else reversed(ways):
                speed = options.n_files * FILE_BYTES / 1e6 / run()
                best[way] = max(best[way], speed)
        print(
            ", ".join(f"{way} {speed:.0f} MB/s" for way, speed in best.items()), f"({options.connections} connections)"
        )
        print(f"download ratio {best['ours'] / best[theirs]:.2f} (target >= {TARGET})")
        for n_files in (options.n_files // 10, options.n_files):
            rss = ours_s(url, folder / "out", n_files, options.connections)[1]
            print(f"peak memory with {n_files} files {rss:.0f} MB")
    finally:
        server.terminate()
        server.wait()


def write_content(folder: Path) -> None:
    """Write distinct frames of a real one's size and compressibility."""
    folder.mkdir()
    for number in range(N_DISTINCT):
        content = frame_content(1, 1, 1 + number, "r", noisy_rows=1489)
        (folder / str(number)).write_bytes(content)


def wanted_frames(n_files: int) -> list[Wanted]:
    return [
        Wanted(f"frames/{n}.fits.bz2", f"{HOST}/f/{n}", "frame", (1, 1, 1 + n % N_DISTINCT, "r"))
        for n in range(n_files)
    ]


def ours_in_this_process(told: str, connections: int) -> None:
    url, out, n_files = told.split(",")
    params = DownloadParams(url, connections, None, 60, 3, None)
    started = time.perf_counter()
    fetch_all(wanted_frames(int(n_files)), [], Path(out), params, missing="stop", retry_failed=False)
    print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def ours_s(url: str, out: Path, n_files: int, connections: int) -> tuple[float, float]:
    """Return seconds, without the start of Python, and peak memory in MB."""
    command = [sys.executable, __file__, "--ours", f"{url},{out},{n_files}", "--connections", str(connections)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    shutil.rmtree(out)
    seconds, megabytes = map(float, said.split())
    return seconds, megabytes


def theirs_s(program: str, url: str, out: Path, n_files: int, connections: int) -> float:
    out.mkdir()
    (out / "list").write_text("".join(f"{url}/f/{n}\n" for n in range(n_files)))
    if program == "aria2c":
        command = f"aria2c -q -i list -j {connections} -x 1 --file-allocation=none"
    else:
        command = f"xargs -P {connections} -n 16 wget -q < list"
    started = time.perf_counter()
    subprocess.run(command, shell=True, cwd=out, check=True)
    seconds = time.perf_counter() - started
    n_came = len(list(out.iterdir())) - 1
    assert n_came == n_files, f"{program} brought {n_came} files"
    shutil.rmtree(out)
    return seconds


def all_there_s(out: Path, n_files: int) -> float:
    """Time a fetch that has nothing to do; nobody answers at the address, so a request would fail."""
    wanted = [Wanted(f"sdss_jpg/{n}.jpg", f"{HOST}/jpg?{n}", "jpeg", (0.0, 0.0)) for n in range(n_files)]
    (out / "sdss_jpg").mkdir(parents=True)
    for each in wanted:
        (out / each.path).write_bytes(b"1")
    write_manifest([Receipt(each.path, each.url, 1, "0" * 64, "", '"1"') for each in wanted], out)
    started = time.perf_counter()
    params = DownloadParams("http://127.0.0.1:9", 4, None, 1, 1, None)
    fetch_all(wanted, [], out, params, missing="stop", retry_failed=False)
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


if __name__ == "__main__":
    main()
