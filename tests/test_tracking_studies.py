import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from deepsky.errors import TrackingError
from deepsky.tracking import children
from deepsky.tracking.children import TrialRecord
from deepsky.tracking.lineage import current_lineage, recorded_hashes
from deepsky.tracking.origin import find_trial_run
from deepsky.tracking.runs import close_dead_runs
from deepsky.tracking.store import prepare, tracking_uri
from deepsky.tracking.studies import StudyRun, open_study_run
from tests.trained_folders import make_project

EXPERIMENT, STUDY = "sky-tuning", "sdss_jpg-mobilenet"
PARAMS = {"space": {"layers": {"low": 0, "high": 4}}, "objectives": ("f1_macro",)}
COMPLETE = TrialRecord(
    number=7,
    state="COMPLETE",
    started_ms=1_790_000_000_000,
    ended_ms=1_790_000_000_450,
    params={"hidden_units": (512, 64), "learning_rate": 1e-3, "patience": None},
    curve=[(1, {"val_loss": 0.9, "val_f1_macro": 0.5}), (2, {"val_loss": 0.7, "val_f1_macro": 0.6})],
    values={"f1_macro": 0.6},
)
PRUNED = replace(COMPLETE, number=8, state="PRUNED", values={}, reason="pruned at epoch 2: it's no good")
DIVERGED = replace(COMPLETE, number=9, state="FAIL", curve=[(1, {"val_loss": math.nan, "x": math.inf})], values={})
SCRIPT = f"""
import sys
from deepsky.tracking.studies import TrialRecord, open_study_run
run = open_study_run({EXPERIMENT!r}, {STUDY!r}, {PARAMS!r}, dict(worker=sys.argv[1]))
for first in range(0, 60, 6):
    run.log_trials([TrialRecord(n, "COMPLETE", 1000 + n, 2000, dict(a=1), [(1, dict(b=2.0))], dict(f1_macro=0.5), "")
                    for n in range(first, first + 9)])
print(run.run_id)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    return make_project(tmp_path, monkeypatch)


@pytest.fixture
def study_run(project):
    return open_study_run(EXPERIMENT, STUDY, PARAMS, {})


def _client():
    return MlflowClient(tracking_uri())


def _children(run_id):
    client, experiment = prepare(EXPERIMENT)
    found = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{run_id}'", max_results=5000)
    return {int(run.data.tags["deepsky.trial"]): run for run in found}


def _through_the_api(run_id):
    return children._OnServer(_client(), _client().get_run(run_id))


# ---- the parent ----


def test_a_study_has_one_parent_however_often_it_is_opened(project, study_run):
    study_run.finish(None, {"best_f1_macro": 0.5}, "KILLED")
    again = open_study_run(EXPERIMENT, STUDY, PARAMS, {"sampler": "tpe"})
    other = open_study_run(EXPERIMENT, "another", PARAMS, {})
    assert again.run_id == study_run.run_id != other.run_id
    stored = _client().get_run(again.run_id)
    assert (stored.info.status, stored.info.run_name) == ("RUNNING", STUDY)
    assert stored.data.tags["deepsky.study"] == STUDY
    assert stored.data.tags["deepsky.sampler"] == "tpe"
    assert stored.data.params["space.layers.high"] == "4"
    assert stored.data.params["objectives"] == "['f1_macro']"


def test_other_parameters_under_the_same_name_are_refused(study_run):
    with pytest.raises(TrackingError, match="objectives") as caught:
        open_study_run(EXPERIMENT, STUDY, PARAMS | {"objectives": ("accuracy",)}, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["it's", "back\\slash"])
def test_a_name_that_cannot_be_searched_is_refused(project, name):
    with pytest.raises(TrackingError, match="give it a name without"):
        open_study_run(EXPERIMENT, name, PARAMS, {})


def test_other_odd_names_are_fine(project):
    run = open_study_run(EXPERIMENT, 'größer "than" 100 %', PARAMS, {})
    run.log_trials([COMPLETE])
    assert find_trial_run(EXPERIMENT, 'größer "than" 100 %', 7) is not None
    assert find_trial_run(EXPERIMENT, "größer", 7) is None


def test_figures_and_summary_close_the_study(project, study_run):
    (project / "figures").mkdir()
    (project / "figures" / "history.png").write_bytes(b"png")
    study_run.finish(project / "figures", {"best_f1_macro": 0.75})
    stored = _client().get_run(study_run.run_id)
    assert (stored.info.status, stored.data.metrics) == ("FINISHED", {"best_f1_macro": 0.75})
    assert [file.path for file in _client().list_artifacts(study_run.run_id, "figures")] == ["figures/history.png"]


# ---- the children ----


def test_a_child_says_what_happened(study_run):
    study_run.log_trials([COMPLETE, PRUNED, DIVERGED])
    found = _children(study_run.run_id)
    assert {n: run.info.status for n, run in found.items()} == {7: "FINISHED", 8: "KILLED", 9: "FAILED"}
    complete, pruned, diverged = (found[n] for n in (7, 8, 9))
    assert (complete.info.start_time, complete.info.end_time) == (COMPLETE.started_ms, COMPLETE.ended_ms)
    assert complete.info.run_name == f"{STUDY}-7"
    assert complete.data.params == {"hidden_units": "[512, 64]", "learning_rate": "0.001", "patience": "None"}
    assert complete.data.metrics == {"val_loss": 0.7, "val_f1_macro": 0.6, "f1_macro": 0.6}
    assert "deepsky.reason" not in complete.data.tags
    assert pruned.data.tags["deepsky.reason"] == pruned.data.tags["mlflow.note.content"] == PRUNED.reason
    assert math.isnan(diverged.data.metrics["val_loss"])
    curve = _client().get_metric_history(complete.info.run_id, "val_loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.9), (2, 0.7)]


def test_rows_written_directly_are_those_of_the_api(study_run):
    """What guards `children._InDatabase` against a change of MLflow's tables."""
    through_api = open_study_run(EXPERIMENT, "through the API", PARAMS, {})
    records = [COMPLETE, PRUNED, DIVERGED]
    study_run.log_trials(records)
    _through_the_api(through_api.run_id).write(records)
    told = [_told(run_id) for run_id in (study_run.run_id, through_api.run_id)]
    assert told[0] == told[1]


