"""The whole run, as a user starts it, on a small simulated sky."""

import hashlib
import json
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.workspace import Workspace, make_workspace, shrink

RUNS = [(d, n) for d in ("sdss_frames", "sdss_cutouts") for n in ("mobilenet", "cnn_small")]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Workspace:
    """A project after its first `deepsky repro --jobs 2`."""
    workspace = make_workspace(tmp_path_factory.mktemp("pipeline"))
    shrink(workspace)
    workspace.run("deepsky", "repro", "--jobs", "2")
    return workspace


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


def runs(project: Workspace) -> pd.DataFrame:
    script = (
        "import mlflow; from deepsky.tracking.store import tracking_uri; mlflow.set_tracking_uri(tracking_uri());"
        "print(mlflow.search_runs(search_all_experiments=True).to_json(orient='records'))"
    )
    return pd.DataFrame(json.loads(project.run("python", "-c", script).stdout.splitlines()[-1]))


def test_every_stage_left_its_output(project):
    for dataset, network in RUNS:
        trained = project.root / "models/trained" / dataset / network
        assert {path.name for path in trained.iterdir()} == {"model.h5", "history.csv", "predictions.csv", "run.json"}
        assert (project.root / "evaluation/runs" / dataset / network / "confusion.png").stat().st_size > 1000
    assert "weights=random" in (project.root / "reports/index.html").read_text().replace(" ", "")


def test_nothing_left_the_machine(project):
    log = Path(project.env["DEEPSKY_SOCKET_LOG"])
    assert not log.exists(), log.read_text()


def test_second_repro_does_nothing(project):
    assert stages_run(project.run("dvc", "repro").stdout) == set()
    assert "up to date" in project.run("dvc", "status").stdout


def test_datasets_hold_the_same_objects_in_the_same_splits(project):
    splits = [pd.read_csv(project.root / f"data/splits/{d}.csv", dtype=str) for d in ("sdss_frames", "sdss_cutouts")]
    assert splits[0].equals(splits[1])
    assert len(splits[0]) == 8 * 3 * 4
    frames = np.load(project.root / "data/packed/sdss_frames/images.npy", mmap_mode="r")
    assert len(frames) == 8, "one image per field, not per object"


def test_each_run_is_in_mlflow_with_its_lineage(project):
    table = runs(project)
    assert set(table["status"]) == {"FINISHED"}
    assert sorted(zip(table["tags.deepsky.dataset"], table["tags.deepsky.network"], strict=True)) == sorted(RUNS)
    for column in ("metrics.accuracy", "metrics.val_loss", "metrics.test_accuracy", "metrics.test_f1_macro"):
        assert table[column].notna().all()
    assert table["tags.deepsky.stage"].str.startswith("train").all()
    assert set(table["tags.deepsky.weights"]) == {"random", "none"}
    lock = (project.root / "dvc.lock").read_text()
    hashes = [c for c in table.columns if c.startswith("tags.deepsky.data.")]
    assert hashes
    assert all(value in lock for column in hashes for value in table[column].dropna())


def test_learning_rate_reruns_train_evaluate_and_report_only(project):
    project.edit_params(train__learning_rate=0.002)
    ran = stages_run(project.run("dvc", "repro").stdout)
    assert ran == {"train@sdss_frames-mobilenet", "train@sdss_cutouts-mobilenet", "evaluate", "report"}
    assert len(runs(project)) == len(RUNS) + 2


def test_a_killed_run_is_never_left_running(project):
    target = "train@sdss_cutouts-mobilenet"
    before = hashlib.md5((project.root / "models/trained/sdss_cutouts/mobilenet/model.h5").read_bytes()).hexdigest()
    process = subprocess.Popen(
        ["dvc", "repro", "--force", "--single-item", target], cwd=project.root, env=project.env, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while "RUNNING" not in set(runs(project)["status"]) and time.monotonic() < deadline:
        time.sleep(0.2)
    subprocess.run(["pkill", "-KILL", "--session", str(process.pid)])
    assert process.wait() == -signal.SIGKILL
    project.run("dvc", "repro")
    assert set(runs(project)["status"]) == {"FINISHED", "KILLED"}
    after = hashlib.md5((project.root / "models/trained/sdss_cutouts/mobilenet/model.h5").read_bytes()).hexdigest()
    assert after == before
