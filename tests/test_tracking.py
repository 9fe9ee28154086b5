import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from deepsky.errors import TrackingError
from deepsky.files import whole_folder
from deepsky.tracking import store
from deepsky.tracking.delivery import Delivery
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import (
    Run,
    close_dead_runs,
    find_run,
    restored_run,
    run_key,
    run_params,
    training_run,
)
from deepsky.tracking.store import page_of_runs, prepare, project_root, tracking_uri, ui_command
from deepsky.tracking.tags import HIDDEN, is_alive, process_tags
from tests.trained_folders import make_project, write_trained

RUN = {
    "tracking": TrackingParams(experiment="sky"), "name": "sdss_jpg-mobilenet", "dataset": "sdss_jpg",
    "network": "mobilenet", "params": {}, "tags": {},
}  # fmt: skip
SCRIPT = """
import sys, time
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import training_run
facts = {"dataset": "sdss_jpg", "network": sys.argv[1], "params": {"n": 1}, "tags": {}}
with training_run(tracking=TrackingParams(experiment="sky"), name="a_run", **facts) as run:
    run.log_epochs([(1, {"accuracy": 0.5})])
    print("ready", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    return make_project(tmp_path, monkeypatch)


def _start(name, seconds=0.0, **where):
    command = [sys.executable, "-c", SCRIPT, name, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **where)


def _statuses():
    client, experiment = prepare("sky")
    return {run.data.tags["mlflow.deepsky.network"]: run.info.status for run in client.search_runs([experiment])}


# ---- where the store stands ----


def test_root_is_found_from_any_folder_of_the_project(tmp_path):
    (tmp_path / "dvc.yaml").touch()
    inside = tmp_path / "src" / "deep"
    inside.mkdir(parents=True)
    assert project_root(inside) == project_root(tmp_path) == tmp_path


def test_root_of_a_temporary_experiment_copy_is_the_project_itself(tmp_path):
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmpabc"
    copy.mkdir(parents=True)
    for folder in (tmp_path, copy):
        (folder / "dvc.yaml").touch()
    assert project_root(copy) == tmp_path


def test_outside_a_project_is_an_error(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrackingError, match=r"no dvc\.yaml.*MLFLOW_TRACKING_URI"):
        tracking_uri()


def test_uri_comes_from_the_environment_and_relative_paths_count_from_the_root(project, monkeypatch):
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    assert tracking_uri() == f"sqlite:///{project}/mlflow.db"
    command, environment = ui_command("127.0.0.1", 5000)
    assert "127.0.0.1" in command
    assert environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{project}/mlflow.db"
    assert environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == f"{project}/mlruns"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert tracking_uri() == f"sqlite:///{project}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert tracking_uri() == "http://localhost:5000"
    assert "MLFLOW_DEFAULT_ARTIFACT_ROOT" not in ui_command("127.0.0.1", 5000)[1]


def test_telemetry_is_off_unless_the_user_says_otherwise():
    code = "import os, deepsky.tracking; print(os.environ['MLFLOW_DISABLE_TELEMETRY'], os.environ['DO_NOT_TRACK'])"
    clean = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK")}

    def seen(env):
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout.split()

    assert seen(clean) == ["true", "true"]
    assert seen({**clean, "MLFLOW_DISABLE_TELEMETRY": "false"}) == ["false", "true"]


# ---- creating it ----


def test_four_processes_at_once_on_a_cold_store(tmp_path, monkeypatch):
    root = tmp_path / "a project"
    root.mkdir()
    make_project(root, monkeypatch)
    (root / "mlflow.db").unlink()
    started = [_start(f"net{k}") for k in range(4)]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert _statuses() == {f"net{k}": "FINISHED" for k in range(4)}
    assert not list(root.glob(".mlflow.*"))


def test_runs_of_one_dataset_that_start_together_all_name_it(project, monkeypatch):
    outs = "\n".join(f"    - {{path: data/{n}, hash: md5, md5: hash{n}, size: 1}}" for n in range(20))
    (project / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n  data:\n    cmd: true\n    outs:\n{outs}\n")
    monkeypatch.setenv("DVC_STAGE", "train")
    reads = [Path(f"data/{n}") for n in range(20)]
    prepare("sky")
    together = threading.Barrier(6)

    def start(number: int) -> int:
        together.wait()
        with training_run(**{**RUN, "name": f"run{number}"}, inputs=reads) as run:
            return len(MlflowClient(tracking_uri()).get_run(run.run_id).inputs.dataset_inputs)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(start, range(6))) == [20] * 6


def test_artifacts_go_below_the_root_wherever_the_process_stands(project, monkeypatch):
    (project / "below").mkdir()
    (project / "below" / "table.csv").write_text("a\n")
    monkeypatch.chdir(project / "below")
    with training_run(**RUN) as run:
        run.log_artifact(Path("table.csv"), "tables")
    assert [p.name for p in project.glob("mlruns/*/artifacts/tables/*")] == ["table.csv"]
    assert not (project / "below" / "mlruns").exists()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://127.0.0.1:9", "127.0.0.1:9"),
        ("file:///tmp/mlruns", "file"),
        ("ftp://somewhere", "ftp"),
        ("sqlite:////proc/none/mlflow.db", "/proc/none"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line(project, monkeypatch, uri, words):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrackingError, match=words) as caught:
        prepare("sky")
    assert "\n" not in str(caught.value)
    assert "MLFLOW_TRACKING_URI" in str(caught.value)


def test_a_file_that_is_no_database_is_refused_and_left_alone(project):
    (project / "mlflow.db").write_text("not a database, but someone's notes" * 9)
    with pytest.raises(TrackingError, match="not a database"):
        prepare("sky")
    assert (project / "mlflow.db").read_text().startswith("not a database")


def test_a_locked_database_is_refused(project, monkeypatch):
    monkeypatch.setattr(store, "_SQLITE_WAIT_S", 0.1)
    with closing(sqlite3.connect(project / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError, match="locked"):
            prepare("sky")


def test_a_deleted_experiment_is_refused(project):
    client, experiment = prepare("sky")
    client.delete_experiment(experiment)
    with pytest.raises(TrackingError, match="is deleted"):
        prepare("sky")


def test_no_message_or_command_line_holds_the_password(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9/?token=secret")
    with pytest.raises(TrackingError) as caught:
        prepare("sky")
    assert "secret" not in str(caught.value)
    assert not any("secret" in word for word in ui_command("127.0.0.1", 5000)[0])


# ---- one run ----


def test_a_run_holds_all_it_was_given(project):
    params = {"hidden_units": (1024, 512), "augment": {"flip": True}, "long": "x" * 7000}
    params |= {f"p{k}": k for k in range(150)}  # more than fit into one call
    with training_run(**RUN | {"params": params, "tags": {"weights": "random"}}) as run:
        for epoch in (1, 2):
            run.log_epochs([(epoch, {"accuracy": 0.4 * epoch, "val_loss": 1 / epoch})])
        run.log_metrics({"training_s": 3})
        run.set_tag("mlflow.deepsky.key", "abc")
    client = MlflowClient(tracking_uri())
    stored = client.get_run(run.run_id)
    assert (stored.info.status, stored.info.run_name) == ("FINISHED", "sdss_jpg-mobilenet")
    assert stored.data.params["hidden_units"] == "[1024, 512]"
    assert stored.data.params["augment.flip"] == "True"
    assert stored.data.params["p149"] == "149"
    assert "params/long.txt" in stored.data.params["long"]
    assert Path(client.download_artifacts(run.run_id, "params/long.txt")).read_text() == "x" * 7000
    assert [(m.step, m.value) for m in client.get_metric_history(run.run_id, "epoch/accuracy")] == [(1, 0.4), (2, 0.8)]
    assert stored.data.metrics["training_s"] == 3
    tags = stored.data.tags
    own = {key: tags[f"{HIDDEN}{key}"] for key in ("key", "run", "dataset", "network")}
    assert own == {"key": "abc", "run": "sdss_jpg-mobilenet", "dataset": "sdss_jpg", "network": "mobilenet"}
    assert "Random weights" in tags["mlflow.note.content"]
    shown = {name for name in tags if not name.startswith("mlflow.")}
    assert shown == {"deepsky.code", "deepsky.weights"}, "what the pages show"
    assert tags["mlflow.user"]
    assert find_run("sky", "abc").run_id == run.run_id
    assert find_run("sky", "other") is None


def test_a_copied_project_writes_into_itself_and_finds_its_old_artifacts(project, tmp_path_factory, monkeypatch):
    (project / "note.txt").write_text("old")
    with training_run(**RUN) as run:
        run.log_artifact(project / "note.txt")
    copy = tmp_path_factory.mktemp("copy") / "sky"
    shutil.copytree(project, copy)
    shutil.rmtree(project / "mlruns")
    monkeypatch.chdir(copy)
    prepare("sky")
    client = MlflowClient(tracking_uri())
    assert Path(client.download_artifacts(run.run_id, "note.txt")).read_text() == "old"
    with training_run(**RUN) as second:
        second.log_artifact(copy / "note.txt")
    assert {one.info.artifact_uri for one in client.search_runs(["1"])} == {
        f"{copy}/mlruns/{one.run_id}/artifacts" for one in (run, second)
    }
    monkeypatch.chdir(project)
    prepare("sky")
    assert MlflowClient(tracking_uri()).get_run(run.run_id).info.artifact_uri.startswith(f"{project}/mlruns/")


def test_the_machine_is_watched_where_wanted(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    for wanted in (True, False):
        with training_run(**RUN | {"tracking": TrackingParams(experiment="sky", system_metrics=wanted)}) as run:
            time.sleep(0.5)
        metrics = MlflowClient(tracking_uri()).get_run(run.run_id).data.metrics
        assert ("system/cpu_utilization_percentage" in metrics) == wanted


def test_the_page_of_runs_has_a_view_with_the_figures(project):
    client, experiment_id = prepare("sky")
    page = page_of_runs("sky")
    tags = client.get_experiment(experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    (key,) = re.findall(
        rf"^#/experiments/{experiment_id}/runs\?workflowType=machine_learning&viewStateShareKey=(\w+)$", page
    )
    state = json.loads(json.loads(tags[f"mlflow.sharedViewState.{key}"])["state"])
    assert "metrics.`test_accuracy`" in state["selectedColumns"]


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_that_breaks_says_so(project, error, status):
    def train():
        with training_run(**RUN) as run:
            run.set_tag("mlflow.deepsky.key", "abc")
            raise error("no more")

    with pytest.raises(error):
        train()
    assert _statuses() == {"mobilenet": status}
    assert find_run("sky", "abc") is None
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_killed_processes_leave_no_run_running(project):
    prepare("sky")
    terminated, killed = _start("terminated", 60), _start("killed", 60)
    for process in (terminated, killed):
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    assert close_dead_runs("sky") == 0  # they live
    terminated.terminate()
    killed.kill()
    terminated.communicate()
    assert terminated.returncode == 128 + signal.SIGTERM
    deadline = time.monotonic() + 20  # a zombie until it is waited for, and dead all the same
    while "Z" not in Path(f"/proc/{killed.pid}/stat").read_text().rpartition(")")[2] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _statuses() == {"terminated": "KILLED", "killed": "RUNNING"}
    assert close_dead_runs("sky") == 1
    assert _statuses() == {"terminated": "KILLED", "killed": "KILLED"}
    killed.communicate()


def test_a_new_process_with_a_dead_ones_id_does_not_keep_its_run_alive(project):
    with training_run(**RUN) as run:
        MlflowClient(tracking_uri()).set_tag(run.run_id, "mlflow.deepsky.process_start", "1.0")
        with training_run(**RUN | {"network": "vgg16"}):
            assert _statuses() == {"mobilenet": "KILLED", "vgg16": "RUNNING"}


def test_runs_of_another_machine_are_left_alone(project):
    with training_run(**RUN) as run:
        client = MlflowClient(tracking_uri())
        client.set_tag(run.run_id, "mlflow.deepsky.process_start", "1.0")
        client.set_tag(run.run_id, "mlflow.deepsky.host", f"not-{socket.gethostname()}")
        client.set_tag(run.run_id, "mlflow.deepsky.boot", "another")
        assert close_dead_runs("sky") == 0


def test_a_machine_that_was_started_anew_runs_nothing_of_before_and_a_container_is_not_seen_into(project):
    own = {**process_tags(), "mlflow.deepsky.pid": "1"}
    assert is_alive(process_tags()) is True
    assert is_alive(own | {"mlflow.deepsky.boot": "before"}) is False
    assert is_alive(own | {"mlflow.deepsky.container": "pid:[1]"}) is None
    old = {
        name: value for name, value in own.items() if name not in ("mlflow.deepsky.boot", "mlflow.deepsky.container")
    }
    assert is_alive(old) is False, "process 1 was not started then"


def test_a_restored_run_is_logged_as_its_training_was(project):
    trained = project / "models/trained/toy/net"
    write_trained(trained, run="toy-net")
    facts = json.loads((trained / "run.json").read_text())
    split = "{deps: [], params: {versions.json: {split.toy: a}}, outs: [{path: data/splits/toy.csv, md5: b}]}"
    train = "{deps: [{path: data/splits/toy.csv, md5: b}], outs: [{path: models/trained/toy/net, md5: c.dir}]}"
    (project / "dvc.lock").write_text(f"schema: '2.0'\nstages: {{split@toy: {split}, train@toy-net: {train}}}\n")
    (project / "plan.yaml").write_text("stages: {split: {toy: {group_by: field, seed: 7, code: abc}}}\n")
    came_of_it = {"n_epochs": 4, "kept_epoch": 2, "temperature_applied": 1.25}
    restored = restored_run(
        experiment="sky", trained=trained, facts=facts | came_of_it, history=[(1, {"accuracy": 0.5})]
    )
    fresh = RUN | {"name": "toy-net", "tags": {"weights": facts["weights"]}}
    fresh["params"] = run_params(facts) | {"split": {"group_by": "field", "seed": 7}}
    fresh |= {key: facts[key] for key in ("dataset", "network")}
    with training_run(**fresh) as run:
        pass
    client = MlflowClient(tracking_uri())
    one, other = (client.get_run(each.run_id) for each in (restored, run))
    assert one.data.params == other.data.params
    assert (one.data.params["learning_rate"], one.data.params["split.seed"]) == ("0.001", "7")
    assert one.data.metrics == {"epoch/accuracy": 0.5, "kept_epoch": 2, "temperature_applied": 1.25}
    assert one.info.run_name == other.info.run_name == "toy-net"
    shared = ["deepsky.weights", *(f"{HIDDEN}{key}" for key in ("run", "dataset", "network"))]
    assert [one.data.tags[key] for key in shared] == [other.data.tags[key] for key in shared]
    assert (one.data.tags["deepsky.restored"], "deepsky.restored" in other.data.tags) == ("true", False)


@pytest.mark.parametrize(
    ("weights", "more"), [("imagenet", {"data/features/toy", "models/pretrained"}), ("scratch", set())]
)
def test_a_restored_run_names_the_data_that_its_training_read(project, weights, more):
    trained = project / "models/trained/toy/net"
    write_trained(trained, run="toy-net", weights=weights)
    paths = ("data/packed/toy", "data/features/toy", "models/pretrained")
    made = ", ".join(f"{{path: {path}, md5: {number}a}}" for number, path in enumerate(paths))
    train = f"{{deps: [{made}], outs: [{{path: models/trained/toy/net}}]}}"
    stages = f"{{all: {{deps: [], outs: [{made}]}}, train@toy-net: {train}}}"
    (project / "dvc.lock").write_text(f"schema: '2.0'\nstages: {stages}\n")
    facts = json.loads((trained / "run.json").read_text())
    restored = restored_run(experiment="sky", trained=trained, facts=facts, history=[])
    tags, prefix = MlflowClient(tracking_uri()).get_run(restored.run_id).data.tags, f"{HIDDEN}data."
    assert {name.removeprefix(prefix) for name in tags if name.startswith(prefix)} == {"data/packed/toy"} | more


def test_key_follows_the_outputs(tmp_path):
    write_trained(tmp_path / "a" / "net", seed=1)
    write_trained(tmp_path / "b" / "net", seed=1, dataset="a")
    write_trained(tmp_path / "c" / "net", seed=2, dataset="a")
    keys = [run_key(tmp_path / name / "net") for name in "abc"]
    assert keys[0] == keys[1] != keys[2]
    (tmp_path / "c" / "net" / "run.json").unlink()
    with pytest.raises(TrackingError, match=r"run\.json"):
        run_key(tmp_path / "c" / "net")


# ---- the files of a run ----


def write_network(folder, network=b"weights", table="a\n"):
    with whole_folder(folder) as fresh:
        (fresh / "more").mkdir()
        (fresh / "model.h5").write_bytes(network)
        (fresh / "more" / "table.csv").write_text(table)
    return folder


def artifacts_of(run):
    return Path(MlflowClient(tracking_uri()).get_run(run.run_id).info.artifact_uri)


def test_a_network_is_linked_into_a_local_store_and_all_else_copied(project):
    trained = write_network(project / "models/net")
    with training_run(**RUN) as run:
        run.log_artifact(trained)
        run.log_artifact(trained / "model.h5", "alone")
    kept = artifacts_of(run)
    for place in ("model.h5", "alone/model.h5"):
        assert (kept / place).samefile(trained / "model.h5")
    table = kept / "more/table.csv"
    assert not table.samefile(trained / "more/table.csv")
    assert table.read_text() == "a\n"


def test_logging_again_writes_into_no_file_that_is_there(project):
    trained = write_network(project / "models/net", b"old", "old")
    with training_run(**RUN) as run:
        run.log_artifact(trained)
    kept = artifacts_of(run)
    for number, name in enumerate(("model.h5", "more/table.csv")):
        (project / f"other name {number}").hardlink_to(kept / name)
    again = Run(Delivery(MlflowClient(tracking_uri()), run.run_id))
    again.log_artifact(write_network(trained, b"new", "new"))
    assert [(kept / name).read_text() for name in ("model.h5", "more/table.csv")] == ["new", "new"]
    assert [path.read_text() for path in sorted(project.glob("other name *"))] == ["old", "old"]


def test_a_link_of_dvc_is_followed(project):
    (project / "cached").write_bytes(b"weights")
    (project / "model.h5").symlink_to(project / "cached")
    with training_run(**RUN) as run:
        run.log_artifact(project / "model.h5")
    kept = artifacts_of(run) / "model.h5"
    assert not kept.is_symlink()
    assert kept.samefile(project / "cached")


def test_a_network_on_another_file_system_is_copied(project):
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == project.stat().st_dev:
        pytest.skip("needs a second file system, /dev/shm")
    with tempfile.TemporaryDirectory(dir=memory) as folder, training_run(**RUN) as run:
        run.log_artifact(write_network(Path(folder, "net")))
    kept = artifacts_of(run)
    assert (kept / "model.h5").read_bytes() == b"weights"
    assert (kept / "more/table.csv").read_text() == "a\n"


def test_a_store_that_is_no_folder_gets_an_upload(project):
    got = {}

    class Store(BaseHTTPRequestHandler):
        def do_PUT(self):
            got[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever).start()
        place = f"http://127.0.0.1:{server.server_port}/store"
        MlflowClient(tracking_uri()).create_experiment("sky", artifact_location=place)
        trained = write_network(project / "models/net")
        try:
            with training_run(**RUN) as run:
                run.log_artifact(trained, "trained")
                run.log_artifact(trained / "model.h5")
        finally:
            server.shutdown()
    top = f"/store/{run.run_id}/artifacts"
    expected = {"trained/model.h5": b"weights", "trained/more/table.csv": b"a\n", "model.h5": b"weights"}
    assert {name: got[f"{top}/{name}"] for name in expected} == expected
    assert len(got) == len(expected) + 1, "and the lineage"
    assert (trained / "model.h5").stat().st_nlink == 1


LEARNING = """
stages:
  train: {cmd: python train.py, deps: [seed], outs: [models/net]}
