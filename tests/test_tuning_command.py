import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState

from deepsky.commands import tune
from deepsky.errors import ConfigError, DataError, StudyError
from deepsky.tuning.database import open_database
from deepsky.tuning.study import is_done, load_study
from tests.tuning_project import DATASET, ROOT, RUN, SIZE_PX, make_project, write_features, write_params

STORAGE = "sqlite:///tuning.db"
ENV = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


@pytest.fixture
def project(tmp_path, monkeypatch):
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def search(dataset=None, network=None, **options):
    tune.run(dataset, network, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "--trials 0: is below 1"),
        ({"workers": 0}, "--workers 0: is out of range"),
        ({"dataset": "m31", "network": "mobilenet"}, "run m31-mobilenet: is not in params.yaml; choose one of: blobs-"),
        ({"dataset": "blobs", "network": "lexnet"}, "run blobs-lexnet: is not in params.yaml"),
        ({"dataset": "blobs"}, "blobs: needs a dataset and a network; give DATASET NETWORK, or --run RUN"),
        ({"name": "mine"}, "run mine: is not in params.yaml"),
        ({"name": "mine", "dataset": "blobs"}, "--run mine: names a run already; leave DATASET and NETWORK out"),
    ],
)
def test_wrong_arguments(project, options, message):
    with pytest.raises(ConfigError, match=message):
        search(**options)
    assert not (project / "tuning.db").exists()


def test_inputs_must_be_the_ones_in_dvc_lock(project):
    features = project / "data" / "features" / DATASET
    features.rename(project / "away")
    with pytest.raises(DataError, match=r"blobs/mobilenet/32px: holds no features; enter blobs-mobilenet in"):
        search()
    (project / "away").rename(features)
    (features / "mobilenet" / f"{SIZE_PX}px" / "sides.npy").unlink()
    with pytest.raises(DataError, match=r"mobilenet/32px: holds no features of views"):
        search()
    (project / "data" / "splits" / f"{DATASET}.csv").write_text("id,split,group\n")
    with pytest.raises(DataError, match=r"data/splits/blobs.csv: is stale: .*; run make repro"):
        search()
    (project / "dvc.lock").unlink()
    with pytest.raises(DataError, match=r"is not in dvc.lock; run make repro"):
        search()
    assert not (project / "tuning.db").exists()


def test_two_objectives_need_a_head(project):
    write_params(project, objectives=["f1_macro", "parameters"], pruner="none")
    with pytest.raises(ConfigError, match="parameters is the same for every candidate of blobs-cnn_small"):
        search(DATASET, "cnn_small")


def test_heads_and_networks_are_searched_by_grouped_folds(project, capsys, monkeypatch):
    monkeypatch.setattr("deepsky.tuning.search.draw_study", lambda *arguments: None)
    write_params(project, folds=2, epochs=2, population="auto", pruner="none")
    search(trials=3)
    search(DATASET, "cnn_small", trials=1, study="small")
    heads, small = load_study(RUN, STORAGE), load_study("small", STORAGE)
    assert [sum(map(is_done, study.trials)) for study in (heads, small)] == [3, 1]
    assert [len(trial.user_attrs["curve"]) for trial in small.trials] == [4]  # 2 folds x 2 epochs
    assert heads.user_attrs["population"] in (1, 4)
    assert heads.best_value > 0.4  # of three classes
    capsys.readouterr()
    tune.list_studies(None)
    assert re.search(r"^blobs-mobilenet +3 +f1_macro 0\.\d{4} \(trial \d\)$", capsys.readouterr().out, re.MULTILINE)
    write_params(project, folds=3, epochs=2, population="auto", pruner="none")
    with pytest.raises(StudyError, match="began with folds 2, now it is 3"):
        search(trials=3)
    write_features(project, np.ones((120, 8), np.float32), key="others")
    write_params(project, folds=2, epochs=2, population="auto", pruner="none")
    with pytest.raises(StudyError, match=r"began with data/features/blobs/mobilenet/32px .*; run dvc pull"):
        search(trials=5)


def start(project: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "deepsky", "tune", *arguments],
        cwd=project, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came:\n{seen}")


def test_workers_side_by_side_end_together_on_ctrl_c(project):
    write_params(project, trials=400)
    both = start(project, "run", "--workers", "2")
    wait_for(both, "[2] study blobs-mobilenet: 400 trials, 4 at a time")
    wait_for(both, "/400 done, best f1_macro")
    os.killpg(both.pid, signal.SIGINT)
    output, _ = both.communicate()
    assert both.returncode == 130
    assert len(re.findall(r"^\[[12]\] \d+/400 done; the same command goes on from there", output, re.MULTILINE)) == 2
    trials = load_study("blobs-mobilenet", STORAGE).trials
    assert 4 <= sum(map(is_done, trials)) < 400
    assert not any(trial.state == TrialState.RUNNING for trial in trials)


def test_a_worker_that_fails_is_named(project):
    (project / "data" / "splits" / f"{DATASET}.csv").unlink()
    failed = start(project, "run", "--workers", "2")
    output, _ = failed.communicate()
    assert failed.returncode == 1
    assert re.search(r"^\[1\] error: data/splits/blobs.csv: does not exist; run make repro", output, re.MULTILINE)
    assert "[2]" not in output
    assert output.splitlines()[-1].startswith("error: worker 1: failed; its own line above says why")


def test_the_dashboard_serves_this_machine(project):
    open_database(STORAGE, create=True).close()
    served = start(project, "dashboard", "--port", "18473")
    try:
        wait_for(served, "open http://127.0.0.1:18473/dashboard/")
        for _ in range(100):
            try:
                with urllib.request.urlopen("http://127.0.0.1:18473/api/studies") as answer:
                    assert b"study_summaries" in answer.read()
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        else:
            raise AssertionError("it never answered")
    finally:
        served.terminate()  # a Ctrl-C in the middle of an answer is lost: wsgiref catches everything
        served.communicate()
