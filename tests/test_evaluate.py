import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from sklearn.metrics import accuracy_score, f1_score

from deepsky.catalogue.decision_tree import COLUMNS, QUESTIONS
from deepsky.errors import DataError
from deepsky.evaluation.folders import evaluation_key
from deepsky.evaluation.params import EvaluateParams
from deepsky.evaluation.planned import Places
from deepsky.intervals import Resampling, paired_gain_interval, share_gain_interval
from deepsky.stages import evaluate
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import find_run, training_run
from deepsky.tracking.store import prepare, tracking_uri
from deepsky.tracking.studies import TrialRecord, open_study_run
from deepsky.tracking.trained_files import run_key
from tests.conftest import ROOT
from tests.trained_folders import (
    CLASSES,
    FINE_TUNED,
    PARAMS,
    make_project,
    planned,
    write_fractions,
    write_seen,
    write_trained,
)

FILES = {
    "metrics.json", "scores.json", "examples.json", "per_class.csv", "confusion.csv", "confused.csv", "confusion.png",
    "curves.png", "splits.png", "class_distribution.png", "plots", "reliability.png", "calibration.csv",
    "prediction_sets.csv", "groups.csv",
}  # fmt: skip
PICTURES = {"samples.png", "predictions.png", "confused_pairs.png", "feature_maps.png", "grad_cam.png"}
TRAINED, OUT, PACKED = Path("models/trained"), Path("evaluation/runs"), Path("data/packed")
FEATURES, PLAIN = Path("data/features"), EvaluateParams()
METRICS, PLOTS = Path("evaluation/metrics"), Path("evaluation/plots")
CELL = "sdss_jpg/mobilenet"
RUN = {
    "tracking": TrackingParams(experiment="sky"), "name": "sdss_jpg-mobilenet", "dataset": "sdss_jpg",
    "network": "mobilenet", "params": {}, "tags": {},
}  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    return make_project(tmp_path, monkeypatch)


def _evaluate(*names, plan=None, code="", params=PLAIN):
    """Evaluate runs as they were trained, or by another plan; returns the summary of each."""
    plan = planned(TRAINED, *names or (CELL,)) if plan is None else plan
    places = Places(packed=PACKED, features=FEATURES, trained=TRAINED, out=OUT)
    evaluate.run(plan, params, "sky", places, metrics=METRICS, plots=PLOTS, code=code)
    return json.loads((OUT / "summary.json").read_text())["runs"]


def _files(*folders):
    every = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in every}


def _stored(run="sdss_jpg-mobilenet"):
    client, experiment = prepare("sky")
    found = client.search_runs([experiment], f"tags.`mlflow.deepsky.run` = '{run}'")
    assert len(found) == 1
    return found[0]


def _answers(predictions, split):
    rows = predictions[predictions["split"] == split]
    columns = [c for c in predictions if c.startswith("p_")]
    return rows["label"], rows[columns].idxmax(axis=1).str.removeprefix("p_")


def _write_plain(folder, predictions, **columns):
    test = predictions[predictions["split"] == "test"].assign(**columns)
    test.iloc[::-1].to_csv(folder / "predictions_plain.csv", index=False, float_format="%.6f")
    return test


def test_figures_are_those_of_scikit_learn(project):
    predictions = write_trained(TRAINED / CELL)
    summary = _evaluate()["sdss_jpg-mobilenet"]
    truth, answer = _answers(predictions, "test")
    assert summary["n_test"] == 25
    assert summary["test_accuracy"] == pytest.approx(accuracy_score(truth, answer), abs=1e-6)
    assert summary["test_f1_macro"] == pytest.approx(f1_score(truth, answer, average="macro"), abs=1e-6)
    assert summary["train_accuracy"] == pytest.approx(accuracy_score(*_answers(predictions, "train")), abs=1e-6)
    assert summary["test_accuracy_low"] < summary["test_accuracy"] < summary["test_accuracy_high"]
    majority = _answers(predictions, "train")[0].mode()[0]
    assert summary["test_baseline"] == pytest.approx((truth == majority).mean(), abs=1e-6)
    folder = OUT / CELL
    assert {p.name for p in folder.iterdir()} == FILES
    for split in ("train", "val", "test"):
        truths, answers = _answers(predictions, split)
        assert summary[f"{split}_f1_macro"] == pytest.approx(f1_score(truths, answers, average="macro"), abs=1e-6)
        assert summary[f"{split}_loss"] > 0
    confused = pd.read_csv(folder / "confused.csv")
    assert confused["n"].sum() == (truth != answer).sum()
    first = confused.iloc[0]
    assert first["n"] == ((truth == first["true"]) & (answer == first["predicted"])).sum()
    confusion = pd.read_csv(folder / "confusion.csv", index_col="true")
    assert confusion.loc["QSO", "predicted_STAR"] == ((truth == "QSO") & (answer == "STAR")).sum()
    assert confusion.to_numpy().sum() == 25
    details = json.loads((folder / "metrics.json").read_text())
    assert details["history"]["val_accuracy"] == [0.2, 0.4, 0.6]
    assert details["majority_class"] == majority
    assert sum(details["class_counts"]["val"].values()) == 25
    per_class = pd.read_csv(folder / "per_class.csv", index_col="class")
    assert list(per_class.index) == list(CLASSES)
    assert per_class["recall"]["STAR"] == pytest.approx((answer[truth == "STAR"] == "STAR").mean(), abs=1e-6)