"""
LEARN = """
from pathlib import Path
from deepsky.files import whole_folder
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import training_run
seed, facts = Path("seed").read_text(), {"dataset": "sky", "network": "net", "params": {}, "tags": {}}
with training_run(tracking=TrackingParams(experiment="sky"), name=seed, **facts) as run:
    with whole_folder(Path("models/net")) as folder:
        (folder / "model.h5").write_text(seed)
    run.log_artifact(Path("models/net"))
"""


def test_workspace_dvc_cache_and_run_share_a_network_and_none_loses_it(project, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (project / "dvc.yaml").write_text(LEARNING)
    (project / "train.py").write_text(LEARN)
    trained = project / "models/net/model.h5"

    def do(*command):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def learn(seed):
        (project / "seed").write_text(seed)
        do("dvc", "repro", "-q")
        client, experiment = prepare("sky")
        (run,) = client.search_runs([experiment], f"attributes.run_name = '{seed}'")
        return client, run.info.run_id, Path(run.info.artifact_uri, "model.h5")

    do("dvc", "init", "-q", "--no-scm")
    for setting in (("core.analytics", "false"), ("cache.type", "hardlink")):
        do("dvc", "config", *setting)
    client, first_id, first = learn("first")
    assert first.samefile(trained)
    assert trained.stat().st_nlink == 3, "the workspace's name, the cache's and the run's"
    _, second_id, second = learn("second")
    assert [path.read_text() for path in (first, second, trained)] == ["first", "second", "second"]
    assert second.samefile(trained)

    do("dvc", "gc", "--workspace", "--force", "-q")  # the cache forgets the first
    assert (first.read_text(), first.stat().st_nlink) == ("first", 1)
    for run_id in (first_id, second_id):
        client.delete_run(run_id)
    do(sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", tracking_uri(), "--tracking-uri", tracking_uri())
    assert (first.exists(), second.exists(), trained.read_text()) == (False, False, "second")
    trained.unlink()
    do("dvc", "checkout", "-q")
    assert trained.read_text() == "second"


# ---- lineage, under a real DVC ----

PIPELINE = """
stages:
  split:
    cmd: mkdir -p data/packed/sky && echo 1 > data/packed/sky/rows.csv && echo 2 > data/other.csv
    outs: [data/packed/sky, data/other.csv]
  train:
    matrix: {dataset: [sky], network: [net]}
    cmd: python src/train.py ${item.dataset} ${item.network}
    deps: [src/train.py, "data/packed/${item.dataset}"]
    outs: ["models/${item.dataset}/${item.network}"]
