"""The engine: deepsky's own stages in warm workers, on this machine or behind a scheduler that runs elsewhere."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from mlflow.tracking import MlflowClient

from tests.run_project import write_params, write_project
from tests.test_repro import CLOCK, ENV, dvc, living, repro, start

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")  # pygtrie in DVC

TRAIN = """
  {name}:
    cmd: >-
      deepsky train {run} --packed data/packed/toy --split data/splits/toy.csv --features data/features/toy/cnn_small
      --weights models/pretrained/cnn_small --out models/trained/toy/{name}
    params: [{{versions.json: [train.{run}]}}]
    deps: [data/packed/toy, data/splits/toy.csv]
    outs: [models/trained/toy/{name}]
"""
PLAN = """
stages:
  plan: {cmd: deepsky plan, deps: [params.yaml], outs: [plan.yaml, versions.json]}
  toy:
    cmd: mkdir -p data/packed data/splits; cp -r given/toy data/packed/toy; cp given/toy.csv data/splits/toy.csv
    deps: [given]
    outs: [data/packed/toy, data/splits/toy.csv]
"""
# Its settings are the plan's; that the second is entered under another name makes two equal trainings.
OUTPUTS = ("models/trained", "data/packed", "data/splits", "plan.yaml", "versions.json")
TWO = PLAN + TRAIN.format(name="net", run="net") + TRAIN.format(name="again", run="net")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project with toy galaxies and the run net, as working directory."""
    root = write_project(tmp_path / "project", monkeypatch)
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    subprocess.run(["git", "init", "--quiet"], check=True)
    dvc("init", "--quiet")
    write_params(root, ["net"], epochs=2)
    Path("given").mkdir()
    Path("data/packed/toy").rename("given/toy")
    Path("data/splits/toy.csv").rename("given/toy.csv")
    Path("dvc.yaml").write_text(TWO)
    return root


def statuses() -> list[str]:
    client = MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    return sorted(run.info.status for run in client.search_runs([e.experiment_id for e in client.search_experiments()]))


def tags(name: str) -> set[str]:
    """The values of a tag, over all MLflow runs."""
    client = MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return {run.data.tags[name] for run in found}


def workers_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if "worker" in child.cmdline()]


def is_training() -> bool:
    log = Path("mlflow.db")
    return log.exists() and "RUNNING" in statuses()


def until(condition: object, what: str, seconds: float = 120) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.05)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_stages_share_a_process_and_leave_what_plain_dvc_repro_leaves(project, tmp_path, monkeypatch):
    returncode, stdout, stderr = repro("--jobs", "1")
    assert returncode == 0, stdout + stderr
    assert re.search(rf"\[\d/4\] {CLOCK} net, \d+ s\n    net \(cnn_small, scratch weights\): val_accuracy", stdout)
    assert len(tags("deepsky.pid")) == 1, "one warm process"
    assert tags("deepsky.stage") == {"net", "again"}
    assert "val_accuracy" in Path("logs/net.log").read_text()
    assert not living()
    plain = tmp_path / "plain"
    subprocess.run(["cp", "-r", str(project), str(plain)], check=True)
    monkeypatch.chdir(plain)
    for name in (
        "models/trained",
        "data/packed",
        "data/splits",
        "plan.yaml",
        "versions.json",
        "dvc.lock",
        ".dvc/cache",
        ".dvc/tmp",
    ):
        subprocess.run(["rm", "-rf", name], check=True)
    dvc("repro")
    for name in ("models/trained", ".dvc/cache/files"):
        assert files_of(project / name) == files_of(plain / name)
    for name in ("plan.yaml", "versions.json", "dvc.lock"):
        assert (project / name).read_text() == (plain / name).read_text()
    assert "up to date" in dvc("status")


def test_dry_says_what_would_run_and_why_and_writes_nothing(project):
    assert repro("--dry")[1].splitlines()[-1] == "4 stages"
    assert not Path("plan.yaml").exists()
    returncode, stdout, stderr = repro()
    assert returncode == 0, stdout + stderr
    assert repro("--dry")[1] == "everything is up to date\n"
    before = Path("plan.yaml").read_bytes()
    write_params(project, ["net"], epochs=3)
    Path("models/trained/toy/again/run.json").unlink()
    _, stdout, _ = repro("--dry")
    assert stdout.splitlines() == [
        "plan: params.yaml changed",
        "net: its settings or its code changed",
        "again: its settings or its code changed; models/trained/toy/again changed",
        "3 stages",
    ]
    assert Path("plan.yaml").read_bytes() == before


