"""The whole run, as a user starts it, on a small simulated sky."""

import hashlib
import json
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from deepsky.cli import cli, main
from deepsky.commands import lineage, reproduce
from deepsky.commands import runs as runs_command
from deepsky.commands.stored import find_stored
from deepsky.config import read_yaml
from deepsky.experiment.experiment import read_experiment
from deepsky.experiment.fingerprint import Code, changes_no_result
from deepsky.formats.registry import FORMATS
from deepsky.networks.registry import place_of
from tests.workspace import Workspace, make_workspace, shrink

MATRIX = [(d, n) for d in ("sdss_frames", "sdss_cutouts") for n in ("mobilenet", "cnn_small")]
SINGLES = [("galaxy_zoo1", "zoo_frozen"), ("galaxy_zoo1", "zoo1_fine_tune"), ("galaxy_zoo", "zoo_fractions")]
NAMES = sorted([f"{dataset}-{network}" for dataset, network in MATRIX] + [run for _, run in SINGLES])


def small_workspace(folder: Path) -> Workspace:
    workspace = make_workspace(folder)
    shrink(workspace)
    # Two of the four fields overlap: three groups, one for each part.
    workspace.edit_params(catalogue__n_fields=4, split__test_fraction=0.34, split__val_fraction=0.34)
    workspace.edit_params(
        archive__stsci_jpg=False,
        archive__bands=["g", "r", "i"],
        datasets__frames__sdss__bands=["g", "r", "i"],
        datasets__frames__sdss__rgb_bands=["i", "r", "g"],
        runs__zoo1_fine_tune__learn=1,
    )
    return workspace


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Workspace:
    """A project after its first `deepsky repro --jobs 2`; what it left stands in tree.json beside it."""
    workspace = small_workspace(tmp_path_factory.mktemp("pipeline"))
    workspace.run("deepsky", "repro", "--jobs", "2")
    (workspace.root.parent / "tree.json").write_text(json.dumps(tree(workspace.root)))
    return workspace


# One stage of each kind, in an order in which they can run; what they write, or keep from one run to the next.
KINDS = (
    "plan", "catalogue", "fetch", "simulate", "render@sdss", "pack@galaxy_zoo1", "split@galaxy_zoo1", "weights",
    "features@galaxy_zoo1", "train@sdss_cutouts-mobilenet", "train_run@zoo1_fine_tune", "train_run@zoo_fractions",
    "evaluate", "report",
)  # fmt: skip
OF_KINDS = (
    "plan.yaml", "versions.json", "data/catalogue.csv", "data/raw", "data/png", "data/packed/sdss_frames",
    "data/packed/sdss_rgb", "data/packed/sdss_cutouts", "data/packed/galaxy_zoo1", "data/splits/galaxy_zoo1.csv",
    "models/pretrained", "data/features/galaxy_zoo1", "models/trained/sdss_cutouts/mobilenet",
    "models/trained/galaxy_zoo1/zoo1_fine_tune", "models/trained/galaxy_zoo", "evaluation", "reports",
)  # fmt: skip


@pytest.fixture(scope="module")
def plain(project: Workspace, tmp_path_factory) -> Workspace:
    """The same project, with a stage of each kind run anew by plain `dvc repro`."""
    workspace = small_workspace(tmp_path_factory.mktemp("plain"))
    for name in ("data", "models", "dvc.lock"):
        project.run("cp", "-r", name, str(workspace.root))
    for name in OF_KINDS:
        workspace.run("rm", "-rf", name)
    workspace.run("dvc", "repro", "--force", "--single-item", *KINDS)
    return workspace