"""
TRAIN = """
import sys
from pathlib import Path
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import training_run
dataset, network = sys.argv[1:]
facts = {"dataset": dataset, "network": network, "params": {}, "tags": {}}
parts = {"train": {"STAR": 3}, "val": {"STAR": 1}, "test": {"STAR": 0}}
facts |= {"inputs": [Path("data/packed", dataset)], "parts": parts}
with training_run(tracking=TrackingParams(experiment="sky"), name=f"{dataset}-{network}", **facts):
    Path("models", dataset).mkdir(parents=True, exist_ok=True)
    Path("models", dataset, network).write_text("done")
"""


def test_dvc_stage_data_hashes_and_commit_become_tags_also_in_a_temporary_copy(project, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "someone@example.org")
    (project / "dvc.yaml").write_text(PIPELINE)
    (project / "src").mkdir()
    (project / "src/train.py").write_text(TRAIN)
    (project / ".gitignore").write_text("/mlflow.db*\n/mlruns/\n/data\n/models\n")

    def do(*command):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    do("git", "init", "-q")
    do("dvc", "init", "-q")
    do("dvc", "config", "core.analytics", "false")
    do("git", "add", "-A")
    do("git", "commit", "-qm", "start")
    do("dvc", "exp", "run", "--temp", "-q")
    client, experiment = prepare("sky")
    (run,) = client.search_runs([experiment])
    tags = run.data.tags
    assert tags["mlflow.deepsky.stage"] == "train@sky-net"
    assert {k for k in tags if k.startswith("mlflow.deepsky.data.")} == {"mlflow.deepsky.data.data/packed/sky"}
    digest = tags["mlflow.deepsky.data.data/packed/sky"]
    assert len(digest.removesuffix(".dir")) == 32
    assert digest.endswith(".dir")
    found = {(i.dataset.name, i.dataset.digest, *(tag.value for tag in i.tags)) for i in run.inputs.dataset_inputs}
    assert found == {("data/packed/sky", digest), ("sky-train", digest, "train"), ("sky-val", digest, "val")}
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert tags["mlflow.deepsky.git_dirty"] == "false"
    assert run.info.status == "FINISHED"