def test_figures_show_something(project):
    write_trained(TRAINED / CELL, weights="random")
    _evaluate()
    for name in (file for file in FILES if file.endswith(".png")):
        picture = cv2.imread(str(OUT / CELL / name))
        assert min(picture.shape[:2]) > 200
        assert picture.std() > 10


def test_scores_go_into_the_run_that_trained_once(project):
    folder = TRAINED / CELL
    with training_run(**RUN) as run:
        write_trained(folder)
        run.log_epochs([(1, {"accuracy": 0.1})])
        run.finish_outputs(folder)
    _evaluate()
    summary = _evaluate()["sdss_jpg-mobilenet"]
    stored, client = _stored(), MlflowClient(tracking_uri())
    assert stored.info.run_id == run.run_id
    assert "deepsky.restored" not in stored.data.tags
    logged = stored.data.metrics
    for name in ("test_accuracy", "test_accuracy_low", "test_accuracy_high", "test_f1_macro", "test_f1_weighted"):
        assert logged[name] == pytest.approx(summary[name], abs=1e-6)
    assert logged["epoch/accuracy"] == 0.1
    kinds = (*CLASSES, "macro", "weighted")
    assert {f"test_{m}_{c}" for m in ("precision", "recall", "f1") for c in kinds} <= set(logged)
    assert {f"{s}_{m}" for m in ("accuracy", "f1_macro", "loss") for s in ("train", "val")} <= set(logged)
    assert len(client.get_metric_history(run.run_id, "test_accuracy")) == 1
    assert {Path(f.path).name for f in client.list_artifacts(run.run_id, "evaluation")} == FILES


def test_a_store_that_is_away_gets_the_figures_later(project, monkeypatch, capsys):
    write_trained(TRAINED / CELL)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    figures = _evaluate()
    assert "deepsky runs --sync" in capsys.readouterr().err
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    before = _files(OUT)
    assert _evaluate() == figures
    assert _files(OUT) == before
    assert _stored().data.metrics["test_accuracy"] == figures["sdss_jpg-mobilenet"]["test_accuracy"]


def test_intervals_of_few_groups_are_wider_and_called_unreliable(project, capsys):
    for dataset, n_groups in (("alone", None), ("fields", 8)):
        write_trained(TRAINED / dataset / "mobilenet", n_groups=n_groups)
    alone, fields = _evaluate("alone/mobilenet", "fields/mobilenet").values()
    assert alone["test_accuracy"] == fields["test_accuracy"]
    assert (alone["n_test_groups"], fields["n_test_groups"]) == (25, 8)
    assert alone["test_accuracy_low"] != fields["test_accuracy_low"]
    told = [_stored(f"{dataset}-mobilenet").data for dataset in ("alone", "fields")]
    assert [one.metrics["n_test_groups"] for one in told] == [25, 8]
    assert [one.tags["deepsky.remark"] for one in told] == ["", "intervals unreliable, from 8 groups"]
    assert capsys.readouterr().err == "WARNING: intervals of fields are unreliable, from 8 groups of test objects\n"


def test_a_run_that_gives_one_answer_is_marked_everywhere(project, capsys):
    write_trained(TRAINED / CELL)
    write_trained(TRAINED / "sdss_jpg/resnet50", skill=0.0, bias=50.0)
    summary = _evaluate(CELL, "sdss_jpg/resnet50")
    told = summary["sdss_jpg-resnet50"]["remark"]
    assert told == f"collapsed: answers {CLASSES[0]} to 100% of the objects"
    assert capsys.readouterr().err == f"WARNING: sdss_jpg-resnet50 {told}\n"
    assert _stored("sdss_jpg-resnet50").data.tags["deepsky.remark"] == told
    assert summary["sdss_jpg-mobilenet"]["remark"] == _stored().data.tags["deepsky.remark"] == ""


def test_only_the_run_that_changed_is_logged_again(project):
    names = CELL, "sdss_jpg/vgg16"
    for seed, name in enumerate(names):
        write_trained(TRAINED / name, seed=seed)
    _evaluate(*names)
    shutil.rmtree(TRAINED / names[1])
    write_trained(TRAINED / names[1], seed=9)
    _evaluate(*names)
    client, experiment = prepare("sky")
    found = sorted(run.data.tags["mlflow.deepsky.run"] for run in client.search_runs([experiment]))
    assert found == ["sdss_jpg-mobilenet", "sdss_jpg-vgg16", "sdss_jpg-vgg16"]


