"""The engine: deepsky's own stages in warm workers, on this machine or behind a scheduler that runs elsewhere."""

import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from distributed import Client
from mlflow.tracking import MlflowClient
from ruamel.yaml import YAML

from deepsky.pipeline.children import Children, Ended
from deepsky.pipeline.worker import resource_of
from tests.clusters import scheduler, worker
from tests.run_project import write_params, write_project
from tests.test_repro import CLOCK, ENV, SRC, dvc, init, living, repro, start

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
    init()
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
    assert len(tags("mlflow.deepsky.pid")) == 1, "one warm process"
    assert tags("mlflow.deepsky.stage") == {"net", "again"}
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
    for name in ("plan.yaml", "versions.json"):
        assert (project / name).read_text() == (plain / name).read_text()
    ours, theirs = (YAML(typ="safe").load(root / "dvc.lock") for root in (project, plain))
    assert ours == theirs, "but for the order, in which stages end"
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
    write_params(project, ["net"], epochs=60)  # long enough to be caught
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
    bad = "  bad: {cmd: deepsky plan --out bad/plan.yaml, deps: [params.yaml], outs: [bad/plan.yaml]}\n"
    Path("dvc.yaml").write_text(TWO + bad)
    # It ends its own process, as the kernel does when the memory is full.
    Path("sitecustomize.py").write_text(
        "import os, sys\n"
        "def guard(event, args):\n"
        "    if event == 'os.mkdir' and str(args[0]) == 'bad' and sys.argv[1] == 'plan':\n"
        "        os.kill(os.getpid(), 9)\n"
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


def test_a_worker_that_has_grown_makes_room_for_a_new_one(project):
    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_RSS, (2**27, 2**27))  # Linux grants more; the engine plans with it

    process = subprocess.run(
        ["deepsky", "repro", "--jobs", "2"], env=ENV, capture_output=True, text=True, preexec_fn=little_memory
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "died" not in process.stdout
    assert len(tags("mlflow.deepsky.pid")) == 2
    assert not living()


def test_what_a_killed_worker_started_is_killed_as_well(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Children() as children:
        children.start_worker("worker 1", ["bash", "-c", "sleep 1000 & echo said; kill -9 $$"])
        ended = children.next_ended(60)
        assert ended == Ended("worker 1", -9, "said\n")
        until(lambda: not living(), "the end of sleep")


def test_code_that_changes_while_stages_run_is_one_line(project, tmp_path):
    """A worker that is started then would run other code than the engine has planned with."""
    shutil.copytree(SRC / "deepsky", tmp_path / "src/deepsky", ignore=shutil.ignore_patterns("__pycache__"))
    write_params(project, ["net"], epochs=3000)
    process = start("deepsky", "repro", "--jobs", "1", env=ENV | {"PYTHONPATH": str(tmp_path / "src")})
    until(is_training, "a training")
    with (tmp_path / "src/deepsky/errors.py").open("a") as file:
        file.write("# changed\n")
    (worker,) = workers_of(process)
    worker.kill()
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert stderr == "error: src/deepsky: changed while its stages ran; run this again\n"
    assert not living()


def test_a_full_disk_fails_the_stage_that_met_it_and_no_other(project):
    Path("logs").mkdir()
    Path("logs/net.log").symlink_to("/dev/full")
    returncode, stdout, stderr = repro("--jobs", "1")
    assert (returncode, stderr) == (1, "error: stage net: failed; its own line above says why\n")
    assert "No space left on device; free space or permission is missing, mend it and rerun\n" in stdout
    assert Path("models/trained/toy/again/model.h5").exists()
    Path("logs/net.log").unlink()
    assert repro()[0] == 0


def test_ctrl_c_ends_a_training_at_once_and_closes_its_run(project):
    write_params(project, ["net"], epochs=3000)
    process = start("deepsky", "repro", "--jobs", "1")
    until(is_training, "a training")
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    assert time.monotonic() - begun < 15
    assert process.returncode == 128 + signal.SIGINT
    assert not re.search(r"\] .* (net|again)", stdout), "neither has ended"
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


ONLY = """
stages:
  plan: {cmd: echo > plan.yaml, deps: [params.yaml], outs: [plan.yaml]}
  train_run:
    foreach: [net, votes_net]
    do: {cmd: "test ${item} = votes_net && echo > ${item}", deps: [plan.yaml], outs: ["${item}"]}
  evaluate: {cmd: ls net votes_net > evaluation.txt || true, deps: [plan.yaml], outs: [evaluation.txt]}
  report: {cmd: cp evaluation.txt report.txt, deps: [evaluation.txt], outs: [report.txt]}
"""


def test_of_some_runs_too_what_is_there_is_shown_though_one_failed(project):
    write_params(project, ["net", "votes_net"])
    Path("dvc.yaml").write_text(ONLY)
    returncode, _, stderr = repro("--only", "net", "votes_net")
    assert (returncode, stderr) == (1, "error: stage train_run@net: failed; its own line above says why\n")
    assert Path("report.txt").read_text() == "votes_net\n"


def test_garbage_that_a_stage_prints_harms_nothing(project):
    Path("garbage.py").write_text(
        "import sys\n"
        "sys.stdout.buffer.write(b'\\377\\376[bold]\\033[31mred\\033]0;title\\007' + b'x' * 5_000_000 + b'\\n')\n"
        "sys.stdout.buffer.write(b'again and again\\n' * 20_000 + b'the end')\n"
    )
    Path("dvc.yaml").write_text(
        f"stages: {{odd: {{cmd: {sys.executable} garbage.py; echo > a, deps: [params.yaml], outs: [a]}}}}"
    )
    returncode, stdout, stderr = repro()
    assert (returncode, stderr) == (0, "")
    assert "[bold]redx" in stdout
    assert "the end" in stdout
    assert "\033" not in stdout
    assert len(stdout) < 10_000


# ---- a scheduler that runs elsewhere ----


def test_stages_run_on_workers_that_a_person_started(project, tmp_path):
    (tmp_path / "other").mkdir()
    with (
        scheduler(ENV) as (address, _),
        worker(address, tmp_path / "other", ENV),
        worker(address, project, ENV) as ours,
    ):
        returncode, stdout, stderr = repro("--scheduler", address)
        assert returncode == 0, stdout + stderr
        assert tags("mlflow.deepsky.pid") == {str(ours.pid)}, "one in another folder gets nothing"
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
    with scheduler(ENV) as (address, process), worker(address, project, ENV) as ours:
        run = start("deepsky", "repro", "--jobs", "1", "--scheduler", address)
        until(is_training, "a training")
        process.kill()
        _, stderr = run.communicate(timeout=120)
        assert run.returncode == 1
        assert re.fullmatch(rf"error: {address}: the scheduler went away; .*\n", stderr)
        _, said = ours.communicate(timeout=60)
        assert ours.returncode == 1
        assert said == f"error: {address}: went away in the middle of a stage; start it and its workers again\n"
    assert statuses() == ["KILLED"]
    assert "plan" in Path("dvc.lock").read_text(), "what was done is kept"


@pytest.mark.parametrize(
    ("address", "line"),
    [
        (
            "tcp://127.0.0.1:9",
            r"scheduler tcp://127.0.0.1:9: does not answer \(.*\); start one there: dask scheduler",
        ),
        ("tcp://192.0.2.1:8786", r"scheduler tcp://192.0.2.1:8786: would send code over the network unprotected; .*"),
        ("localhost", r"scheduler localhost: is no address; give tls://HOST:PORT or tcp://127.0.0.1:PORT"),
    ],
)
def test_a_wrong_scheduler_is_one_line(project, address, line):
    quickly = ENV | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s"}
    for command in (("repro", "--scheduler", address), ("worker", address)):
        done = subprocess.run(["deepsky", *command], env=quickly, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert re.fullmatch(rf"error: {line}\n", done.stderr)


def test_a_scheduler_without_a_worker_for_this_project_is_one_line(project, tmp_path):
    (tmp_path / "other").mkdir()
    impatient = ENV | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "8s"}
    with scheduler(ENV) as (address, _):
        returncode, _, stderr = repro("--scheduler", address, env=impatient)
        assert returncode == 1
        assert re.fullmatch(rf"error: {address}: has no worker for this project; run deepsky worker .*\n", stderr)
        with worker(address, tmp_path / "other", ENV), Client(address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            _, _, stderr = repro("--scheduler", address, env=impatient)
        assert "(those that are there have another project)" in stderr
        with worker(address, project, ENV), Client(address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            params = project / "params.yaml"
            params.write_text(params.read_text() + "\ndeterministic: true\n")
            _, _, stderr = repro("--scheduler", address, env=impatient)
    assert "(those that are there have another deterministic)" in stderr


def test_a_worker_of_another_backend_is_another_one(project, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    under_jax = resource_of(project)
    monkeypatch.delenv("KERAS_BACKEND")
    assert under_jax != resource_of(project) == resource_of(project)


def test_a_worker_that_does_not_ask_a_gpu_for_the_same_bytes_is_another_one(project):
    as_it_was = resource_of(project)
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "\ndeterministic: true\n")
    assert resource_of(project) != as_it_was


def test_the_scheduler_of_a_repro_is_for_its_owner_alone_and_sigterm_ends_all(project):
    write_params(project, ["net"], epochs=3000)
    process = start("deepsky", "repro", "--jobs", "1")
    until(is_training, "a training")
    (ours,) = workers_of(process)
    address = next(word for word in ours.cmdline() if word.startswith("tls://"))
    for one in [psutil.Process(process.pid), ours]:
        for connection in one.net_connections():
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip == "127.0.0.1"
    client = "from distributed import Client\nfrom distributed.security import Security\n"
    stranger = f"Client('{address.replace('tls', 'tcp')}', timeout=5)"
    ca, cert, key = (
        ours.environ()[f"DASK_DISTRIBUTED__COMM__TLS__{name}"] for name in ("CA_FILE", "WORKER__CERT", "WORKER__KEY")
    )
    owner = (
        f"Client('{address}', security=Security(tls_ca_file='{ca}', tls_client_cert='{cert}', tls_client_key='{key}'))"
    )
    assert subprocess.run([sys.executable, "-c", client + stranger], env=ENV, capture_output=True).returncode != 0
    assert subprocess.run([sys.executable, "-c", client + owner], env=ENV, capture_output=True).returncode == 0
    assert Path(key).parent.stat().st_mode & 0o077 == 0
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert statuses() == ["KILLED"]
    assert not living()
    assert not Path(key).exists()