def tree(root: Path) -> dict[str, str]:
    """A hash of every file that stages wrote."""
    files = [root / name for name in ("plan.yaml", "versions.json")]
    for name in ("data", "models", "evaluation", "reports"):
        files += [path for path in sorted((root / name).rglob("*")) if path.is_file()]
    hashes = {str(path.relative_to(root)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}
    stages = read_yaml(root / "dvc.lock")["stages"]  # in the order in which they ended
    return hashes | {f"dvc.lock: {name}": json.dumps(entry, sort_keys=True) for name, entry in stages.items()}


def test_the_engine_leaves_what_plain_dvc_repro_leaves(project, plain):
    engine, alone = json.loads((project.root.parent / "tree.json").read_text()), tree(plain.root)
    assert engine.keys() == alone.keys()
    # The page also says how long each training took; that alone is never the same twice.
    page = {"reports/index.html", "dvc.lock: report"}
    assert {name for name in engine if engine[name] != alone[name]} <= page


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


def runs(project: Workspace) -> pd.DataFrame:
    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    parts = [
        (run, {"metrics": run.data.metrics, "tags": run.data.tags, "params": run.data.params}.items()) for run in found
    ]
    return pd.DataFrame(
        [
            {"status": run.info.status} | {f"{part}.{key}": values[key] for part, values in data for key in values}
            for run, data in parts
        ]
    )


def test_every_stage_left_its_output(project):
    for dataset, label in MATRIX + SINGLES:
        trained, evaluated = (project.root / place / dataset / label for place in ("models/trained", "evaluation/runs"))
        files = {"model.h5", "history.csv", "predictions.csv", "run.json"}
        files |= {"predictions_plain.csv"} if label == "zoo1_fine_tune" else set()
        assert {path.name for path in trained.iterdir()} == files
        assert (evaluated / "splits.png").stat().st_size > 1000
        if (dataset, label) in SINGLES:
            assert (evaluated / "pictures/grad_cam.png").stat().st_size > 1000
    assert "weights=random" in (project.root / "reports/index.html").read_text()


def test_nothing_left_the_machine(project):
    log = Path(project.env["DEEPSKY_SOCKET_LOG"])
    assert not log.exists(), log.read_text()


def test_a_run_is_followed_back_and_made_again(project, monkeypatch, capsys):
    """Its params.yaml was never committed, so the code is HEAD and the run's patch."""
    monkeypatch.chdir(project.root)
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    one = pd.read_csv(project.root / "models/trained/sdss_cutouts/cnn_small/predictions.csv", dtype=str).iloc[0]
    lineage.run("sdss_cutouts-cnn_small", one["id"], as_json=False)
    said = capsys.readouterr().out
    assert f"{one['id']}: {one['label']}, {one['split']} of sdss_cutouts" in said
    assert re.search(r"data/raw/frames/.*frame-r-.*\.fits\.bz2 [0-9a-f]{64} simulated:https://data.sdss.org/", said)
    assert f"sdss_cutouts/cnn_small: {one['split']}, {one['predicted']} {one['confidence']}" in said
    assert cv2.imread(f"evaluation/objects/{one['id']}.png").shape[1] > 500
    runs_command.check()
    assert capsys.readouterr().out == "every network has its run, every run its network\n"

    reproduce.run("sdss_cutouts-cnn_small", 1, keep=False)
    said = capsys.readouterr().out
    assert "\nsame: model.h5, predictions.csv and run.json are the same bytes\n" in said
    assert re.search(r"\nseed 2: accuracy [\d.]+\n1 other seeds: accuracy", said)
    assert find_stored("sdss_cutouts-cnn_small").tags["deepsky.reproduced"].startswith("same, 20")
    assert project.run("git", "worktree", "list").stdout.count("\n") == 1
    assert not list(Path(tempfile.gettempdir()).glob("deepsky-reproduce-*"))


def test_second_repro_does_nothing(project):
    assert stages_run(project.run("dvc", "repro").stdout) == set()
    assert "up to date" in project.run("dvc", "status").stdout


def test_a_clone_with_dvc_pull_runs_nothing_and_knows_its_runs(project, tmp_path):
    project.run("dvc", "remote", "add", "--default", "store", "../../store")
    project.run("dvc", "push")
    project.run("git", "add", ".")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "results")
    project.run("git", "clone", "--quiet", str(project.root), str(tmp_path / "clone"))
    clone = Workspace(tmp_path / "clone", project.env)
    store = f"sqlite:///{project.root / 'mlflow.db'}"
    said = clone.run("deepsky", "reproduce", "sdss_cutouts-cnn_small", MLFLOW_TRACKING_URI=store).stdout
    assert "\nsame: model.h5, predictions.csv and run.json are the same bytes\n" in said, (
        "its data come from the remote"
    )
    assert not list((clone.root / "data").rglob("*.npy")), "and none is left in the workspace"
    clone.run("dvc", "pull")
    assert "everything is up to date" in clone.run("deepsky", "repro", "--jobs", "2").stdout
    table = runs(clone)
    assert sorted(table["tags.mlflow.deepsky.run"]) == NAMES
    assert table["metrics.test_accuracy"].notna().sum() == len(NAMES) - 1, "and the fractions' RMSE"


def test_datasets_hold_the_same_objects_in_the_same_splits(project):
    splits = [pd.read_csv(project.root / f"data/splits/{d}.csv", dtype=str) for d in ("sdss_frames", "sdss_cutouts")]
    assert splits[0].equals(splits[1])
    assert len(splits[0]) == 4 * 3 * 4
    frames = np.load(project.root / "data/packed/sdss_frames/images.npy", mmap_mode="r")
    assert len(frames) == 4, "one image per field, not per object"