def test_outputs_restored_from_the_cache_get_a_run_of_their_own(project):
    folder = TRAINED / CELL
    write_trained(folder, weights="random")
    (project / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n"
        "  pack@sdss_jpg:\n    cmd: x\n    outs:\n    - {path: data/packed/sdss_jpg, hash: md5, md5: aaa.dir}\n"
        "  train@sdss_jpg-mobilenet:\n    cmd: y\n"
        "    deps:\n    - {path: data/packed/sdss_jpg, hash: md5, md5: aaa.dir}\n"
        "    - {path: src/train.py, hash: md5, md5: bbb}\n"
        "    outs:\n    - {path: models/trained/sdss_jpg/mobilenet, hash: md5, md5: ccc.dir}\n"
    )
    _evaluate()
    stored, client = _stored(), MlflowClient(tracking_uri())
    tags, params = stored.data.tags, stored.data.params
    assert (stored.info.status, stored.info.run_name) == ("FINISHED", "sdss_jpg-mobilenet")
    assert (tags["deepsky.restored"], tags["deepsky.weights"]) == ("true", "random")
    assert tags["mlflow.deepsky.stage"] == "train@sdss_jpg-mobilenet"
    assert {k: v for k, v in tags.items() if k.startswith("mlflow.deepsky.data.")} == {
        "mlflow.deepsky.data.data/packed/sdss_jpg": "aaa.dir"
    }
    assert "mlflow.source.git.commit" not in tags  # HEAD need not be what trained it
    assert params["learning_rate"] == "0.001"
    history = client.get_metric_history(stored.info.run_id, "epoch/val_accuracy")
    assert [(m.step, round(m.value, 6)) for m in history] == [(1, 0.2), (2, 0.4), (3, 0.6)]
    assert "test_accuracy" in stored.data.metrics
    assert {"run.json", "history.csv", "evaluation"} <= {f.path for f in client.list_artifacts(stored.info.run_id)}
    assert find_run("sky", run_key(folder)).run_id == stored.info.run_id


def test_other_classes_and_no_validation_rows(project):
    folder = TRAINED / "zoo/cnn_small"
    predictions = write_trained(folder, classes=("smooth", "disc & bulge"))
    predictions["split"] = predictions["split"].replace("val", "train")
    predictions.to_csv(folder / "predictions.csv", index=False)
    assert "val_accuracy" not in _evaluate("zoo/cnn_small")["zoo-cnn_small"]
    assert "test_f1_disc _ bulge" in _stored("zoo-cnn_small").data.metrics


def test_without_a_test_part_networks_are_scored_on_val(project):
    predictions = write_trained(TRAINED / CELL, tested_on="val")
    predictions["split"] = predictions["split"].replace("test", "val")
    predictions.to_csv(TRAINED / CELL / "predictions.csv", index=False)
    found = _evaluate()["sdss_jpg-mobilenet"]
    labels, answers = _answers(predictions, "val")
    assert found["test_accuracy"] == found["val_accuracy"] == pytest.approx(accuracy_score(labels, answers))
    assert (found["n_test"], found["tested_on"]) == (50, "val")


def test_classes_that_mlflow_would_name_alike_keep_their_own_metrics(project):
    labels = ("a+b", "a_b", "a&b", "macro")
    write_trained(TRAINED / "zoo/cnn_small", classes=labels)
    _evaluate("zoo/cnn_small")
    stored = _stored("zoo-cnn_small").data.metrics
    per_class = pd.read_csv(OUT / "zoo/cnn_small/per_class.csv", index_col="class")["f1"]
    for label, name in zip(labels, ("a_b_2", "a_b", "a_b_3", "macro_2"), strict=True):
        assert stored[f"test_f1_{name}"] == pytest.approx(per_class[label], abs=1e-6)
    assert stored["test_f1_macro"] == pytest.approx(per_class.mean(), abs=1e-6)