def _told(parent):
    """All that MLflow tells of the children, but for their own and their parent's id and name."""
    told = {}
    for number, run in _children(parent).items():
        info = dict(run.info)
        own = (parent, info.pop("run_id"), info.pop("run_name"))
        info["artifact_uri"] = info["artifact_uri"].replace(own[1], "")
        curves = {name: _client().get_metric_history(own[1], name) for name in run.data.metrics}
        points = {
            name: [(p.step, repr(p.value), p.timestamp) for p in sorted(curve, key=lambda p: p.step)]
            for name, curve in curves.items()
        }
        tags = {key: value for key, value in run.data.tags.items() if value not in own}
        told[number] = (info, tags, run.data.params, {n: repr(v) for n, v in run.data.metrics.items()}, points)
    return told


def test_a_trial_handed_in_twice_is_there_once(study_run):
    study_run.log_trials([COMPLETE])
    before = _children(study_run.run_id)[7].info.run_id
    study_run.log_trials([PRUNED, replace(COMPLETE, values={"f1_macro": 0.1}), PRUNED])
    assert study_run.logged_trials() == {7, 8}
    assert find_trial_run(EXPERIMENT, STUDY, 7) == before
    assert _client().get_run(before).data.metrics["f1_macro"] == 0.6


def test_through_the_api_too(study_run):
    api = _through_the_api(study_run.run_id)
    api.write([COMPLETE, PRUNED])
    api.write([PRUNED, COMPLETE])
    assert api.numbers() == {7, 8}
    assert len(_children(study_run.run_id)) == 2


def test_a_child_half_written_through_the_api_is_completed(study_run):
    tags = {"mlflow.parentRunId": study_run.run_id, "deepsky.trial": "7"}
    _client().create_run(_client().get_run(study_run.run_id).info.experiment_id, COMPLETE.started_ms, tags)
    api = _through_the_api(study_run.run_id)
    assert api.numbers() == set()
    assert find_trial_run(EXPERIMENT, STUDY, 7) is None
    api.write([COMPLETE])
    assert api.numbers() == {7}
    assert _children(study_run.run_id)[7].data.metrics["f1_macro"] == 0.6


