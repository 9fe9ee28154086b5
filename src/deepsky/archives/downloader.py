"""Fetch many files from several hosts side by side; what has come stays, whatever happens."""

import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deepsky import progress
from deepsky.archives.addresses import FOLDERS
from deepsky.archives.answers import Failed, Left
from deepsky.archives.checks import check_content
from deepsky.archives.http import Client
from deepsky.archives.journal import Journal, sort_out
from deepsky.archives.manifest import FAILURES, Absent, Receipt, read_absent
from deepsky.archives.params import DownloadParams
from deepsky.archives.wanted import Wanted
from deepsky.errors import DataError

UNREACHABLE_AFTER = 10  # files in a row
LACKING_AFTER = 20  # first files
LEAVING_S = 2.0
CHECKERS = 2  # threads beyond the connections: files are checked while these go on
Result = tuple[Wanted, BaseException | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a fetch did: files that came, that the archives do not have, and that failed; and bytes that came."""

    n_fetched: int
    n_missing: int
    n_failed: int
    n_bytes: int


def fetch_all(
    wanted: Sequence[Wanted],
    absent: Sequence[Absent],
    out: Path,
    params: DownloadParams,
    *,
    missing: Literal["skip", "stop"],
    on_failure: Literal["skip", "stop"] = "stop",
    retry_failed: bool = False,
) -> Outcome:
    """Fetch what is not there yet, set aside what is no longer wanted, and write the manifest.

    Args:
        wanted: the files; distinct paths.
        absent: files known to be missing without asking.
        out: the folder of raw files; gets FOLDERS and manifest.csv.
        params: how to ask.
        missing: ``stop`` ends with an error when an archive lacks a file, after all others have come.
        on_failure: ``skip`` is content with listing in out/failures.csv what could not be had.
        retry_failed: fetch only what out/failures.csv lists.

    Raises:
        DataError: files failed or are missing and that is to stop, a host cannot be reached, or the disk refuses.
            What has come is kept.
    """
    client = Client(params)
    try:
        with Journal(out, trust_missing=retry_failed) as journal:
            for name in FOLDERS:
                (out / name).mkdir(parents=True, exist_ok=True)
                if (out / name).stat().st_dev != out.stat().st_dev:  # files get their names by rename
                    raise DataError(out / name, f"is on another disk than {out}", f"link {out} as a whole instead")
            lacking = sort_out(out, wanted, journal)
            todo = _listed(lacking, out) if retry_failed else lacking
            fetch = _Fetch(client, journal, out)
            failures = fetch.run(todo)
            gone = journal.finish(wanted, absent, failures)
    except OSError as error:
        remedy = "free the disk or choose a folder you may write to, then run again: what has come is kept"
        raise DataError(error.filename or out, f"cannot be written ({error.strerror or error})", remedy) from error
    if failures and on_failure == "stop":
        first = f"first {failures[0].path}: {failures[0].reason}"
        problem = f"{len(failures)} of {len(wanted)} files failed; {first}"
        raise DataError(out / FAILURES, problem, "run deepsky fetch --retry-failed, or set on_bad_file: skip")
    if len(todo) < len(lacking):
        problem = f"{len(lacking) - len(todo)} wanted files were never asked for"
        raise DataError(out, problem, "run the stage fetch without --retry-failed")
    if missing == "stop" and gone:
        problem = f"the archives lack {len(gone)} files; first {gone[0].path}: {gone[0].reason}"
        raise DataError(out, problem, "set archive.missing: skip, or drop their objects")
    n_fetched = sum(each.path in journal.receipts for each in todo)
    return Outcome(n_fetched, len(gone), len(failures), fetch.n_bytes)


def _listed(lacking: Sequence[Wanted], out: Path) -> list[Wanted]:
    """Keep those that out/failures.csv lists."""
    if not (out / FAILURES).exists():
        raise DataError(out / FAILURES, "is not there: no file has failed", "run the stage without --retry-failed")
    listed = {row.path for row in read_absent(out / FAILURES)}
    return [each for each in lacking if each.path in listed]


class _Fetch:
    """The threads of one fetch; each host has its own and its own queue."""

    def __init__(self, client: Client, journal: Journal, out: Path) -> None:
        self._client, self._journal, self._out = client, journal, out
        self._results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._lock, self.n_bytes, self._started_s = threading.Lock(), 0, time.monotonic()

    def run(self, todo: Sequence[Wanted]) -> list[Absent]:
        """Fetch all; return those that failed.

        Raises:
            DataError: a host cannot be reached.
            OSError: the disk refuses.
        """
        if not todo:
            return []
        hosts, threads = dict[str, deque[Wanted]](), list[threading.Thread]()
        for each in todo:
            hosts.setdefault(_host(each), deque()).append(each)
        try:
            for waiting in hosts.values():
                for _ in range(min(self._client.params.connections + CHECKERS, len(waiting))):
                    # Daemons: Ctrl-C must not wait for a server that stalls.
                    threads.append(threading.Thread(target=self._work, args=(waiting,), daemon=True))
                    threads[-1].start()
            return self._collect(len(todo))
        finally:
            self._client.leave()
            until_s = time.monotonic() + LEAVING_S
            for thread in threads:  # one that the interpreter's end meets in native code aborts it
                thread.join(max(0.0, until_s - time.monotonic()))

    def _collect(self, n_files: int) -> list[Absent]:
        failures, in_a_row, in_all = list[Absent](), dict[str, int](), dict[str, int]()
        with _bar() as bar:
            task = bar.add_task("fetch", total=n_files, said="")
            for n_done in range(1, n_files + 1):
                each, error = self._results.get()
                progress.tell(n_done, n_files)
                seconds = max(time.monotonic() - self._started_s, 0.001)
                said = f"{self.n_bytes / 1e6:.1f} MB, {self.n_bytes / 1e6 / seconds:.1f} MB/s"
                bar.update(task, advance=1, said=said)
                if error is not None and not isinstance(error, Failed):
                    raise error
                host = _host(each)
                # Not a 500: that may be one object's.
                is_down = error and (error.sort in ("connection", "refused") or error.status in (429, 502, 503, 504))
                in_a_row[host] = in_a_row.get(host, 0) + 1 if is_down else 0
                in_all[host] = in_all.get(host, 0) + 1
                if in_all[host] == LACKING_AFTER and self._lacks_all(host, LACKING_AFTER):
                    problem = f"has none of the first {LACKING_AFTER} files asked for"
                    remedy = "correct download.mirror, the releases of section archive or the catalogue"
                    raise DataError(self._asked(host), problem, remedy)
                if error:
                    failures.append(Absent(each.path, each.url, error.reason))
                if error and in_a_row[host] >= UNREACHABLE_AFTER:
                    problem = f"{UNREACHABLE_AFTER} files in a row failed, the last: {error.reason}"
                    remedy = "check the network, HTTPS_PROXY and download.mirror; run again: what has come is kept"
                    raise DataError(self._asked(host), problem, remedy) from error
        return sorted(failures, key=lambda row: row.path)

    def _asked(self, host: str) -> str:
        mirror = self._client.params.mirror
        return f"{mirror} for {host}" if mirror else host

    def _lacks_all(self, host: str, n_files: int) -> bool:
        """Say whether all of the first files of a host are missing: that is an address gone wrong, not a gap."""
        lacking = sum(urlsplit(row.url).netloc == host for row in list(self._journal.missing.values()))
        there = any(urlsplit(row.url).netloc == host for row in list(self._journal.receipts.values()))
        return lacking >= n_files and not there

    def _work(self, waiting: deque[Wanted]) -> None:
        while True:
            try:
                each = waiting.popleft()
            except IndexError:
                return
            try:
                self._fetch(each)
                result: Result = each, None
            except Left:
                return
            except BaseException as error:
                result = each, error
            self._results.put(result)

    def _fetch(self, wanted: Wanted) -> None:
        part, final = self._journal.part(wanted.path), self._out / wanted.path
        part.parent.mkdir(parents=True, exist_ok=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            receipt = self._client.persist(wanted.url, lambda: self._try(wanted, part))
        except Failed as failed:
            if failed.sort != "missing":
                raise
            self._journal.lacks(Absent(wanted.path, wanted.url, failed.reason))
        else:
            self._journal.arrived(receipt, part)

    def _try(self, wanted: Wanted, part: Path) -> Receipt:
        arrival = self._client.fetch(
            wanted.url,
            part,
            known=self._journal.known(wanted),
            begin=lambda version: self._journal.begin(wanted, version),
            advance=self._advance,
        )
        try:
            check_content(part, wanted, whole=arrival.spliced)
        except Failed:
            part.unlink()  # bad bytes are nothing to go on from
            raise
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        version = arrival.version
        mirror = self._client.params.mirror or ""
        return Receipt(
            wanted.path, wanted.url, arrival.bytes, arrival.digest, now, version.etag, version.last_modified, mirror
        )

    def _advance(self, n_bytes: int) -> None:
        with self._lock:
            self.n_bytes += n_bytes


def _host(wanted: Wanted) -> str:
    return urlsplit(wanted.url).netloc


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=2,
    )