def test_each_run_is_in_mlflow_with_its_lineage(project):
    table = runs(project)
    assert set(table["status"]) == {"FINISHED"}
    assert sorted(table["tags.mlflow.deepsky.run"]) == NAMES
    of_classes = table[table["tags.mlflow.deepsky.run"] != "zoo_fractions"]
    for name in ("train_accuracy", "epoch/val_loss", "test_accuracy", "test_f1_macro"):
        assert of_classes[f"metrics.{name}"].notna().all()
    (fractions,) = table.drop(of_classes.index).to_dict("records")
    assert fractions["metrics.test_tree_sum_error"] < 1e-4
    assert fractions["metrics.test_rmse"] > 0
    assert fractions["metrics.test_rmse_q11"] > 0
    stages = table["tags.mlflow.deepsky.stage"].str.partition("@")[0]
    assert set(stages) == {"train", "train_run"}
    assert table["params.learning_rate"].notna().all(), "one name, whatever of a network learns"
    assert table["metrics.epoch/seconds"].gt(0).all()
    assert set(table["tags.deepsky.weights"]) == {"random", "imagenet", "scratch"}
    lock = (project.root / "dvc.lock").read_text()
    hashes = [c for c in table.columns if c.startswith("tags.mlflow.deepsky.data.")]
    assert hashes
    assert all(value in lock for column in hashes for value in table[column].dropna())


def test_one_runs_epochs_rerun_that_run_evaluate_and_report_only(project):
    project.edit_params(runs__zoo_frozen__epochs=2)
    ran = stages_run(project.run("dvc", "repro", "report").stdout)
    assert ran == {"plan", "train_run@zoo_frozen", "evaluate", "report"}
    assert len(runs(project)) == len(NAMES) + 1


def test_dvc_shows_the_results(project):
    shown = project.run("dvc", "metrics", "show").stdout
    assert max(map(len, shown.splitlines())) <= 120
    assert all(word in shown for word in ("sdss_cutouts", "mobilenet", "cnn_small", "zoo1_fine_tune"))
    plots = project.run("dvc", "plots", "show", "--json").stdout
    assert "curves/zoo_frozen.csv" in plots
    assert "confusion/sdss_cutouts-mobilenet.csv" in plots


def test_an_experiment_changes_one_run_and_leaves_the_others(project):
    before = (project.root / "params.yaml").read_text()
    done = project.run("dvc", "exp", "run", "-S", "+runs.zoo1_fine_tune.learning_rate=0.005")
    assert stages_run(done.stdout) == {"plan", "train_run@zoo1_fine_tune", "evaluate", "report"}
    facts = json.loads((project.root / "models/trained/galaxy_zoo1/zoo1_fine_tune/run.json").read_text())
    assert facts["params"]["learning_rate"] == 0.005
    assert (project.root / "params.yaml").read_text().count("0.005") == 1
    (project.root / "params.yaml").write_text(before)  # DVC writes the file anew, without its layout


def test_no_stage_runs_code_that_its_fingerprint_does_not_know(plain):
    """Registries import on demand and hide edges; what only parses or prints may be there."""
    code, experiment = Code(plain.root / "src/deepsky"), read_experiment(plain.root / "params.yaml")
    known = "import deepsky.cli, deepsky.experiment.plan, sys; print(' '.join(sys.modules))"
    parsing = set(plain.run(sys.executable, "-c", known).stdout.split())
    verbs = set()
    for line in Path(plain.env["DEEPSKY_SOCKET_LOG"]).with_name("modules.log").read_text().splitlines():
        verb, item, *imported = line.split(" ")
        if verb not in {path.stem for path in (plain.root / "src/deepsky/stages").glob("*.py")} or verb == "plan":
            continue
        verbs.add(verb)
        roots = [f"deepsky.stages.{verb}"]
        if verb == "train":
            roots.append(place_of(experiment.run(item).network))
        if verb in ("weights", "features"):
            roots += [place_of(run.recipe.network) for run in experiment.runs.values()]
        if verb == "fetch":
            roots.append("deepsky.archives.checks")  # what makes a file whole; the downloader calls it
        if verb == "pack":
            roots.append(FORMATS[experiment.pictures[item].format].module)
        unknown = {name for name in imported if not changes_no_result(name)} - code.closure(roots) - parsing
        assert not unknown, f"{verb} {item}"
    assert verbs == {
        "catalogue",
        "fetch",
        "simulate",
        "render",
        "pack",
        "split",
        "weights",
        "features",
        "train",
        "evaluate",
        "report",
    }


