import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from sklearn.metrics import accuracy_score, f1_score

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.errors import DataError
from deepsky.metrics import paired_gain_interval
from deepsky.stages import evaluate
from deepsky.tracking.runs import find_run, run_key, training_run
from deepsky.tracking.store import prepare, tracking_uri
from deepsky.tracking.studies import TrialRecord, open_study_run
from deepsky.tuning.adopted import Adopted
from tests.trained_folders import CLASSES, RECIPE, make_project, write_fractions, write_trained

FILES = {
    "metrics.json", "per_class.csv", "confusion.csv", "confused.csv", "confusion.png", "curves.png", "splits.png",
    "class_distribution.png",
}  # fmt: skip
TRAINED, OUT, METRICS = Path("models/trained"), Path("evaluation/runs"), Path("evaluation/metrics.json")


@pytest.fixture
def project(tmp_path, monkeypatch):
    return make_project(tmp_path, monkeypatch)


def _evaluate(datasets=("sdss_jpg",), networks=("mobilenet",), adopted=(), recipes=()):
    evaluate.run(datasets, networks, adopted, recipes, "sky", trained=TRAINED, out=OUT, metrics=METRICS)


def _stored(network="mobilenet"):
    client, experiment = prepare("sky")
    found = client.search_runs([experiment], f"tags.`deepsky.network` = '{network}'")
    assert len(found) == 1
    return found[0]


def _answers(predictions, split):
    rows = predictions[predictions["split"] == split]
    columns = [c for c in predictions if c.startswith("p_")]
    return rows["label"], rows[columns].idxmax(axis=1).str.removeprefix("p_")


def test_figures_are_those_of_scikit_learn(project):
    predictions = write_trained(TRAINED / "sdss_jpg" / "mobilenet")
    _evaluate()
    truth, answer = _answers(predictions, "test")
    summary = json.loads(METRICS.read_text())["sdss_jpg"]["mobilenet"]
    assert summary["n_test"] == 25
    assert summary["test_accuracy"] == pytest.approx(accuracy_score(truth, answer), abs=1e-6)
    assert summary["test_f1_macro"] == pytest.approx(f1_score(truth, answer, average="macro"), abs=1e-6)
    assert summary["train_accuracy"] == pytest.approx(accuracy_score(*_answers(predictions, "train")), abs=1e-6)
    assert summary["test_accuracy_low"] < summary["test_accuracy"] < summary["test_accuracy_high"]
    majority = _answers(predictions, "train")[0].mode()[0]
    assert summary["test_baseline"] == pytest.approx((truth == majority).mean(), abs=1e-6)
    folder = OUT / "sdss_jpg" / "mobilenet"
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


def test_pictures_show_something_and_every_file_is_the_same_next_time(project):
    write_trained(TRAINED / "sdss_jpg" / "mobilenet", weights="random")
    _evaluate()
    first = {p.name: p.read_bytes() for p in (OUT / "sdss_jpg" / "mobilenet").iterdir()} | {"m": METRICS.read_bytes()}
    for name in (file for file in FILES if file.endswith(".png")):
        picture = cv2.imdecode(np.frombuffer(first[name], np.uint8), cv2.IMREAD_COLOR)
        assert min(picture.shape[:2]) > 200
        assert picture.std() > 10
    _evaluate()
    assert first == {p.name: p.read_bytes() for p in (OUT / "sdss_jpg" / "mobilenet").iterdir()} | {
        "m": METRICS.read_bytes()
    }


def test_scores_go_into_the_run_that_trained_once(project):
    folder = TRAINED / "sdss_jpg" / "mobilenet"
    with training_run(experiment="sky", dataset="sdss_jpg", network="mobilenet", params={}, tags={}) as run:
        write_trained(folder)
        run.log_epoch(1, {"accuracy": 0.1})
        run.finish_key(run_key(folder))
    _evaluate()
    _evaluate()
    stored, client = _stored(), MlflowClient(tracking_uri())
    assert stored.info.run_id == run.run_id
    assert "deepsky.restored" not in stored.data.tags
    summary = json.loads(METRICS.read_text())["sdss_jpg"]["mobilenet"]
    logged = stored.data.metrics
    for name in ("test_accuracy", "test_accuracy_low", "test_accuracy_high", "test_f1_macro", "test_f1_weighted"):
        assert logged[name] == pytest.approx(summary[name], abs=1e-6)
    assert logged["accuracy"] == 0.1
    kinds = (*CLASSES, "macro", "weighted")
    assert {f"test_{m}_{c}" for m in ("precision", "recall", "f1") for c in kinds} <= set(logged)
    assert {f"final_{s}_{m}" for m in ("accuracy", "f1_macro", "loss") for s in ("train", "val")} <= set(logged)
    assert len(client.get_metric_history(run.run_id, "test_accuracy")) == 1
    assert {Path(f.path).name for f in client.list_artifacts(run.run_id, "evaluation")} == FILES