def test_a_stage_whose_worker_dies_runs_once_more(project):
    write_params(project, ["net"], epochs=60)
    process = start("deepsky", "repro", "--jobs", "1")
    until(is_training, "a training")
    (worker,) = workers_of(process)
    worker.kill()
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stdout + stderr
    assert re.search(r"(net|again): its worker died; it runs once more\n", stdout)
    assert statuses() == ["FINISHED", "FINISHED", "KILLED"]
    assert Path("models/trained/toy/net/model.h5").exists()
    assert not living()


def test_a_stage_whose_workers_die_twice_has_failed_and_the_rest_goes_on(project):
    write_params(project, ["net"], epochs=2)
    # It ends its own process, as the kernel does when the memory is full.
    bad = "  bad: {cmd: deepsky worker --help, wdir: elsewhere, deps: [../params.yaml], outs: [bad.txt]}\n"
    Path("dvc.yaml").write_text(TWO + bad)
    Path("elsewhere").mkdir()
    kill = "import os, sys\nif sys.argv[1:3] == ['worker', '--help']: os.kill(os.getpid(), 9)\n"
    Path("sitecustomize.py").write_text(
        "import sys, threading\n"
        "def guard(event, args):\n"
        "    if event == 'os.chdir' and sys.argv[1:3] == ['worker', '--help']:\n"
        f"        exec({kill!r})\n"
        "sys.addaudithook(guard)\n"
    )
    process = subprocess.run(
        ["deepsky", "repro", "--jobs", "2"],
        env=ENV | {"PYTHONPATH": f"{project}:{ENV['PYTHONPATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 1, process.stdout + process.stderr
    assert process.stdout.count("bad: its worker died; it runs once more") == 1
    assert "ERROR: its worker died 2 times; is there too little memory? --jobs 1 needs less" in process.stdout
    assert process.stderr == "error: stage bad: failed; its own line above says why\n", process.stdout
    assert {path.name for path in Path("models/trained/toy").iterdir()} >= {"net", "again"}
    assert not living()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_training_at_once_and_closes_its_run(project, number):
    write_params(project, ["net"], epochs=3000)
    process = start("deepsky", "repro", "--jobs", "1")
    until(is_training, "a training")
    begun = time.monotonic()
    process.send_signal(number)
    stdout, _ = process.communicate(timeout=60)
    assert time.monotonic() - begun < 15
    assert process.returncode == 128 + number
    assert "net" not in stdout
    assert "again" not in stdout
    assert statuses() == ["KILLED"]
    assert not living()
    assert not Path("models/trained/toy").exists() or not list(Path("models/trained/toy").iterdir())


SHOWS = """
stages:
  plan: {cmd: mkdir -p shown && echo > shown/plan.txt, deps: [params.yaml], outs: [shown/plan.txt]}
  good: {cmd: echo > shown/good.txt, deps: [shown/plan.txt], outs: [shown/good.txt]}
  bad: {cmd: exit 3, deps: [shown/plan.txt], outs: [shown/bad.txt]}
  after: {cmd: echo > after.txt, deps: [shown/bad.txt], outs: [after.txt]}
  evaluate: {cmd: ls shown > evaluation.txt, deps: [shown], outs: [evaluation.txt]}
  report: {cmd: cp evaluation.txt report.txt, deps: [evaluation.txt], outs: [report.txt]}
"""


def test_what_is_there_is_shown_though_a_stage_failed(project):
    Path("dvc.yaml").write_text(SHOWS)
    returncode, stdout, _ = repro()
    assert returncode == 1
    assert "not run, as they wait for what failed: after\n" in stdout
    assert Path("report.txt").read_text().split() == ["good.txt", "plan.txt"]
    Path("dvc.yaml").write_text(SHOWS.replace("exit 3", "echo > shown/bad.txt"))
    assert repro()[0] == 0
    assert "bad.txt" in Path("report.txt").read_text()


def test_garbage_that_a_stage_prints_harms_nothing(project):
    Path("dvc.yaml").write_text(
        "stages: {odd: {cmd: \"printf '\\\\377\\\\376[bold]\\\\033[31m%s' x; echo > a\", "
        "deps: [params.yaml], outs: [a]}}"
    )
    returncode, stdout, stderr = repro()
    assert (returncode, stderr) == (0, "")
    assert "[bold]" in stdout


# ---- a scheduler that runs elsewhere ----


@contextmanager
def scheduler() -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A Dask scheduler as a person starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show"]
    process = start(sys.executable, "-m", "distributed.cli.dask_scheduler", *command)
    try:
        yield f"tcp://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def worker(address: str, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A worker as a person starts it."""
    with subprocess.Popen(
        ["deepsky", "worker", address],
        cwd=folder,
        env=ENV,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_stages_run_on_workers_that_a_person_started(project, tmp_path):
    (tmp_path / "other").mkdir()
    with scheduler() as (address, _), worker(address, tmp_path / "other"), worker(address, project) as ours:
        returncode, stdout, stderr = repro("--scheduler", address)
        assert returncode == 0, stdout + stderr
        assert tags("deepsky.pid") == {str(ours.pid)}, "one in another folder gets nothing"
        assert ours.poll() is None
        write_params(project, ["net"], epochs=3000)
        process = start("deepsky", "repro", "--jobs", "1", "--scheduler", address)
        until(is_training, "a training")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
        until(lambda: not is_training(), "its end", 20)
        assert statuses() == ["FINISHED", "FINISHED", "KILLED"]
        write_params(project, ["net"], epochs=2)
        assert ours.poll() is None, "the worker is there for the next one"
        assert repro("--scheduler", address)[0] == 0


def test_a_scheduler_that_goes_away_is_one_line_and_its_worker_ends(project):
    write_params(project, ["net"], epochs=3000)
    with scheduler() as (address, process), worker(address, project) as ours:
        run = start("deepsky", "repro", "--jobs", "1", "--scheduler", address)
        until(is_training, "a training")
        process.kill()
        _, stderr = run.communicate(timeout=120)
        assert run.returncode == 1
        assert re.fullmatch(rf"error: {address}: the scheduler went away; .*\n", stderr)
        assert ours.wait(timeout=60) != 0
    assert statuses() == ["KILLED"]
    assert "plan" in Path("dvc.lock").read_text(), "what was done is kept"


@pytest.mark.parametrize(
    ("address", "line"),
    [
        (
            "tcp://127.0.0.1:9",
            r"--scheduler tcp://127.0.0.1:9: does not answer \(.*\); start one there: dask scheduler",
        ),
        ("tcp://192.0.2.1:8786", r"--scheduler tcp://192.0.2.1:8786: would send code over the network unprotected; .*"),
        ("localhost", r"--scheduler localhost: is no address; give tls://HOST:PORT or tcp://127.0.0.1:PORT"),
    ],
)
def test_a_wrong_scheduler_is_one_line(project, address, line):
    returncode, _, stderr = repro("--scheduler", address)
    assert returncode == 1
    assert re.fullmatch(rf"error: {line}\n", stderr)


def test_a_scheduler_without_a_worker_for_this_project_is_one_line(project, tmp_path):
    (tmp_path / "other").mkdir()
    with scheduler() as (address, _):
        returncode, _, stderr = repro("--scheduler", address)
        assert returncode == 1
        assert re.fullmatch(rf"error: {address}: has no worker for this project; run deepsky worker .*\n", stderr)
        with worker(address, tmp_path / "other"):
            _, _, stderr = repro("--scheduler", address)
    assert "(those that are there have another project)" in stderr


@pytest.mark.parametrize("jobs", ["0", "99"])
def test_jobs_out_of_range_are_one_line(project, jobs):
    process = subprocess.run(["deepsky", "repro", "--jobs", jobs], env=ENV, capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr == f"error: --jobs {jobs}: is out of range; give 1 to 64\n"


def test_the_scheduler_of_a_repro_is_for_its_owner_alone(project):
    write_params(project, ["net"], epochs=3000)
    process = start("deepsky", "repro", "--jobs", "1")
    until(is_training, "a training")
    (ours,) = workers_of(process)
    address = next(word for word in ours.cmdline() if word.startswith("tls://"))
    for one in [psutil.Process(process.pid), ours]:
        for connection in one.net_connections():
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip == "127.0.0.1"
    code = f"from distributed import Client; Client('{address.replace('tls', 'tcp')}', timeout=5)"
    assert subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True).returncode != 0
    keys = Path(ours.environ()["DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY"])
    assert keys.parent.stat().st_mode & 0o077 == 0
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert not keys.exists()