def _edit(name, change):
    path = TRAINED / CELL / name
    if name.endswith(".json"):
        facts = json.loads(path.read_text())
        change(facts)
        path.write_text(json.dumps(facts))
    else:
        table = pd.read_csv(path, dtype=str)
        change(table)
        table.to_csv(path, index=False)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("run.json", lambda f: f.pop("weights"), "has no 'weights'"),
        ("run.json", lambda f: f.update(run="sdss_jpg-vgg16"), "is about sdss_jpg-vgg16 of sdss_jpg, not about"),
        ("run.json", lambda f: f.update(dataset="zoo"), "is about sdss_jpg-mobilenet of zoo"),
        ("run.json", lambda f: f.update(target="mood"), "unknown target 'mood'"),
        ("predictions.csv", lambda t: t.pop("p_QSO"), "'p_QSO' is missing"),
        ("predictions.csv", lambda t: t.__setitem__("p_QSO", "nan"), "not a number"),
        ("predictions.csv", lambda t: t.__setitem__("p_QSO", ""), "not a number"),
        ("predictions.csv", lambda t: t.__setitem__("p_QSO", "high"), "not a number"),
        ("predictions.csv", lambda t: t.__setitem__("label", "COMET"), "unknown class"),
        ("predictions.csv", lambda t: t.__setitem__("split", "exam"), "unknown split 'exam'"),
        ("predictions.csv", lambda t: t.__setitem__("split", "train"), "no test rows"),
        ("history.csv", lambda t: t.pop("val_loss"), "'val_loss' is missing"),
    ],
)
def test_refuses_malformed_files_and_writes_nothing(project, name, change, words):
    write_trained(TRAINED / CELL)
    plan = planned(TRAINED, CELL)
    _edit(name, change)
    with pytest.raises(DataError, match=words):
        _evaluate(plan=plan)
    assert not _files(Path("evaluation"))


def test_refuses_where_nothing_is_trained(project):
    with pytest.raises(DataError, match=r"models/trained: holds none of the 2 runs of params.yaml as they are planned"):
        _evaluate(CELL, "sdss_jpg/vgg16")


def test_runs_that_are_missing_or_out_of_date_are_named(project, capsys):
    write_trained(TRAINED / CELL)
    write_trained(TRAINED / "sdss_jpg/vgg16")
    plan = planned(TRAINED, CELL, "sdss_jpg/xception", "sdss_jpg/vgg16", "sdss_jpg/resnet50")
    plan[0] = replace(plan[0], settings=PARAMS | {"hidden_units": (1024, 1024, 512)})  # as JSON it is the same
    plan[2] = replace(plan[2], settings=PARAMS | {"augment": {"flip": True}})
    assert list(_evaluate(plan=plan)) == ["sdss_jpg-mobilenet"]
    assert capsys.readouterr().out == (
        "1 of 4 runs evaluated; not trained yet: sdss_jpg-xception, sdss_jpg-resnet50; out of date: sdss_jpg-vgg16\n"
    )
    assert json.loads((OUT / "summary.json").read_text())["left_out"] == [
        {"name": "sdss_jpg-xception", "reason": "not trained yet"},
        {"name": "sdss_jpg-vgg16", "reason": "out of date"},
        {"name": "sdss_jpg-resnet50", "reason": "not trained yet"},
    ]
    assert _stored().data.metrics["test_accuracy"] > 0
    write_trained(TRAINED / "sdss_jpg/resnet50")
    plan[2] = replace(plan[2], settings=PARAMS)
    del plan[1]
    assert len(_evaluate(plan=plan)) == 3
    assert capsys.readouterr().out == "3 of 3 runs evaluated\n"


# ---- what DVC shows ----

VOTES = "zoo/votes", "zoo/votes_tuned"


