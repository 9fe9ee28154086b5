"""What a training tells of its run reaches the store once, whatever becomes of the store meanwhile."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from deepsky.tracking.journal import SPOOL, Journal, Waiting, deliver_waiting, waiting
from deepsky.tracking.origin import find_parent
from deepsky.tracking.outbox import Pace
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import close_dead_runs, training_run
from deepsky.tracking.store import prepare, tracking_uri
from deepsky.tracking.studies import TrialRecord, open_study_run
from tests.mlflow_server import Proxy, mlflow_server
from tests.trained_folders import make_project, write_trained

QUICK = Pace(gather_s=0.05, retry_s=0.1)
N_EPOCHS = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder, patch = tmp_path_factory.mktemp("server"), pytest.MonkeyPatch()
    make_project(folder, patch)
    patch.undo()
    with mlflow_server(folder) as port:
        yield port


@pytest.fixture
def project(tmp_path, monkeypatch):
    write_trained(tmp_path / "models/trained/toy/net")
    return make_project(tmp_path, monkeypatch)


@pytest.fixture
def proxy(project, server, monkeypatch):
    proxy = Proxy(server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{proxy.port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield proxy
    proxy.is_silent = False
    proxy.stop()


def train(between=lambda epoch: None, n_epochs=N_EPOCHS):
    """A run that tells all that a training tells; returns it, and the longest wait for one epoch's figures."""
    trained = Path("models/trained/toy/net")
    facts, longest_s = json.loads((trained / "run.json").read_text()), 0.0
    with training_run(
        tracking=TrackingParams(experiment="sky"), name="toy-net", dataset="toy", network="net",
        params={"n": 1}, tags={}, pace=QUICK,
    ) as run:  # fmt: skip
        for epoch in range(1, n_epochs + 1):
            between(epoch)
            started = time.perf_counter()
            run.log_epochs([(epoch, {"loss": 1 / epoch, "accuracy": epoch / 10})])
            longest_s = max(longest_s, time.perf_counter() - started)
        run.log_trained(trained, facts)
        run.set_tag("mlflow.deepsky.key", "abc")
    return run, longest_s


def stored(run_id=None):
    client, experiment = prepare("sky")
    return client, client.get_run(run_id) if run_id else client.search_runs([experiment], max_results=1)[0]


def check_whole(client, run, status="FINISHED"):
    for name in ("loss", "accuracy"):
        points = client.get_metric_history(run.info.run_id, f"epoch/{name}")
        assert sorted(point.step for point in points) == list(range(1, N_EPOCHS + 1)), "each epoch once"
    assert (run.info.status, run.data.params["n"], run.data.tags["mlflow.deepsky.key"]) == (status, "1", "abc")
    (output,) = run.outputs.model_outputs
    files = {file.path for file in client.list_logged_model_artifacts(output.model_id)}
    assert {"MLmodel", "model.h5"} <= files
    kept = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert kept == {"history.csv", "lineage", "predictions.csv", "run.json"}, "the network is uploaded once"


def test_a_server_that_is_away_for_a_moment_gets_every_epoch_once(proxy, capsys):
    def between(epoch):
        if epoch == 2:
            proxy.stop()
        if epoch == 5:
            time.sleep(0.4)
            proxy.start()

    run, longest_s = train(between)
    check_whole(*stored(run.run_id))
    assert longest_s < 0.2
    assert waiting() == []


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_what_a_server_misses_waits_on_disk_and_comes_once(proxy, capsys, how):
    def between(epoch):
        if epoch == 3:
            time.sleep(0.3)
            proxy.stop() if how == "refuses" else setattr(proxy, "is_silent", True)

    run, longest_s = train(between)
    ended_ms = time.time() * 1000
    assert longest_s < 0.2
    assert waiting() == [Waiting("toy-net", "sky", "FINISHED")]
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if "WARNING" in line]) == 1, said
    assert "deepsky runs --sync" in said[0]
    assert "secret" not in "".join(said)
    shutil.rmtree("models/trained")  # as the next training would
    proxy.start() if how == "refuses" else setattr(proxy, "is_silent", False)
    assert deliver_waiting() == 1
    client, there = stored(run.run_id)
    check_whole(client, there)
    assert there.info.end_time <= ended_ms
    assert waiting() == []


def test_a_run_begun_without_a_server_is_made_later_with_its_true_times(proxy, capsys):
    client, experiment = prepare("sky")
    n_before = len(client.search_runs([experiment]))
    proxy.stop()
    before_ms = int(time.time() * 1000)
    run, _ = train()
    after_ms = time.time() * 1000
    assert run.run_id == ""
    assert "WARNING" in capsys.readouterr().err
    proxy.start()
    time.sleep(0.01)
    (folder,) = Path(SPOOL).iterdir()
    shutil.copytree(folder, folder.with_name("copy"))  # as if the answer to its delivery had been lost
    assert deliver_waiting() == 2
    client, there = stored()
    assert before_ms <= there.info.start_time <= there.info.end_time <= after_ms
    check_whole(client, there)
    assert len(client.search_runs([experiment])) == n_before + 1
    assert len(client.search_logged_models([experiment], f"source_run_id = '{there.info.run_id}'")) == 1