def test_more_children_than_one_page(study_run, monkeypatch):
    study_run.log_trials([replace(COMPLETE, number=n, started_ms=COMPLETE.started_ms - n) for n in range(1200)])
    assert study_run.logged_trials() == set(range(1200))
    monkeypatch.setattr(children, "_RUNS_PER_PAGE", 500)
    assert _through_the_api(study_run.run_id).numbers() == set(range(1200))


def test_a_trial_of_hundreds_of_epochs(study_run):
    long = replace(COMPLETE, curve=[(epoch, {"a": epoch, "b": 1 / epoch}) for epoch in range(1, 801)])
    study_run.log_trials([long])
    assert _children(study_run.run_id)[7].data.metrics == {"a": 800, "b": 1 / 800, "f1_macro": 0.6}


def test_no_trials_are_no_error(study_run):
    study_run.log_trials([])
    assert study_run.logged_trials() == set()


def test_workers_at_once_make_one_parent_and_one_child_per_trial(project):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in ("1", "2")
    ]
    told = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], told
    run_id = told[0][0].strip()
    assert told[1][0].strip() == run_id
    client, experiment = prepare(EXPERIMENT)
    assert len(client.search_runs([experiment], "tags.`deepsky.study` LIKE '%'")) == 1
    assert len(client.search_runs([experiment])) == 1 + len(_children(run_id)) == 1 + 63
    # Nobody closed the parent: that of a worker which is gone is closed, that of one which lives is not.
    assert _client().get_run(run_id).info.status == "RUNNING"
    assert close_dead_runs(EXPERIMENT) == 1
    assert _client().get_run(run_id).info.status == "KILLED"
    assert open_study_run(EXPERIMENT, STUDY, PARAMS, {}).run_id == run_id
    assert close_dead_runs(EXPERIMENT) == 0
    assert _client().get_run(run_id).info.status == "RUNNING"


def test_a_store_that_breaks_is_one_line(project, study_run):
    (project / "mlflow.db").write_text("no database any more" * 99)
    with pytest.raises(TrackingError, match="cannot be used") as caught:
        study_run.log_trials([COMPLETE])
    assert "\n" not in str(caught.value)
    assert isinstance(study_run, StudyRun)


# ---- lineage ----


LOCK = """
schema: '2.0'
stages:
  features@sdss_jpg-mobilenet:
    cmd: true
    outs:
    - {path: data/features/sdss_jpg/mobilenet.npy, hash: md5, md5: aaa, size: 1}
  split@sdss_jpg:
    cmd: true
    outs:
    - {path: data/splits/sdss_jpg.csv, hash: md5, md5: bbb, size: 1}
"""


def test_hashes_of_what_dvc_lock_knows(project, monkeypatch):
    features = "data/features/sdss_jpg/mobilenet.npy"
    assert recorded_hashes([features]) == {}
    (project / "dvc.lock").write_text(LOCK)
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    assert recorded_hashes([features, "data/none.npy"]) == {features: "aaa"}


def test_a_lock_that_dvc_is_writing_is_read_or_refused_but_never_breaks_a_run(project):
    """A stage starts while the books of the one before are kept."""
    refused = 0
    for length in range(len(LOCK)):
        (project / "dvc.lock").write_text(LOCK[:length])
        try:
            recorded_hashes(["data/splits/sdss_jpg.csv"])
        except TrackingError:
            refused += 1
    assert refused > 100


def test_lineage_names_the_outputs_that_hold_what_a_stage_reads(project, monkeypatch):
    (project / "dvc.lock").write_text(LOCK)
    monkeypatch.setenv("DVC_STAGE", "train_run@mine")
    read = [Path("data/features/sdss_jpg/mobilenet.npy"), Path("data/splits/sdss_jpg.csv/inside")]
    lineage = current_lineage(read)
    assert lineage.stage == "train_run@mine"
    assert lineage.data == {"data/features/sdss_jpg/mobilenet.npy": "aaa", "data/splits/sdss_jpg.csv": "bbb"}