def test_a_killed_run_is_never_left_running(project):
    target = "train@sdss_cutouts-mobilenet"
    before = hashlib.md5((project.root / "models/trained/sdss_cutouts/mobilenet/model.h5").read_bytes()).hexdigest()
    process = subprocess.Popen(
        ["dvc", "repro", "--force", "--single-item", target], cwd=project.root, env=project.env, start_new_session=True
    )
    deadline = time.monotonic() + 60
    with closing(sqlite3.connect(f"file:{project.root}/mlflow.db?mode=ro", uri=True)) as store:
        while time.monotonic() < deadline:  # the run lasts a second: look often
            if store.execute("select 1 from runs where status = 'RUNNING'").fetchone():
                break
            time.sleep(0.01)
    subprocess.run(["pkill", "-KILL", "--session", str(process.pid)])
    assert process.wait() == -signal.SIGKILL
    project.run("deepsky", "repro", target)
    assert set(runs(project)["status"]) == {"FINISHED", "KILLED"}
    after = hashlib.md5((project.root / "models/trained/sdss_cutouts/mobilenet/model.h5").read_bytes()).hexdigest()
    assert after == before


def test_predict_labels_the_objects_of_frames_as_training_did(project, tmp_path):
    model = "models/trained/sdss_cutouts/mobilenet/model.h5"
    out = tmp_path / "out.csv"
    options = ("--catalogue", "data/catalogue.csv", "--id-column", "objid", "--csv", str(out))
    with inside(project):
        cli(["predict", model, "data/raw/frames", *options], standalone_mode=False)
    predicted = pd.read_csv(out, dtype={"id": str}).set_index("id")
    trained = pd.read_csv(project.root / Path(model).with_name("predictions.csv"), dtype={"id": str}).set_index("id")
    columns = ["p_GALAXY", "p_QSO", "p_STAR"]
    np.testing.assert_allclose(predicted.loc[trained.index, columns], trained[columns], atol=1e-4)
    assert (predicted[columns].idxmax(axis=1) == "p_" + predicted["class"]).all()


def test_predict_labels_pictures(project):
    frames = sorted((project.root / "data/png/sdss/frames/r").glob("*.png"))[:2]
    model = "models/trained/sdss_frames/cnn_small/model.h5"
    lines = project.run("deepsky", "predict", model, *map(str, frames)).stdout.splitlines()
    assert lines[0].split() == ["path", "class", "confidence", "p_GALAXY", "p_QSO", "p_STAR"]
    assert [line.split()[0] for line in lines[1:]] == [str(path) for path in frames]