def test_the_next_run_brings_those_that_wait(proxy):
    train(lambda epoch: proxy.stop() if epoch == 1 else None)
    proxy.start()
    run, _ = train()
    assert waiting() == []
    client, there = stored(run.run_id)
    both = client.search_runs([there.info.experiment_id], max_results=2)
    for one in both:
        check_whole(client, client.get_run(one.info.run_id))


@pytest.mark.parametrize("goes", ["before it begins", "in the middle"])
def test_a_study_goes_on_without_its_server_and_comes_whole_and_once(proxy, capsys, goes):
    study_name, figures = f"without a server {goes}", Path("drawn")
    figures.mkdir()
    (figures / "history.png").write_bytes(b"png")
    trials = [
        TrialRecord(n, "COMPLETE", 1000 + n, 2000, {"units": (8, 4)}, [(1, {"loss": math.nan})], {"f1_macro": 0.5})
        for n in range(3)
    ]
    if goes == "before it begins":
        proxy.stop()
    study = open_study_run("sky-study", study_name, {"epochs": 4}, {"run": "toy-net"})
    study.log_trials(trials[:1])
    if goes == "in the middle":
        assert study.logged_trials() == {0}
        proxy.stop()
    study.log_trials(trials[1:])
    assert study.logged_trials() == {0, 1, 2}
    about = {"dataset": "toy", "network": "net", "params": {}, "tags": {}}
    tracking = TrackingParams(experiment="sky-study")
    with training_run(tracking=tracking, name="fold", study=study_name, pace=QUICK, **about) as fold:
        fold.log_metrics({"test_accuracy": 0.5})
    study.finish(figures, {"best_f1_macro": 0.5})
    assert sorted(waiting(), key=lambda one: one.name) == [
        Waiting("fold", "sky-study", "FINISHED"), Waiting(study_name, "sky-study", "FINISHED"),
    ]  # fmt: skip
    said = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]
    assert len(said) == 2, "of the study and of the fold"

    proxy.start()
    for folder in list(Path(SPOOL).iterdir()):
        shutil.copytree(folder, folder.with_name(f"copy-{folder.name}"))  # as if the answer had been lost
    assert deliver_waiting() == 4
    client, experiment = prepare("sky-study")
    parent = find_parent(client, experiment, study_name)
    assert (parent.info.status, parent.data.params["epochs"]) == ("FINISHED", "4")
    assert parent.data.metrics == {"best_f1_macro": 0.5}
    assert [file.path for file in client.list_artifacts(parent.info.run_id, "figures")] == ["figures/history.png"]
    below = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    (there,) = [run for run in below if run.info.run_name == "fold"]
    assert (there.info.status, there.data.metrics) == ("FINISHED", {"test_accuracy": 0.5})
    found = sorted((run.data.tags["deepsky.trial"], run.info.start_time) for run in below if run != there)
    assert [(number, start) for number, start in found] == [("0", 1000), ("1", 1001), ("2", 1002)]
    assert {run.data.params["units"] for run in below if run != there} == {"[8, 4]"}
    assert waiting() == []


WORKER = """
import os, signal, sys
from deepsky.tracking.studies import open_study_run
run = open_study_run("sky-study", "shared", {"epochs": 4}, {"worker": sys.argv[1]})
print("open", flush=True)
status = sys.stdin.readline().strip()
if status == "kill -9":
    os.kill(os.getpid(), signal.SIGKILL)
run.finish(None, {}, status)
"""


@pytest.fixture
def worker(project):
    """Starts a worker of a study, which has opened its run; it ends with the status that it is told."""
    started = []

    def start(name, **environment):
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, name], env=os.environ | environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "open\n", process.stderr.read()
        return process

    yield start
    for process in started:
        if process.poll() is None:  # a test failed
            process.kill()
            process.communicate()


def study_of_workers():
    client, experiment = prepare("sky-study")
    run = find_parent(client, experiment, "shared")
    return run.info.status, run.data.tags["deepsky.worker"], run.info.end_time