def test_only_the_run_that_changed_is_logged_again(project):
    for seed, network in enumerate(("mobilenet", "vgg16")):
        write_trained(TRAINED / "sdss_jpg" / network, seed=seed)
    _evaluate(networks=("mobilenet", "vgg16"))
    for file in (TRAINED / "sdss_jpg" / "vgg16").iterdir():
        file.unlink()
    (TRAINED / "sdss_jpg" / "vgg16").rmdir()
    write_trained(TRAINED / "sdss_jpg" / "vgg16", seed=9)
    _evaluate(networks=("mobilenet", "vgg16"))
    client, experiment = prepare("sky")
    names = sorted(run.data.tags["deepsky.network"] for run in client.search_runs([experiment]))
    assert names == ["mobilenet", "vgg16", "vgg16"]


def test_outputs_restored_from_the_cache_get_a_run_of_their_own(project):
    folder = TRAINED / "sdss_jpg" / "mobilenet"
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
    assert tags["deepsky.stage"] == "train@sdss_jpg-mobilenet"
    assert {k: v for k, v in tags.items() if k.startswith("deepsky.data.")} == {
        "deepsky.data.data/packed/sdss_jpg": "aaa.dir"
    }
    assert "mlflow.source.git.commit" not in tags  # HEAD need not be what trained it
    assert (params["train.learning_rate"], params["n_skipped"]) == ("0.001", "2")
    history = client.get_metric_history(stored.info.run_id, "val_accuracy")
    assert [(m.step, round(m.value, 6)) for m in history] == [(1, 0.2), (2, 0.4), (3, 0.6)]
    assert "test_accuracy" in stored.data.metrics
    assert {"model.h5", "history.csv", "evaluation"} <= {f.path for f in client.list_artifacts(stored.info.run_id)}
    assert find_run("sky", run_key(folder)).run_id == stored.info.run_id


def test_other_classes_and_no_validation_rows(project):
    folder = TRAINED / "zoo" / "cnn_small"
    predictions = write_trained(folder, classes=("smooth", "disc & bulge"))
    predictions[predictions["split"] != "val"].to_csv(folder / "predictions.csv", index=False)
    _evaluate(("zoo",), ("cnn_small",))
    assert "val_accuracy" not in json.loads(METRICS.read_text())["zoo"]["cnn_small"]
    assert "test_f1_disc _ bulge" in _stored("cnn_small").data.metrics


def test_classes_that_mlflow_would_name_alike_keep_their_own_metrics(project):
    labels = ("a+b", "a_b", "a&b", "macro")
    write_trained(TRAINED / "zoo" / "cnn_small", classes=labels)
    _evaluate(("zoo",), ("cnn_small",))
    stored = _stored("cnn_small").data.metrics
    per_class = pd.read_csv(OUT / "zoo" / "cnn_small" / "per_class.csv", index_col="class")["f1"]
    for label, name in zip(labels, ("a_b_2", "a_b", "a_b_3", "macro_2"), strict=True):
        assert stored[f"test_f1_{name}"] == pytest.approx(per_class[label], abs=1e-6)
    assert stored["test_f1_macro"] == pytest.approx(per_class.mean(), abs=1e-6)


def _edit(name, change):
    path = TRAINED / "sdss_jpg" / "mobilenet" / name
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
        ("run.json", lambda f: f.update(network="vgg16"), "is about sdss_jpg x vgg16"),
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
    write_trained(TRAINED / "sdss_jpg" / "mobilenet")
    _edit(name, change)
    with pytest.raises(DataError, match=words):
        _evaluate()
    assert not OUT.exists()
    assert not METRICS.exists()
    assert not list(Path("evaluation").glob("*"))