@pytest.fixture(scope="module")
def evaluated_votes(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = make_project(tmp_path_factory.mktemp("votes"), patch)
        write_trained(TRAINED / CELL)
        origin = {"study": "zoo-1", "trial": 57, "run": "votes"}
        write_fractions(TRAINED / VOTES[1], error=0.02, params=PARAMS | {"origin": origin})
        predictions = write_fractions(TRAINED / VOTES[0])
        test = predictions[predictions["split"] == "test"]
        worse = {f"p_{column}": (test[f"p_{column}"] * 0.8).to_numpy() for column in COLUMNS}
        _write_plain(TRAINED / VOTES[0], predictions, **worse)
        for name in VOTES:
            write_seen(TRAINED / name, predictions)
        _evaluate(CELL, *VOTES)
    return root


@pytest.fixture
def votes(evaluated_votes, monkeypatch):
    """The summary of a cell and of two runs of fractions; a project that nobody may change."""
    monkeypatch.chdir(evaluated_votes)
    return json.loads((OUT / "summary.json").read_text())["runs"]


def test_the_metrics_are_one_small_file_per_dataset(votes):
    assert {path.name: json.loads(path.read_text()) for path in METRICS.iterdir()} == {
        "sdss_jpg.json": {"mobilenet": votes["sdss_jpg-mobilenet"]["test_accuracy"]},
        "zoo.json": {
            "votes_rmse": votes["votes"]["test_rmse"],
            "votes_tuned_rmse": votes["votes_tuned"]["test_rmse"],
        },
    }


def test_the_plots_are_those_of_every_run(votes):
    names = {"sdss_jpg-mobilenet.csv", "votes.csv", "votes_tuned.csv"}
    assert {path.name: {file.name for file in path.iterdir()} for path in PLOTS.iterdir()} == {
        "curves": names, "loss": names, "confusion": names,
    }  # fmt: skip
    for name in names:
        curves = pd.read_csv(PLOTS / "curves" / name)
        assert curves.columns.tolist() == ["epoch", "train", "val"]
        assert curves["epoch"].tolist() == [1, 2, 3]
        assert curves["val"].tolist() == [0.2, 0.4, 0.6]
        assert pd.read_csv(PLOTS / "loss" / name)["val"].tolist() == pytest.approx([1.2, 0.6, 0.4])
    truth, answer = _answers(pd.read_csv(TRAINED / CELL / "predictions.csv"), "test")
    confusion = pd.read_csv(PLOTS / "confusion/sdss_jpg-mobilenet.csv")
    assert (confusion["actual"].tolist(), confusion["predicted"].tolist()) == (truth.tolist(), answer.tolist())
    predictions = pd.read_csv(TRAINED / VOTES[0] / "predictions.csv")
    test = predictions[predictions["split"] == "test"]
    confusion = pd.read_csv(PLOTS / "confusion/votes.csv")
    for kind, column in (("t", "actual"), ("p", "predicted")):
        most = test[[f"{kind}_Class1.{number}" for number in (1, 2, 3)]].to_numpy().argmax(axis=1)
        assert confusion[column].tolist() == [QUESTIONS[0].answers[place] for place in most]


# ---- pictures, and what is kept ----


SINGLE = "zoo/turned"


@pytest.fixture(scope="module")
def evaluated_pair(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = make_project(tmp_path_factory.mktemp("pair"), patch)
        write_trained(TRAINED / CELL)
        write_seen(TRAINED / SINGLE, write_trained(TRAINED / SINGLE, seed=4, skill=1.0, **FINE_TUNED))
        _evaluate(CELL, SINGLE)
    return root


@pytest.fixture
def pair(evaluated_pair, project):
    """A project of its own with a cell and a single run that are evaluated."""
    return shutil.copytree(evaluated_pair, project, dirs_exist_ok=True)


def test_single_runs_have_pictures_and_cells_have_none(pair):
    assert {path.name for path in (OUT / SINGLE / "pictures").iterdir()} == PICTURES
    assert min(cv2.imread(str(path)).std() for path in (OUT / SINGLE / "pictures").iterdir()) > 10
    assert {path.name for path in (OUT / SINGLE).iterdir()} == FILES | {"pictures"}
    assert {path.name for path in (OUT / CELL).iterdir()} == FILES
    artifacts = MlflowClient(tracking_uri()).list_artifacts(_stored("turned").info.run_id, "evaluation/pictures")
    assert {Path(one.path).name for one in artifacts} == PICTURES


def _ages(folder):
    return {path: path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def _append(path):
    path.write_bytes(path.read_bytes() + b"\n")


def test_what_did_not_change_is_left_alone_and_equals_a_fresh_evaluation(pair):
    before = _ages(OUT / CELL) | _ages(OUT / "zoo")
    network = TRAINED / CELL / "model.h5"
    network.write_bytes(network.read_bytes()[::-1])  # of which no picture is drawn
    _evaluate(CELL, SINGLE)
    assert _ages(OUT / CELL) | _ages(OUT / "zoo") == before
    kept = _files(OUT, METRICS, PLOTS)
    for folder in (OUT, METRICS, PLOTS):
        shutil.rmtree(folder)
    _evaluate(CELL, SINGLE)
    assert _files(OUT, METRICS, PLOTS) == kept


def test_many_runs_are_evaluated_side_by_side_to_the_same_files(project, monkeypatch):
    names = [f"sdss_jpg/network{n}" for n in range(evaluate.FEW + 1)]
    for seed, name in enumerate(names):
        write_trained(TRAINED / name, seed=seed)
    _evaluate(*names)
    together = _files(OUT, METRICS, PLOTS)
    shutil.rmtree(OUT)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "FEW", len(names))
        _evaluate(*names)
    assert _files(OUT, METRICS, PLOTS) == together
    (TRAINED / names[3] / "predictions.csv").write_text("id,split\n")
    shutil.rmtree(OUT)
    with pytest.raises(DataError, match=r"network3/predictions\.csv"):
        _evaluate(*names)


@pytest.mark.parametrize("name", ["run.json", "predictions.csv", "predictions_plain.csv", "history.csv", "model.h5"])
def test_an_evaluation_is_made_of_every_file(tmp_path, name):
    folder, reference = tmp_path / "zoo/turned", tmp_path / "zoo/other"
    for one in (folder, reference):
        _write_plain(one, write_trained(one))

    def keys():
        plain = evaluation_key(folder, None, pictures=False, code="a")
        drawn = evaluation_key(folder, None, pictures=True, code="a")
        return plain, drawn, evaluation_key(folder, reference, pictures=False, code="a")

    before = keys()
    assert len({*before, evaluation_key(folder, None, pictures=False, code="b")}) == 4
    (reference / name).write_bytes(b"another")
    of_reference = keys()
    assert of_reference[:2] == before[:2]
    assert (of_reference[2] != before[2]) == (name in ("run.json", "predictions.csv"))
    (folder / name).write_bytes(b"another")
    after = keys()
    assert after[1] != before[1]
    assert (after[0] != before[0]) == (after[2] != of_reference[2]) == (name != "model.h5")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "curves.png").unlink(),
        lambda folder: _append(folder / "confused.csv"),
        lambda folder: (folder / "plots/stray.csv").write_text("x"),
        lambda folder: (folder / "scores.json").write_text("{"),
        lambda folder: (folder / "scores.json").write_text("[]"),
        shutil.rmtree,
    ],
)
def test_a_spoiled_evaluation_is_written_again(pair, spoil):
    before, single = _files(OUT), _ages(OUT / SINGLE)
    spoil(OUT / CELL)
    _evaluate(CELL, SINGLE)
    assert _files(OUT) == before
    assert _ages(OUT / SINGLE) == single