def test_what_comes_late_of_one_worker_takes_nothing_back_that_another_says_since(worker, capsys):
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    late = [worker(f"late {end}", **away) for end in ("RUNNING", "KILLED", "kill -9")]
    other = worker("other")
    for one in late:
        one.communicate(one.args[-1].removeprefix("late "))
    shutil.copytree(SPOOL, "again")
    assert deliver_waiting() == 3
    assert study_of_workers() == ("RUNNING", "other", None), "it works on"

    own = open_study_run("sky-study", "shared", {"epochs": 4}, {"worker": "own"})
    own.finish(None, {}, "KILLED")
    assert study_of_workers() == ("RUNNING", "other", None)
    own.finish(None, {}, "FINISHED")
    assert study_of_workers()[0] == "FINISHED", "who has the last trial does not wait for those who have none"

    other.communicate("FINISHED")
    whole = study_of_workers()
    shutil.copytree("again", SPOOL, dirs_exist_ok=True)
    assert deliver_waiting() == 3
    assert study_of_workers() == whole
    assert whole[:2] == ("FINISHED", "other")


def test_an_end_that_comes_late_does_not_stop_a_search_that_was_started_since(worker, capsys):
    late = worker("late", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    late.communicate("FINISHED")
    (journal,) = Path(SPOOL).iterdir()
    lines = journal / "journal.jsonl"
    entries = [json.loads(line) for line in lines.read_text().splitlines()]
    passed = [{key: v - 60_000 if key.endswith("_ms") else v for key, v in entry.items()} for entry in entries]
    lines.write_text("".join(f"{json.dumps(entry)}\n" for entry in passed))  # a minute ago
    journal.rename("aside")  # the spool of another folder
    since = worker("since")
    Path("aside").rename(journal)
    assert deliver_waiting() == 1
    assert study_of_workers() == ("RUNNING", "since", None)
    since.communicate("kill -9")
    again = worker("again")
    assert study_of_workers()[:2] == ("RUNNING", "again"), "what was closed as killed a moment ago runs again"
    again.communicate("FINISHED")
    assert study_of_workers()[:2] == ("FINISHED", "again")


BELOW = """
import os
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import training_run
from deepsky.tracking.studies import open_study_run
study = open_study_run("sky-study", "shared", {"epochs": 4}, {"worker": "one"})
del os.environ["MLFLOW_TRACKING_URI"]  # it answers again
about = {"dataset": "toy", "network": "net", "params": {}, "tags": {}}
with training_run(tracking=TrackingParams(experiment="sky-study"), name="fold", study="shared", **about):
    pass
os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
study.finish(None, {}, "FINISHED")
"""


def test_a_study_of_which_only_a_run_below_came_is_closed_and_its_own_word_counts_when_it_comes(project):
    away = os.environ | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    subprocess.run([sys.executable, "-c", BELOW], env=away, check=True, capture_output=True)
    client, experiment = prepare("sky-study")
    assert find_parent(client, experiment, "shared").info.status == "RUNNING"
    assert close_dead_runs("sky-study") == 1
    assert find_parent(client, experiment, "shared").info.status == "KILLED"
    assert deliver_waiting() == 1
    assert study_of_workers()[:2] == ("FINISHED", "one")


KILLED = """
import os, signal
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import training_run
facts = {"dataset": "d", "network": "n", "params": {}, "tags": {}}
with training_run(tracking=TrackingParams(experiment="sky"), name="a", **facts) as run:
    run.log_epochs([(1, {"loss": 0.5})])
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_loses_nothing_that_it_told(project):
    assert subprocess.run([sys.executable, "-c", KILLED]).returncode == -signal.SIGKILL
    assert deliver_waiting() == 1
    client, run = MlflowClient(tracking_uri()), stored()[1]
    assert run.info.status == "KILLED"
    assert [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, "epoch/loss")] == [(1, 0.5)]
    assert (deliver_waiting(), waiting()) == (0, [])


def test_what_a_kill_leaves_of_a_journal_that_was_begun_goes_and_one_that_is_being_begun_stays(project):
    left, foreign = project / SPOOL / f".{'0af' * 10}00", project / SPOOL / ".ipynb_checkpoints"
    for folder in (left, foreign):
        folder.mkdir(parents=True)
        (folder / "journal.jsonl").touch()
    deliver_waiting()
    assert (left.exists(), foreign.exists()) == (False, True)

    def begin(n):
        for _ in range(n):
            Journal().close(is_delivered=True)

    with ThreadPoolExecutor() as pool:
        begun = [pool.submit(begin, 200) for _ in range(2)]
        while not all(one.done() for one in begun):
            deliver_waiting()
    assert [one.result() for one in begun] == [None, None]


def test_a_journal_that_nobody_can_deliver_costs_nothing(project, capsys):
    broken = project / SPOOL / "broken"
    broken.mkdir(parents=True)
    (broken / "journal.jsonl").write_text('{"kind": "unheard of"}\n')
    assert deliver_waiting() == 0
    assert "broken waits on" in capsys.readouterr().err