def test_a_missing_folder_is_named(project):
    with pytest.raises(DataError, match=r"models/trained/sdss_jpg/mobilenet: is missing; run dvc repro"):
        _evaluate()


# ---- tuned networks beside their references ----

ADOPTED = Adopted(dataset="sdss_jpg", network="mobilenet", study="zoo-1", trial=57)
TUNED = {"tuned": {"network": "mobilenet", "study": "zoo-1", "trial": 57}, "train": {"dropout": 0.3}}


def _write_reference_and_tuned(skill=3.0):
    folder = TRAINED / "sdss_jpg"
    reference = write_trained(folder / "mobilenet", skill=1.0)
    tuned = write_trained(folder / "mobilenet_tuned", skill=skill, params=TUNED)
    return reference, tuned


def test_gain_counts_the_same_objects(project):
    (truth, before), (_, after) = (_answers(table, "test") for table in _write_reference_and_tuned())
    _evaluate(adopted=[ADOPTED])
    summary = json.loads(METRICS.read_text())["sdss_jpg"]
    tuned = summary["mobilenet_tuned"]
    n_gained, n_lost = ((after == truth) & (before != truth)).sum(), ((after != truth) & (before == truth)).sum()
    assert n_gained > 0
    assert (tuned["tuned_from"], tuned["study"], tuned["trial"]) == ("mobilenet", "zoo-1", 57)
    assert tuned["gain"] == pytest.approx((n_gained - n_lost) / 25, abs=1e-6)
    assert (tuned["gain_low"], tuned["gain_high"]) == pytest.approx(
        paired_gain_interval(n_gained, n_lost, 25), abs=1e-6
    )
    assert tuned["gain"] == pytest.approx(tuned["test_accuracy"] - summary["mobilenet"]["test_accuracy"], abs=1e-6)
    assert not {"gain", "tuned_from"} & set(summary["mobilenet"])
    assert {p.name for p in (OUT / "sdss_jpg" / "mobilenet_tuned").iterdir()} == FILES
    assert _stored("mobilenet_tuned").data.metrics["test_gain"] == pytest.approx(tuned["gain"], abs=1e-6)
    assert "test_gain" not in _stored("mobilenet").data.metrics


def test_the_gain_in_the_store_follows_the_reference(project):
    _write_reference_and_tuned()
    _evaluate(adopted=[ADOPTED])
    _evaluate(adopted=[ADOPTED])
    run = _stored("mobilenet_tuned")
    reference = TRAINED / "sdss_jpg" / "mobilenet"
    for file in reference.iterdir():
        file.unlink()
    reference.rmdir()
    write_trained(reference, skill=5.0)
    _evaluate(adopted=[ADOPTED])
    again = _stored("mobilenet_tuned")
    assert again.info.run_id == run.info.run_id
    assert again.data.metrics["test_gain"] <= 0 < run.data.metrics["test_gain"]
    history = MlflowClient(tracking_uri()).get_metric_history(run.info.run_id, "test_gain")
    assert len(history) == 2


def test_a_restored_tuned_run_leads_to_its_trial(project):
    study = open_study_run("sky-tuning", "zoo-1", {}, {})
    study.log_trials([TrialRecord(57, "COMPLETE", 0, 1000, {"dropout": 0.3}, [], {"f1_macro": 0.5}, "")])
    _write_reference_and_tuned()
    _evaluate(adopted=[ADOPTED])
    tags = _stored("mobilenet_tuned").data.tags
    assert (tags["deepsky.study"], tags["deepsky.trial"], tags["deepsky.restored"]) == ("zoo-1", "57", "true")
    trial = MlflowClient(tracking_uri()).get_run(tags["deepsky.trial_run"])
    assert (trial.data.tags["deepsky.trial"], trial.data.params["dropout"]) == ("57", "0.3")
    assert "deepsky.study" not in _stored("mobilenet").data.tags


def test_refuses_to_compare_different_test_objects(project):
    reference, _ = _write_reference_and_tuned()
    first = reference.index[reference["split"] == "test"][0]
    reference.loc[first, "split"] = "train"
    reference.to_csv(TRAINED / "sdss_jpg" / "mobilenet" / "predictions.csv", index=False)
    with pytest.raises(DataError, match=r"mobilenet_tuned/predictions.csv: has other test objects than"):
        _evaluate(adopted=[ADOPTED])