def test_other_code_draws_everything_again(pair):
    before = _ages(OUT / CELL) | _ages(OUT / SINGLE)
    _evaluate(CELL, SINGLE, code="newer")
    assert not set((_ages(OUT / CELL) | _ages(OUT / SINGLE)).items()) & set(before.items())
    assert {path.name for path in (OUT / SINGLE / "pictures").iterdir()} == PICTURES


def test_refuses_images_of_other_objects(pair):
    rows = pd.read_csv(PACKED / "zoo/rows.csv", dtype=str)
    rows.iloc[::-1].to_csv(PACKED / "zoo/rows.csv", index=False)
    _evaluate(CELL, SINGLE)  # nothing to draw
    shutil.rmtree(OUT / SINGLE)
    with pytest.raises(DataError, match=r"zoo/turned/predictions.csv: has other objects than data/packed/zoo"):
        _evaluate(CELL, SINGLE)
    assert not (OUT / SINGLE).exists()


def test_what_is_no_longer_planned_trained_or_current_is_removed(pair):
    names = CELL, "sdss_jpg/vgg16", "sdss_jpg/xception"
    for name in names[1:]:
        write_trained(TRAINED / name)
    plan = planned(TRAINED, *names)
    _evaluate(plan=plan)
    assert {path.name for path in (OUT / "sdss_jpg").iterdir()} == {"mobilenet", "vgg16", "xception"}
    shutil.rmtree(TRAINED / names[1])
    plan[2] = replace(plan[2], settings={"seed": 2})
    (OUT / "notes.txt").write_text("stray")
    _evaluate(plan=plan)
    assert {path.name for path in OUT.iterdir()} == {"sdss_jpg", "paired.json", "summary.json"}
    assert {path.name for path in (OUT / "sdss_jpg").iterdir()} == {"mobilenet"}
    assert {path.name for path in METRICS.iterdir()} == {"sdss_jpg.json"}
    assert {path.name for path in (PLOTS / "loss").iterdir()} == {"sdss_jpg-mobilenet.csv"}


def test_a_failed_evaluation_leaves_no_summary_of_an_earlier_one(pair):
    (TRAINED / SINGLE / "model.h5").unlink()
    with pytest.raises(DataError, match=r"model.h5: does not exist"):
        _evaluate(CELL, SINGLE)
    assert not (OUT / "summary.json").exists()
    assert {path.name for path in (OUT / "zoo").iterdir()} == {"turned"}  # nothing half-written beside it


def test_keras_is_imported_for_new_pictures_only(pair):
    shutil.rmtree(OUT / CELL)  # this one is scored and drawn again
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from deepsky.evaluation.params import EvaluateParams\n"
        "from deepsky.evaluation.planned import Places\n"
        "from deepsky.stages import evaluate\n"
        "from tests.trained_folders import planned\n"
        "trained = Path('models/trained')\n"
        "plan = planned(trained, 'sdss_jpg/mobilenet', 'zoo/turned')\n"
        "folders = {name: Path('evaluation', name) for name in ('metrics', 'plots')}\n"
        "data = {name: Path('data', name) for name in ('packed', 'features')}\n"
        "places = Places(**data, trained=trained, out=Path('evaluation/runs'))\n"
        "evaluate.run(plan, EvaluateParams(), 'sky', places, **folders)\n"
        "print({'keras', 'tensorflow'} & set(sys.modules))\n"
    )
    path = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout.splitlines() == ["2 of 2 runs evaluated", "set()"], done.stderr
    assert {path.name for path in (OUT / CELL).iterdir()} == FILES


# ---- tuned runs beside their references ----

ORIGIN = {"study": "zoo-1", "trial": 57, "run": "sdss_jpg-mobilenet"}
TUNED = {"run": "{label}", "network": "mobilenet", "params": PARAMS | {"dropout": 0.3, "origin": ORIGIN}}
BOTH = CELL, "sdss_jpg/better"


