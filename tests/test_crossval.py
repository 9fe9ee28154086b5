"""deepsky crossval: folds, what chooses, what is printed, kept and tracked."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from deepsky.commands import crossval, trainings
from deepsky.commands.jobs import job_maker, packed_of
from deepsky.datasets.packed import open_packed
from deepsky.datasets.splits import cross_validation
from deepsky.errors import ConfigError, DataError
from deepsky.experiment.experiment import read_experiment
from deepsky.experiment.fingerprint import Code
from deepsky.networks.registry import place_of
from deepsky.tracking.journal import deliver_waiting
from deepsky.tracking.studies import StudyRun
from deepsky.training.recipe import Origin
from tests.postgresql import closed_port
from tests.run_project import know_tiny, write_params, write_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return write_project(tmp_path_factory.mktemp("crossval"), patch)


@pytest.fixture(autouse=True)
def _inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    know_tiny(monkeypatch)
    # Its module is none of this package, and has no fingerprint.
    monkeypatch.setattr(trainings, "place_of", lambda name: place_of("mobilenet" if name == "tiny" else name))
    write_params(project)


def runs(project: Path) -> list:
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("deepsky-crossval")
    return client.search_runs([experiment.experiment_id]) if experiment else []


def metrics_of(project: Path, name: str) -> list[dict[str, float]]:
    """Of each fold of a run."""
    return [run.data.metrics for run in runs(project) if run.info.run_name.startswith(f"{name}-fold")]


def test_every_row_is_tested_once_and_groups_stay_whole() -> None:
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(30), 4)
    label = np.array(["a", "b"])[rng.permutation(np.tile([0, 1], 60))]
    rows = pd.DataFrame({"id": [f"{i:03d}" for i in rng.permutation(120)], "label": label, "group": group.astype(str)})
    splits = cross_validation(rows, 5, 1, 0.25)
    assert (np.sum([split == "test" for split in splits], axis=0) == 1).all()
    for split in splits:
        assert (pd.Series(split).groupby(group).nunique() == 1).all()
        for part in ("train", "val", "test"):
            assert set(label[split == part]) == {"a", "b"}
        assert (split == "test").sum() == pytest.approx(24, abs=5)
        assert (split == "val").sum() == pytest.approx(24, abs=5)
    order = rng.permutation(120)
    for split, shuffled in zip(splits, cross_validation(rows.iloc[order], 5, 1, 0.25), strict=True):
        assert (split[order] == shuffled).all()
    assert "val" not in np.concatenate(cross_validation(rows, 5, 1))
    assert any((one != other).any() for one, other in zip(splits, cross_validation(rows, 5, 2, 0.25), strict=True))


def test_a_run_is_trained_in_folds_and_finished_folds_are_kept(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crossval.run("net", 2, 1)
    first = capsys.readouterr().out.splitlines()
    assert [bool(re.fullmatch(r"fold \d of 2: accuracy [\d.]+, macro F1 [\d.]+, \d+ s", line)) for line in first] == [
        True, True, False,
    ]  # fmt: skip
    table = pd.read_csv("evaluation/crossval/net.csv")
    assert list(table["fold"]) == [1, 2]
    assert list(table["n_train"] + table["n_test"]) == [32, 32]  # keep: last needs no val rows
    mean, std = table["accuracy"].mean(), table["accuracy"].std()
    assert first[2].startswith(f"net: accuracy {mean:.4f} +- {std:.4f}, macro F1 ")

    parent, *others = sorted(runs(project), key=lambda run: "mlflow.parentRunId" in run.data.tags)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["accuracy_mean"] == pytest.approx(mean, abs=1e-6)
    for run in (parent, *others):
        assert (run.data.params["network"], run.data.params["learning_rate"]) == ("cnn_small", "0.003")
        assert "hidden_units" not in run.data.params  # of no effect
        assert run.data.tags["mlflow.deepsky.run"] == "net"
    assert {run.data.tags["deepsky.fold"] for run in others} == {"1", "2"}
    assert {run.data.tags["mlflow.parentRunId"] for run in others} == {parent.info.run_id}
    assert {run.info.status for run in others} == {"FINISHED"}
    for run in others:
        assert {"epoch/accuracy", "seconds", "epoch/loss", "epoch/seconds"} <= set(run.data.metrics)
        assert {"test_recall_BLUE", "test_precision_macro", "test_recall_weighted"} <= set(run.data.metrics)
        fold = table[table["fold"] == int(run.data.tags["deepsky.fold"])].iloc[0]
        for measure in ("accuracy", "f1_macro"):
            assert run.data.metrics[f"test_{measure}"] == pytest.approx(fold[measure], abs=1e-6)

    # A fold that is missing is trained again, and comes out the same; the others are left alone.
    table[table["fold"] == 1].to_csv("evaluation/crossval/net.csv", index=False)
    crossval.run("net", 2, 1)
    again = capsys.readouterr().out.splitlines()
    assert [line.endswith(" (done before)") for line in again] == [True, False, False]
    same = pd.read_csv("evaluation/crossval/net.csv")
    assert same.drop(columns="seconds").equals(table.drop(columns="seconds"))
    assert same["seconds"].iloc[0] == table["seconds"].iloc[0]
    assert sum("mlflow.parentRunId" not in run.data.tags for run in runs(project)) == 1


def test_folds_need_no_server(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {run.info.run_id for run in runs(project)}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
    crossval.run("net", 2, 6)
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].startswith("net: accuracy ")
    assert "deepsky runs --sync" in said.err
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert deliver_waiting() == 3
    new = [run for run in runs(project) if run.info.run_id not in before]
    (parent,) = [run for run in new if "mlflow.parentRunId" not in run.data.tags]
    folds = [run for run in new if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.data.tags["deepsky.fold"] for run in folds) == ["1", "2"]
    accuracies = [run.data.metrics["test_accuracy"] for run in folds]
    assert parent.data.metrics["accuracy_mean"] == pytest.approx(np.mean(accuracies))
    assert {run.info.status for run in new} == {"FINISHED"}


def test_a_signal_leaves_no_run_running_and_finished_folds(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {run.info.run_id for run in runs(project)}

    def statuses() -> dict[str, str]:
        new = [run for run in runs(project) if run.info.run_id not in before]
        return {run.data.tags.get("deepsky.fold", "parent"): run.info.status for run in new}

    def stop(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    write_params(project, epochs=1)
    between_folds = crossval._plan("net", 2, 1)
    with monkeypatch.context() as patch:
        patch.setattr(trainings.Trainings, "show", stop)
        with pytest.raises(SystemExit, match="143"):
            crossval.run("net", 2, 1)
    assert statuses() == {"parent": "KILLED", "1": "FINISHED"}
    done = trainings.finished(between_folds)
    assert list(done.index) == [1]

    # Another process does not know tiny; and the second fold must not end before the signal comes.
    write_params(project, ["net"], epochs=300)
    in_second_fold = crossval._plan("net", 2, 1)
    trainings._write_finished(done, in_second_fold)
    before |= {run.info.run_id for run in runs(project)}
    command = [sys.executable, "-m", "deepsky", "crossval", "net", "--folds", "2", "--seed", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(" (done before)\n")
        while "2" not in statuses() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 128 + signal.SIGINT
    assert statuses() == {"parent": "KILLED", "2": "KILLED"}
    assert list(trainings.finished(in_second_fold).index) == [1]


@pytest.mark.parametrize("store_refuses", [False, True])
def test_an_error_fails_the_run_and_is_the_one_that_is_told(
    store_refuses: bool, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(_plan: object, parent: StudyRun) -> None:
        if store_refuses:
            MlflowClient(f"sqlite:///{project / 'mlflow.db'}").delete_run(parent.run_id)
        raise DataError("dataset", "is gone", "find it")

    monkeypatch.setattr(trainings, "_train_missing", break_down)
    with pytest.raises(DataError, match="dataset: is gone"):
        crossval.run("net", 2, 5)
    if not store_refuses:
        assert [run.info.status for run in runs(project) if run.data.params.get("folds_seed") == "5"] == ["FAILED"]


def test_folds_of_other_code_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, hashed = crossval._plan("net", 2, 1), list[str]()
    assert crossval._plan("net", 2, 1).digests == plan.digests
    monkeypatch.setattr(Code, "fingerprint", lambda _, *modules: hashed.extend(modules) or "other")
    assert crossval._plan("net", 2, 1).digests != plan.digests
    code = {module.removeprefix("deepsky.") for module in Code().closure(hashed)}
    assert {"networks.cnn_small", "networks.heads", "training.fit", "training.job", "metrics"} <= code
    assert not {"networks.alexnet", "training.population", "tracking.store", "commands.crossval"} & code


def test_a_name_and_where_the_numbers_come_from_change_no_figures(project: Path) -> None:
    plan = crossval._plan("net", 2, 1)
    write_params(project, origin=Origin(study="s", trial=3, run="toy-cnn_small"))
    assert crossval._plan("net", 2, 1).digests == plan.digests
    write_params(project, learning_rate=1e-3)
    assert crossval._plan("net", 2, 1).digests != plan.digests


def test_best_weights_are_chosen_by_rows_of_the_other_folds_and_fractions_have_an_rmse(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = crossval._plan("votes_net", 2, 1)
    assert "val" not in np.concatenate(list(plain.splits.values()))
    write_params(Path(), epochs=1, keep="best", test_views=2)
    assert crossval._plan("votes_net", 2, 1).digests != plain.digests  # other settings under that name
    crossval.run("votes_net", 2, 1)
    assert re.search(r"^votes_net: RMSE 0\.\d{4} \+- ", capsys.readouterr().out, re.MULTILINE)
    assert all(m["test_plain_rmse"] != m["test_rmse"] for m in metrics_of(Path(), "votes_net"))
    fall = [m["test_plain_rmse"] - m["test_rmse"] - m["test_views_gain"] for m in metrics_of(Path(), "votes_net")]
    assert fall == pytest.approx([0.0, 0.0])
    table = pd.read_csv("evaluation/crossval/votes_net.csv")
    assert table["rmse"].between(0.01, 0.5).all()
    assert (table["n_train"] + table["n_test"] < 32).all()


def test_heads_are_trained_on_features_of_all_images(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_params(project, epochs=1, test_views=2)
    crossval.run("heads", 2, 1)
    assert capsys.readouterr().out.splitlines()[-1].startswith("heads: accuracy ")
    gains = [m["test_accuracy"] - m["test_plain_accuracy"] - m["test_views_gain"] for m in metrics_of(project, "heads")]
    assert gains == pytest.approx([0.0, 0.0])
    # A table of the same run that held other measures is no obstacle.
    Path("evaluation/crossval/heads.csv").write_text("fold,n_train,n_test,rmse,seconds,digest\n1,16,16,0.1,2,ab\n")
    assert trainings.finished(crossval._plan("heads", 2, 1)).empty


def test_a_cell_of_compare_is_a_run_too(capsys: pytest.CaptureFixture[str]) -> None:
    crossval.run("toy-cnn_small", 2, 1)
    assert capsys.readouterr().out.splitlines()[-1].startswith("toy-cnn_small: accuracy ")
    assert list(pd.read_csv("evaluation/crossval/toy-cnn_small.csv")["fold"]) == [1, 2]


def test_a_pretrained_backbone_is_trained_on_any_split() -> None:
    run = read_experiment().find("fine")
    packed = open_packed(packed_of(run.recipe))
    with job_maker(run, packed, np.arange(len(packed.images)), batch_size=8) as make_job:
        job = make_job(np.array(["train", "test"] * 16))
    assert (job.run, job.recipe, job.weights) == ("fine", run.recipe, "random")


def test_bad_input_is_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"run nett: is not in params\.yaml; choose one of: net"):
        crossval.run("nett", 2, 1)
    with pytest.raises(ConfigError, match="--folds 1: leaves nothing"):
        crossval.run("net", 1, 1)
    with pytest.raises(
        DataError, match="class BLUE: lies in 8 groups of these rows, too few for 9 folds; lower --fold"
    ):
        crossval.run("net", 9, 1)
    rows = Path("data/packed/toy/rows.csv")
    text = rows.read_text()
    rows.write_text(text.replace(",RED,", ",BLUE,"))
    try:
        with pytest.raises(DataError, match="data/packed/toy: holds one class only, BLUE; add objects"):
            crossval.run("net", 2, 1)
    finally:
        rows.write_text(text)
    assert open_packed(Path("data/packed/toy")).rows["label"].nunique() == 2
    Path("evaluation/crossval").mkdir(parents=True, exist_ok=True)
    Path("evaluation/crossval/fine.csv").write_text("nonsense\n1\n")
    with pytest.raises(DataError, match=r"fine\.csv: is no table of trainings .*; delete it"):
        crossval.run("fine", 2, 1)