def test_an_adopted_network_that_was_not_trained_is_named(project):
    write_trained(TRAINED / "sdss_jpg" / "mobilenet")
    with pytest.raises(DataError, match=r"sdss_jpg/mobilenet_tuned: is missing; run dvc repro"):
        _evaluate(adopted=[ADOPTED])


# ---- recipes ----


def _write_plain(folder, predictions, **columns):
    test = predictions[predictions["split"] == "test"].assign(**columns)
    test.iloc[::-1].to_csv(folder / "predictions_plain.csv", index=False, float_format="%.6f")
    return test


def test_recipes_stand_beside_the_matrix_with_the_gain_of_their_views(project):
    write_trained(TRAINED / "sdss_jpg" / "mobilenet")
    folder = TRAINED / "zoo" / "turned"
    predictions = write_trained(folder, seed=4, skill=3.0, **RECIPE)
    plain = _write_plain(folder, predictions, p_GALAXY=0.6, p_QSO=0.3, p_STAR=0.1)
    _evaluate(recipes=[("zoo", "turned")])
    summary = json.loads(METRICS.read_text())
    assert set(summary) == {"sdss_jpg", "zoo"}
    recipe = summary["zoo"]["turned"]
    assert (recipe["way"], recipe["architecture"], recipe["target"]) == ("fine_tune", "mobilenet", "class")
    assert not {"way", "views_gain"} & set(summary["sdss_jpg"]["mobilenet"])
    truth, answer = _answers(predictions, "test")
    right, was_right = answer == truth, plain["label"] == "GALAXY"
    assert recipe["plain_accuracy"] == pytest.approx(was_right.mean(), abs=1e-6)
    assert recipe["views_gain"] == pytest.approx(right.mean() - was_right.mean(), abs=1e-6)
    wanted = paired_gain_interval((right & ~was_right).sum(), (was_right & ~right).sum(), 25)
    assert (recipe["views_gain_low"], recipe["views_gain_high"]) == pytest.approx(wanted, abs=1e-6)
    assert _stored("turned").data.metrics["test_views_gain"] == pytest.approx(recipe["views_gain"], abs=1e-6)


def test_refuses_plain_predictions_of_other_objects(project):
    folder = TRAINED / "zoo" / "turned"
    predictions = write_trained(folder, **RECIPE)
    _write_plain(folder, predictions.assign(id="x" + predictions["id"]))
    with pytest.raises(DataError, match=r"predictions_plain.csv: has other test objects than predictions.csv"):
        _evaluate((), (), recipes=[("zoo", "turned")])


def test_vote_fractions_are_scored_per_question(project):
    folder = TRAINED / "zoo" / "votes"
    predictions = write_fractions(folder)
    test = predictions[predictions["split"] == "test"]
    worse = {f"p_{column}": (test[f"p_{column}"] * 0.8).to_numpy() for column in COLUMNS}
    _write_plain(folder, predictions, **worse)
    _evaluate((), (), recipes=[("zoo", "votes")])
    truth, answer = (test[[f"{kind}_{column}" for column in COLUMNS]].to_numpy() for kind in "tp")
    rmse = np.sqrt(((answer - truth) ** 2).mean())
    summary = json.loads(METRICS.read_text())["zoo"]["votes"]
    assert (summary["target"], summary["architecture"], summary["n_test"]) == ("fractions", "regression_512", 20)
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
    assert {"final_train_rmse", "final_val_rmse", "test_tree_sum_error", "test_views_gain", "val_rmse"} <= set(logged)
    out = OUT / "zoo" / "votes"
    assert {path.name for path in out.iterdir()} == {
        "metrics.json", "rmse.csv", "rmse.png", "fractions.png", "curves.png", "splits.png",
        "fraction_distribution.png",
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
    folder = TRAINED / "zoo" / "votes"
    predictions = write_fractions(folder)
    predictions.assign(**{column: value}).to_csv(folder / "predictions.csv", index=False)
    with pytest.raises(DataError, match=words):
        _evaluate((), (), recipes=[("zoo", "votes")])