def _write_reference_and_tuned(skill=3.0):
    reference, tuned = write_trained(TRAINED / CELL, skill=1.0), write_trained(TRAINED / BOTH[1], skill=skill, **TUNED)
    write_seen(TRAINED / BOTH[1], tuned)
    return reference, tuned


def test_gain_counts_the_same_objects(project):
    (truth, before), (_, after) = (_answers(table, "test") for table in _write_reference_and_tuned())
    summary = _evaluate(*BOTH)
    tuned, reference = summary["better"], summary["sdss_jpg-mobilenet"]
    n_gained, n_lost = ((after == truth) & (before != truth)).sum(), ((after != truth) & (before == truth)).sum()
    assert n_gained > 0
    assert (tuned["reference"], tuned["study"], tuned["trial"]) == ("sdss_jpg-mobilenet", "zoo-1", 57)
    assert tuned["gain"] == pytest.approx((n_gained - n_lost) / 25, abs=1e-6)
    assert (tuned["gain_low"], tuned["gain_high"]) == pytest.approx(
        paired_gain_interval(n_gained, n_lost, 25), abs=1e-6
    )
    assert tuned["gain"] == pytest.approx(tuned["test_accuracy"] - reference["test_accuracy"], abs=1e-6)
    assert not {"gain", "reference"} & set(reference)
    assert _stored("better").data.metrics["test_gain"] == pytest.approx(tuned["gain"], abs=1e-6)
    assert "test_gain" not in _stored().data.metrics


def test_the_gain_in_the_store_follows_the_reference(project):
    _write_reference_and_tuned()
    _evaluate(*BOTH)
    _evaluate(*BOTH)
    run = _stored("better")
    shutil.rmtree(TRAINED / CELL)
    write_trained(TRAINED / CELL, skill=5.0)
    _evaluate(*BOTH)
    again = _stored("better")
    assert again.info.run_id == run.info.run_id
    assert again.data.metrics["test_gain"] <= 0 < run.data.metrics["test_gain"]
    history = MlflowClient(tracking_uri()).get_metric_history(run.info.run_id, "test_gain")
    assert len(history) == 2


def test_a_restored_tuned_run_leads_to_its_trial(project):
    study = open_study_run("sky-tuning", "zoo-1", {}, {})
    study.log_trials([TrialRecord(57, "COMPLETE", 0, 1000, {"dropout": 0.3}, [], {"f1_macro": 0.5}, "")])
    _write_reference_and_tuned()
    _evaluate(*BOTH)
    tags = _stored("better").data.tags
    assert (tags["deepsky.study"], tags["deepsky.trial"], tags["deepsky.restored"]) == ("zoo-1", "57", "true")
    trial = MlflowClient(tracking_uri()).get_run(tags["deepsky.trial_run"])
    assert (trial.data.tags["deepsky.trial"], trial.data.params["dropout"]) == ("57", "0.3")
    assert "deepsky.study" not in _stored().data.tags


def test_refuses_to_compare_different_test_objects(project):
    reference, _ = _write_reference_and_tuned()
    first = reference.index[reference["split"] == "test"][0]
    reference.loc[first, "split"] = "train"
    reference.to_csv(TRAINED / CELL / "predictions.csv", index=False)
    with pytest.raises(DataError, match=r"better/predictions.csv: has other test objects than"):
        _evaluate(*BOTH)


@pytest.mark.parametrize("spoil", [lambda plan: plan.pop(0), lambda plan: shutil.rmtree(TRAINED / CELL)])
def test_a_tuned_run_without_its_reference_is_compared_later(project, spoil):
    _write_reference_and_tuned()
    shutil.copytree(TRAINED / CELL, "reference")
    plan = planned(TRAINED, *BOTH)
    spoil(plan)
    tuned = _evaluate(plan=plan)["better"]
    assert (tuned["reference"], tuned["trial"]) == ("sdss_jpg-mobilenet", 57)
    assert "gain" not in tuned
    shutil.copytree("reference", TRAINED / CELL, dirs_exist_ok=True)
    assert _evaluate(*BOTH)["better"]["gain"] > 0
    assert _stored("better").data.metrics["test_gain"] > 0


def test_the_gain_of_fractions_is_how_much_the_rmse_fell(votes):
    tuned = votes["votes_tuned"]
    assert tuned["gain"] == pytest.approx(votes["votes"]["test_rmse"] - tuned["test_rmse"], abs=2e-6)
    assert 0 < tuned["gain_low"] < tuned["gain"] < tuned["gain_high"]
    assert _stored("votes_tuned").data.metrics["test_gain"] == tuned["gain"]


# ---- single runs ----