@contextmanager
def inside(project: Workspace) -> Iterator[pytest.MonkeyPatch]:
    """This process in the project's folder: importing everything anew takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        patch.setenv("PATH", project.env["PATH"])
        yield patch


def refused(project: Workspace, *command: str) -> str:
    """The one line that a command refuses with."""
    with inside(project) as patch:
        patch.setattr(sys, "argv", ["deepsky", *command])
        with pytest.raises(SystemExit) as stop:
            main()
    line = str(stop.value.code)
    assert re.fullmatch("error: .*", line), line
    return line


def test_predict_refuses_in_one_line(project, tmp_path):
    flux = "models/trained/sdss_cutouts/cnn_small/model.h5"
    picture = next((project.root / "data/png/sdss/frames/r").glob("*.png"))
    (tmp_path / "text.h5").write_text("no network")
    options = ("--catalogue", "data/catalogue.csv", "--id-column", "objid", "--position-band", "q")
    assert "band 'q' is not among" in refused(project, "predict", flux, "data/raw/frames", *options)
    assert "give it FITS frames and --catalogue" in refused(project, "predict", flux, str(picture))
    assert "is not an HDF5 file" in refused(project, "predict", str(tmp_path / "text.h5"), str(picture))
    pictures = "models/trained/sdss_frames/cnn_small/model.h5"
    assert "params.yaml: is neither" in refused(project, "predict", pictures, "params.yaml")


def write_images(folder: Path, ids: list[str], labels: list[str]) -> Path:
    """A folder of seeded pictures, bright for class a and dark for class b, and its label table."""
    rng = np.random.default_rng(5)
    (folder / "pictures").mkdir(parents=True)
    for identity, label in zip(ids, labels, strict=True):
        pixels = rng.integers(0, 100, (40, 50, 3)) + (150 if label == "a" else 0)
        cv2.imwrite(str(folder / "pictures" / f"{identity}.png"), pixels.astype(np.uint8))
    table = folder / "labels.csv"
    pd.DataFrame({"name": ids, "kind": labels}).to_csv(table, index=False)
    return table


def test_add_images_joins_the_next_repro(project, tmp_path):
    table = write_images(tmp_path / "mine", [f"x{n}" for n in range(40)], ["a", "b"] * 20)
    columns = ("--id-column", "name", "--label-column", "kind", "--size-px", "32")
    before = (project.root / "params.yaml").read_text()
    with inside(project):
        cli(["add", "images", "mine", str(table.parent / "pictures"), str(table), *columns], standalone_mode=False)
    after = (project.root / "params.yaml").read_text()
    assert [line for line in before.splitlines() if "#" in line] == [x for x in after.splitlines() if "#" in x]
    assert (project.root / "data/external/mine.dvc").exists()
    project.run("deepsky", "repro", "--jobs", "2", "--only", "mine")
    assert "mine" in (project.root / "reports/index.html").read_text()
    predictions = pd.read_csv(project.root / "models/trained/mine/cnn_small/predictions.csv")
    assert set(predictions["split"]) == {"train", "val", "test"}
    assert "exists already" in refused(project, "add", "images", "mine", str(tmp_path), str(table), *columns)


def test_add_refuses_what_would_fail_later_and_leaves_nothing(project, tmp_path):
    table = write_images(tmp_path / "bad", ["1", "2"], ["a", "b"])
    pictures = str(table.parent / "pictures")
    columns = ("--id-column", "name", "--label-column", "kind")
    assert "size_px must lie" in refused(
        project, "add", "images", "bad", pictures, str(table), *columns, "--size-px", "0"
    )
    assert "group_column 'nope': is not a column of" in refused(
        project, "add", "images", "bad", pictures, str(table), *columns, "--group-column", "nope"
    )
    assert "'sdss_rgb' exists already" in refused(project, "add", "images", "sdss_rgb", pictures, str(table), *columns)
    pd.DataFrame({"name": ["1", "2", "3"], "kind": ["a", "b", "a"]}).to_csv(table, index=False)
    assert "1 of its 3 images" in refused(project, "add", "images", "bad", pictures, str(table), *columns)
    pd.DataFrame({"name": ["1.2E+18", "2"], "kind": ["a", "b"]}).to_csv(table, index=False)
    assert "rounded id 1.2E+18" in refused(project, "add", "images", "bad", pictures, str(table), *columns)
    pd.DataFrame({"name": ["1", "2"], "kind": ["a", "a"]}).to_csv(table, index=False)
    assert "is of the class 'a'" in refused(project, "add", "images", "bad", pictures, str(table), *columns)
    assert "is no name; use letters, digits and _" in refused(
        project, "add", "images", "Bad Name", pictures, str(table), *columns
    )
    pd.DataFrame({"ra": [1, 2], "dec": [1, 2], "class": ["a", "b"]}).to_csv(table, index=False)
    assert "no frames" in refused(project, "add", "frames", "bad", pictures, str(table))
    pd.DataFrame({"ra": [1, "x"], "dec": [1, 2], "class": ["a", "b"]}).to_csv(table, index=False)
    assert "no number" in refused(project, "add", "frames", "bad", pictures, str(table))
    assert not (project.root / "data/external/bad").exists()
    assert "bad:" not in (project.root / "params.yaml").read_text()


def test_a_broken_params_file_is_one_line_for_repro_too(project):
    text = (project.root / "params.yaml").read_text()
    try:
        (project.root / "params.yaml").write_text(text.replace("split:", "splitt:"))
        line = refused(project, "repro", "--jobs", "2")
    finally:
        (project.root / "params.yaml").write_text(text)
    assert line == "error: params.yaml: section 'splitt' is unknown; did you mean split?"


def test_a_full_disk_is_one_line_and_leaves_nothing(project):
    command = "ulimit -f 4; deepsky pack sdss_jpg --out data/full"
    done = project.run("bash", "-c", command, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: data/full: File too large; free space")
    assert not list((project.root / "data").glob("*full*"))
    assert not list((project.root / "data").glob(".full*"))


def test_a_wrong_key_in_params_is_one_line(project):
    text = (project.root / "params.yaml").read_text()
    try:
        (project.root / "params.yaml").write_text(text.replace("test_fraction", "test_fracton"))
        line = refused(project, "plan", "--out", "x.yaml")
    finally:
        (project.root / "params.yaml").write_text(text)
    assert line.startswith("error: params.yaml: split: 'test_fracton' is unknown; known keys: seed, test_fraction")
    assert not (project.root / "x.yaml").exists()