def test_single_runs_stand_beside_the_matrix_with_the_gain_of_their_views(project):
    write_trained(TRAINED / CELL)
    folder = TRAINED / "zoo/turned"
    predictions = write_trained(folder, seed=4, skill=3.0, **FINE_TUNED)
    write_seen(folder, predictions)
    plain = _write_plain(folder, predictions, p_GALAXY=0.6, p_QSO=0.3, p_STAR=0.1)
    summary = _evaluate(CELL, "zoo/turned")
    assert set(summary) == {"sdss_jpg-mobilenet", "turned"}
    single, cell = summary["turned"], summary["sdss_jpg-mobilenet"]
    assert {name: single[name] for name in ("dataset", "label", "network", "learn", "start", "target", "is_cell")} == {
        "dataset": "zoo", "label": "turned", "network": "mobilenet", "learn": "all", "start": "pretrained",
        "target": "class", "is_cell": False,
    }  # fmt: skip
    assert (cell["label"], cell["learn"], cell["is_cell"]) == ("mobilenet", "head", True)
    assert "views_gain" not in cell
    truth, answer = _answers(predictions, "test")
    right, was_right = answer == truth, plain["label"] == "GALAXY"
    assert single["plain_accuracy"] == pytest.approx(was_right.mean(), abs=1e-6)
    assert single["views_gain"] == pytest.approx(right.mean() - was_right.mean(), abs=1e-6)
    wanted = share_gain_interval(right.to_numpy(), was_right.to_numpy(), Resampling(range(25)))[1:]
    assert (single["views_gain_low"], single["views_gain_high"]) == pytest.approx(wanted, abs=1e-6)
    assert _stored("turned").data.metrics["test_views_gain"] == pytest.approx(single["views_gain"], abs=1e-6)


def test_refuses_plain_predictions_of_other_objects(project):
    folder = TRAINED / "zoo/turned"
    predictions = write_trained(folder, **FINE_TUNED)
    _write_plain(folder, predictions.assign(id="x" + predictions["id"]))
    with pytest.raises(DataError, match=r"predictions_plain.csv: has other test objects than predictions.csv"):
        _evaluate("zoo/turned")


def test_vote_fractions_are_scored_per_question(votes):
    predictions, summary = pd.read_csv(TRAINED / VOTES[0] / "predictions.csv"), votes["votes"]
    test = predictions[predictions["split"] == "test"]
    truth, answer = (test[[f"{kind}_{column}" for column in COLUMNS]].to_numpy() for kind in "tp")
    rmse = np.sqrt(((answer - truth) ** 2).mean())
    assert (summary["target"], summary["network"], summary["n_test"]) == ("fractions", "regression_512", 20)
    assert summary["test_rmse"] == pytest.approx(rmse, abs=1e-6)
    assert summary["test_rmse_low"] < rmse < summary["test_rmse_high"] < summary["test_baseline"]
    train = predictions.loc[predictions["split"] == "train", [f"t_{column}" for column in COLUMNS]]
    baseline = np.sqrt(((train.mean().to_numpy() - truth) ** 2).mean())
    assert summary["test_baseline"] == pytest.approx(baseline, abs=1e-6)
    assert summary["plain_rmse"] == pytest.approx(np.sqrt(((0.8 * answer - truth) ** 2).mean()), abs=1e-6)
    assert summary["views_gain"] == pytest.approx(summary["plain_rmse"] - rmse, abs=2e-6)
    logged = _stored("votes").data.metrics
    assert logged["test_rmse_q7"] == pytest.approx(np.sqrt(((answer - truth)[:, 15:18] ** 2).mean()), abs=1e-6)
    assert {f"test_rmse_q{number}" for number in range(1, 12)} <= set(logged)
    assert {"train_rmse", "val_rmse", "test_tree_sum_error", "test_views_gain", "epoch/val_rmse"} <= set(logged)
    out = OUT / "zoo" / "votes"
    assert {path.name for path in out.iterdir()} == {
        "metrics.json", "scores.json", "examples.json", "rmse.csv", "groups.csv", "rmse.png", "fractions.png",
        "curves.png", "splits.png", "fraction_distribution.png", "plots", "pictures",
    }  # fmt: skip
    table = pd.read_csv(out / "rmse.csv")
    assert len(table) == 11 + 37
    assert table.loc[table["column"] == "Class7.1", "rmse"].item() == pytest.approx(
        np.sqrt(((answer - truth)[:, 15] ** 2).mean()), abs=1e-6
    )
    assert table.loc[table["column"].isna(), "question"].tolist() == list(range(1, 12))
    for path in out.glob("*.png"):
        assert cv2.imread(str(path)).std() > 10


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [("p_Class1.1", 1.5, "Class1.1 of prediction"), ("t_Class2.2", "", "Class2.2 of prediction .* is nan")],
)
def test_refuses_malformed_fractions(project, column, value, words):
    folder = TRAINED / "zoo/votes"
    predictions = write_fractions(folder)
    predictions.assign(**{column: value}).to_csv(folder / "predictions.csv", index=False)
    with pytest.raises(DataError, match=words):
        _evaluate("zoo/votes")
