"""Stage train: a run of each kind, end to end, and what it leaves behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from deepsky.catalogue.decision_tree import QUESTIONS, places
from deepsky.datasets.packed import DatasetCard, open_packed, write_rows
from deepsky.errors import ConfigError, DataError, WeightsError
from deepsky.networks.params import AugmentParams, WeightsParams
from deepsky.networks.registry import SCRATCH
from deepsky.stages import features as features_stage
from deepsky.stages import train as stage
from deepsky.stages import weights as weights_stage
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import find_run, run_params
from deepsky.tracking.store import tracking_uri
from deepsky.tracking.tags import flatten
from deepsky.tracking.trained_files import run_key
from deepsky.training.build import make_job
from deepsky.training.examples import read_split
from deepsky.training.fit import FRACTION_COLUMNS, HISTORY_COLUMNS
from deepsky.training.job import Job
from deepsky.training.recipe import Recipe
from deepsky.training.saved import load_network
from tests.conftest import ROOT
from tests.run_project import FLIPS, know_tiny, write_random_weights
from tests.toy_galaxies import write_galaxies
from tests.trained_folders import make_project

# One of each kind: a head on plain features, a head on views, a backbone trained on, networks from random weights.
HEAD = Recipe(
    dataset="toy", network="tiny", input_size_px=32, hidden_units=(16, 8), learning_rate=1e-2, batch_size=8, epochs=8,
    keep="last",
)  # fmt: skip
VIEWS = replace(
    HEAD, augment=AugmentParams(flip=True), n_views=2, test_views=8, dropout=0.2, schedule="cosine", epochs=2,
)  # fmt: skip
FINE = Recipe(
    dataset="toy", network="tiny", learn=2, norm="inference", input_size_px=32, hidden_units=(8,), dropout=0.2,
    head_epochs=1, head_learning_rate=1e-2, augment=FLIPS, class_weights="balanced", mixup=0.2, label_smoothing=0.1,
    optimizer="adamw", schedule="one_cycle", weight_decay=0.01, batch_size=8, epochs=1,
)  # fmt: skip
NET = Recipe(
    dataset="toy", network="cnn_small", start="scratch", learn="all", input_size_px=16, learning_rate=3e-3,
    batch_size=8, epochs=8, keep="last",
)  # fmt: skip
VOTES = replace(
    NET, answer="tree", optimizer="adamax", schedule="cosine", test_views=4, epochs=2,
    augment=AugmentParams(flip=True, shift=0.1, brightness=0.1),
)  # fmt: skip
RUNS = {"head": replace(HEAD, calibrate="temperature"), "views": VIEWS, "fine": FINE, "net": NET, "votes": VOTES}
FILES = {"model.h5", "history.csv", "predictions.csv", "run.json"}
AGAIN_TRAINED = ("views", "fine", "net")
# What a fresh process does: TensorFlow trains again; JAX fits, and answers with a network that was saved.
AGAIN = """
import sys
from pathlib import Path
import pytest
from tests.run_project import know_tiny
from tests.test_train import AGAIN_TRAINED, RUNS, run_train

know_tiny(pytest.MonkeyPatch())
for name in AGAIN_TRAINED:
    run_train(name, RUNS[name], Path(sys.argv[1]), Path())
"""
IN_JAX = """
import sys
from pathlib import Path
import keras
import numpy as np
from deepsky.datasets.packed import open_packed
from deepsky.training.saved import load_network
from tests.test_fit import check_order_of_rows
from tests.test_train import VOTES, job_of

assert keras.backend.backend() == "jax"
inputs, saved = Path(sys.argv[1]), Path(sys.argv[2])
job_of(VOTES, inputs).fit([]).to_csv("history.csv", index=False)
check_order_of_rows()
np.save("votes.npy", load_network(saved / "votes/model.h5")[0].predict(job_of(VOTES, inputs).packed.images, verbose=0))
"""


def write_sky(folder: Path, kind: str, n_rows: int = 60, n_images: int | None = None) -> Path:
    """Pack blue and red blobs; with fewer images than rows, neighbouring rows share one."""
    n_images = n_images or n_rows
    rng = np.random.default_rng(4)
    image_of_row = np.arange(n_rows) * n_images // n_rows
    red = np.arange(n_images) % 2 == 1
    y, x = np.mgrid[:24, :24] - 12
    blob = np.exp(-(x**2 + y**2) / 18)[..., None]
    colours = np.where(red[:, None], [0.2, 0.4, 1.0], [1.0, 0.4, 0.2])
    flux = blob * colours[:, None, None, :] * rng.uniform(0.5, 2, (n_images, 1, 1, 1))
    flux += rng.normal(0, 0.02, flux.shape)
    packed = folder / "packed"
    packed.mkdir(parents=True)
    images = flux.astype(np.float32) if kind == "flux" else (120 * flux).clip(0, 255).astype(np.uint8)
    np.save(packed / "images.npy", images)
    labels = np.where(red[image_of_row], "RED", "BLUE")
    rows = pd.DataFrame({"id": [f"{i:04d}" for i in range(n_rows)], "label": labels, "image": image_of_row})
    colour_bands = ("r", "g", "b") if kind == "flux" else ()
    write_rows(packed, rows, DatasetCard(kind, ("b", "g", "r"), colour_bands, ("BLUE", "RED"), 0.4, 3), [])  # type: ignore[arg-type]
    split = np.array(["train", "train", "val", "test"])[image_of_row // 2 % 4]
    pd.DataFrame({"id": rows["id"], "split": split, "group": rows["id"]}).to_csv(folder / "split.csv", index=False)
    return folder


def data_of(recipe: Recipe, inputs: Path) -> dict[str, Path]:
    folder = inputs / "votes" if recipe.answer == "tree" else inputs
    return {"packed": folder / "packed", "split": folder / "split.csv"}


def run_train(name: str, recipe: Recipe, inputs: Path, trained: Path, weights: Path | None = None) -> Path:
    """Run stage train, behind stage features where it needs that, from the inputs; return the folder it wrote."""
    data, weights, features = data_of(recipe, inputs), weights or inputs / "pretrained", trained / f"{name}-features"
    if recipe.of_head:
        cached = features_stage.NetworkFeatures(views={recipe.views.name: recipe.views})
        features_stage.run({recipe.network: cached}, 16, **data, weights=weights, out=features)
    paths = {**data, "features": features / recipe.network, "weights": weights / recipe.network, "out": trained / name}
    stage.run(name, recipe, TrackingParams(experiment="tests"), {"seed": 3}, **paths)
    return trained / name


def job_of(recipe: Recipe, inputs: Path) -> Job:
    """Build what is trained, of a run that reads no features."""
    data = data_of(recipe, inputs)
    packed = open_packed(data["packed"])
    split = read_split(data["split"], packed)
    return make_job("toy", recipe, packed, split, weights=inputs / "pretrained" / recipe.network)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_galaxies(tmp_path_factory.mktemp("inputs") / "toy", 32, mirrored=True)
    write_galaxies(folder / "votes", 32, fractions=True)
    with pytest.MonkeyPatch.context() as patch:
        know_tiny(patch)
        for network in ("tiny", "mobilenet"):
            write_random_weights(network, folder / "pretrained" / network)
    return folder


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    know_tiny(monkeypatch)


@pytest.fixture(scope="module")
def trained(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run, trained once in this process."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        know_tiny(patch)
        make_project(folder, patch)
        for name, recipe in RUNS.items():
            run_train(name, recipe, inputs, folder)
    return folder


def answers_of(predictions: pd.DataFrame) -> np.ndarray:
    return predictions.filter(regex="^p_").to_numpy()


def check_outputs(out: Path, recipe: Recipe, packed_folder: Path) -> pd.DataFrame:
    """Judge what stage train promises about its files; return the predictions."""
    packed, facts = open_packed(packed_folder), json.loads((out / "run.json").read_text())
    assert {path.name for path in out.iterdir()} == FILES | (
        {"predictions_plain.csv"} if recipe.test_views > 1 else set()
    )
    history = pd.read_csv(out / "history.csv")
    columns = HISTORY_COLUMNS if recipe.answer == "softmax" else FRACTION_COLUMNS
    assert tuple(history.columns) == columns
    assert history.notna().all(axis=None)
    assert list(history["epoch"]) == list(range(1, facts["n_epochs"] + 1))
    predictions = pd.read_csv(out / "predictions.csv", dtype={"id": str})
    assert list(predictions["id"]) == list(packed.rows["id"])
    # The saved network alone says from the pixels what the predictions say.
    model, card = load_network(out / "model.h5")
    alone = model.predict(packed.images[packed.rows["image"].to_numpy()], verbose=0)
    np.testing.assert_allclose(answers_of(predictions), alone, atol=1e-4)
    is_class = card.target == "class"
    of_answer = ["predicted", "correct", "confidence"] if is_class else []
    wanted = ["id", "split", "group", "label", *of_answer, *(f"p_{name}" for name in card.outputs)]
    assert list(predictions.columns[: len(wanted)]) == wanted
    if is_class:
        answers = predictions[wanted[7:]].set_axis(list(card.classes), axis=1)
        assert (predictions["predicted"] == answers.idxmax(axis=1)).all()
        assert (predictions["confidence"] == answers.max(axis=1)).all()
        assert (predictions["correct"] == (predictions["predicted"] == predictions["label"])).all()
    assert (card.dataset, card.network, card.weights) == ("toy", recipe.network, facts["weights"])
    assert (facts["run"], facts["dataset"], facts["network"]) == (out.name, "toy", recipe.network)
    assert (facts["start"], facts["learn"], facts["target"]) == (recipe.start, recipe.learn, card.target)
    assert facts["params"] == recipe.settings(own_head=recipe.network in SCRATCH)
    assert facts["n_parameters"] == model.count_params()
    assert 0 < facts["n_trained_parameters"] < facts["n_parameters"]
    counts = predictions.groupby(["split", "label"]).size()
    assert {(s, c): n for s, of in facts["class_counts"].items() for c, n in of.items()} == counts.to_dict()
    return predictions


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_each_kind_leaves_a_network_that_says_alone_what_the_predictions_say(
    name: str, trained: Path, inputs: Path
) -> None:
    recipe = RUNS[name]
    predictions = check_outputs(trained / name, recipe, data_of(recipe, inputs)["packed"])
    if recipe.test_views > 1:
        plain = pd.read_csv(trained / name / "predictions_plain.csv", dtype={"id": str})
        test = predictions.query("split == 'test'")
        assert list(plain.columns) == list(predictions.columns)
        assert list(plain["id"]) == list(test["id"])
        assert np.abs(answers_of(plain) - answers_of(test)).max() > 1e-3


def test_the_phases_of_a_fine_tuning_stand_in_one_history(trained: Path) -> None:
    facts = json.loads((trained / "fine/run.json").read_text())
    assert (facts["n_epochs"], facts["kept_epoch"]) == (2, 2)  # the head's, and the one that may be kept
    assert facts["weights"] == "random"
    assert facts["params"]["learn"] == 2


def test_vote_fractions_obey_the_tree_and_the_mean_over_quarter_turns_does_not_see_them(
    trained: Path, inputs: Path
) -> None:
    packed, predictions = open_packed(inputs / "votes/packed"), pd.read_csv(trained / "votes/predictions.csv")
    assert packed.fractions is not None
    np.testing.assert_allclose(predictions.filter(like="t_Class"), packed.fractions, atol=1e-6)
    answers = answers_of(predictions)
    np.testing.assert_allclose(answers[:, :3].sum(axis=1), 1, atol=3e-6)
    np.testing.assert_allclose(answers[:, places(QUESTIONS[6])].sum(axis=1), answers[:, 0], atol=3e-6)
    model, _ = load_network(trained / "votes/model.h5")
    turned = np.rot90(packed.images, axes=(1, 2))
    np.testing.assert_allclose(answers, model.predict(turned, verbose=0), atol=1e-4)


def test_runs_are_tracked_under_one_name_for_each_setting(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    for name, recipe in RUNS.items():
        run = find_run("tests", run_key(trained / name))
        assert run is not None
        client = MlflowClient(tracking_uri())
        stored = client.get_run(run.run_id)
        assert (stored.info.run_name, stored.info.status) == (name, "FINISHED")
        own = {key: stored.data.tags[f"mlflow.deepsky.{key}"] for key in ("run", "dataset", "network")}
        assert own == {"run": name, "dataset": "toy", "network": recipe.network}
        assert stored.data.params["learning_rate"] == str(recipe.learning_rate)
        assert stored.data.params["epochs"] == str(recipe.epochs)
        assert stored.data.params["split.seed"] == "3"
        assert ("augment.flip" in stored.data.params) == (name != "head")
        assert not [key for key in stored.data.params if key.startswith(("params", "recipe", "train"))]
        measure = "epoch/val_accuracy" if recipe.answer == "softmax" else "epoch/val_rmse"
        logged = {measure, "epoch/seconds", "training_s", "images_per_s", "kept_epoch", "epoch/input_wait_share"}
        assert logged <= set(stored.data.metrics)
        facts, applied = (
            json.loads((trained / name / "run.json").read_text()),
            stored.data.metrics.get("temperature_applied"),
        )
        assert (applied, applied is not None) == (facts.get("temperature_applied"), recipe.calibrate == "temperature")
        assert flatten({**run_params(facts), "split": {"seed": 3}}) == stored.data.params  # as a restored run logs them
        steps = [point.step for point in client.get_metric_history(run.run_id, "epoch/val_loss")]
        assert steps == list(pd.read_csv(trained / name / "history.csv")["epoch"])
        assert {file.path for file in client.list_artifacts(run.run_id)} >= FILES - {"model.h5"}
        (model,) = stored.outputs.model_outputs
        assert "model.h5" in {file.path for file in client.list_logged_model_artifacts(model.model_id)}


def test_fresh_processes_train_the_same_network_and_jax_trains_and_loads_it(
    trained: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = []
    for backend, script in (("tensorflow", AGAIN), ("jax", IN_JAX)):
        out = tmp_path / backend
        out.mkdir()
        make_project(out, monkeypatch)
        environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
        command = [sys.executable, "-c", script, str(inputs), str(trained)]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in processes:
        errors = process.communicate()[1]
        assert process.returncode == 0, errors
    for place in (f"{name}/{file}" for name in AGAIN_TRAINED for file in FILES):
        assert (trained / place).read_bytes() == (tmp_path / "tensorflow" / place).read_bytes(), place
    said = answers_of(pd.read_csv(trained / "votes/predictions.csv"))
    np.testing.assert_allclose(np.load(tmp_path / "jax/votes.npy"), said, atol=2e-4)
    history = pd.read_csv(tmp_path / "jax/history.csv")
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


@pytest.mark.parametrize("kind", ["uint8", "flux"])
@pytest.mark.parametrize(
    "recipe", [replace(HEAD, network="mobilenet", input_size_px=64, epochs=6), NET], ids=["head", "net"]
)
def test_pictures_and_flux_are_learned_from(
    kind: str, recipe: Recipe, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(tmp_path, monkeypatch)
    sky = write_sky(tmp_path / "sky", kind)
    out = run_train("toy_run", recipe, sky, tmp_path, weights=inputs / "pretrained")
    predictions = check_outputs(out, recipe, sky / "packed").query("split == 'test'")
    assert ((predictions["p_RED"] > 0.5) == (predictions["label"] == "RED")).mean() > 0.85
    assert json.loads((out / "run.json").read_text())["n_skipped"] == 3


def test_rows_that_share_an_image_share_its_probabilities(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(tmp_path, monkeypatch)
    sky = write_sky(tmp_path / "sky", "uint8", n_rows=64, n_images=16)
    out = run_train("shared", replace(HEAD, epochs=1), sky, tmp_path, weights=inputs / "pretrained")
    predictions = check_outputs(out, replace(HEAD, epochs=1), sky / "packed")
    assert np.load(tmp_path / "shared-features/tiny/32px/sides.npy").shape == (1, 16, 6)
    assert len(predictions) == 64
    assert predictions.groupby(np.arange(64) // 4)["p_RED"].nunique().max() == 1


def test_a_diverging_fit_leaves_nothing_behind(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_project(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=r"(loss is|not finite).*lower learning_rate"):
        run_train("wild", replace(HEAD, optimizer="sgd", learning_rate=1e3, l2=1e3), inputs, tmp_path)
    assert not [path for path in tmp_path.iterdir() if "wild" in path.name and "features" not in path.name]


def changed_by_fit(job: Job) -> set[str]:
    """Fit, and return the weights of the tail that are others afterwards; of its parts only the weights' own paths."""
    before = [(weight, np.array(weight)) for weight in job.tail.weights]
    history = job.fit([])
    assert np.isfinite(history["loss"]).all()
    return {"/".join(weight.path.split("/")[-2:]) for weight, old in before if not np.array_equal(weight, old)}


def test_a_backbone_learns_from_scratch_without_any_file(inputs: Path) -> None:
    recipe, packed = replace(NET, network="tiny", input_size_px=32, hidden_units=(), epochs=1), inputs / "packed"
    split = read_split(inputs / "split.csv", open_packed(packed))
    job = make_job("toy", recipe, open_packed(packed), split, weights=Path("nowhere"))
    assert (job.weights, job.top, len(job.phases)) == ("scratch", 255.0, 1)
    changed = changed_by_fit(job)
    assert {"conv1/kernel", "block2_depthwise/kernel", "block1_bn/gamma", "probabilities/kernel"} <= changed
    assert {"block1_bn/moving_mean", "bn/moving_mean", "bn/moving_variance"} <= changed
    np.testing.assert_allclose(job.answers().sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("recipe", [NET, replace(FINE, batch_size=16)], ids=["net", "fine"])
def test_calibration_changes_how_sure_a_network_is_and_no_answer(recipe: Recipe, inputs: Path) -> None:
    job = job_of(replace(recipe, calibrate="temperature"), inputs)
    last = next(layer for layer in job.tail._flatten_layers() if layer.name == "probabilities")
    last.kernel.assign(np.random.default_rng(0).normal(0, 20, last.kernel.shape))  # sure of itself, and often wrong
    before, val = job.answers(), job.split == "val"
    kernel, n_layers = np.array(last.kernel), len(job.whole.layers)
    temperature = job.calibrate()
    assert temperature is not None
    assert temperature > 1
    np.testing.assert_allclose(last.kernel, kernel / temperature, rtol=1e-5)
    after = job.answers()
    assert (after.argmax(axis=1) == before.argmax(axis=1)).all()
    image, label = job.packed.rows["image"].to_numpy()[val], job.packed.labels[val]
    loss_before, loss_after = (-np.log(np.maximum(of[image, label], 1e-7)).mean() for of in (before, after))
    assert loss_after < loss_before
    assert len(job.whole.layers) == n_layers
    np.testing.assert_allclose(job.whole.predict(job.packed.images, verbose=0), after, atol=1e-5)
    assert job_of(recipe, inputs).calibrate() is None


def test_only_one_softmax_at_the_end_is_calibrated(inputs: Path) -> None:
    with pytest.raises(ValueError, match="calibrate temperature needs one softmax at the end, test_views 4 averages"):
        replace(NET, calibrate="temperature", test_views=4)
    with pytest.raises(ValueError, match="answer tree has no classes"):
        replace(VOTES, calibrate="temperature", test_views=1)
    assert replace(NET, calibrate="temperature").chooses  # so that a run without val rows is refused
    job = job_of(NET, inputs)
    features = job.tail.layers[-2].output
    other = keras.Model(job.tail.inputs, keras.layers.Softmax(name="own_end")(features), name="other")
    with pytest.raises(ConfigError, match="run toy: calibrate: the network ends in own_end, which is no dense softmax"):
        replace(job, recipe=replace(NET, calibrate="temperature"), tail=other)


@pytest.mark.parametrize("norm", ["inference", "batch"])
def test_statistics_move_in_fine_tuning_where_the_recipe_lets_them(
    norm: Literal["inference", "batch"], inputs: Path
) -> None:
    job = job_of(replace(FINE, norm=norm, learn="all"), inputs)
    statistics = [weight for weight in job.tail.weights if "moving" in weight.path]
    before = [np.array(weight) for weight in statistics]
    job.tail(job.front(job.packed.images[:8]), training=True)
    same = [np.array_equal(weight, old) for weight, old in zip(statistics, before, strict=True)]
    assert all(same) if norm == "inference" else not any(same)
    assert any("_bn/gamma" in weight.path for weight in job.tail.trainable_weights)


def test_the_residual_network_of_the_regression_study_has_its_parameters(inputs: Path) -> None:
    with keras.StatelessScope():
        job = job_of(replace(VOTES, network="resnet50", input_size_px=32, hidden_units=(512,), dropout=0.5), inputs)
    # Keras gives 23,587,712 without top; 512 units on 2048 features and 37 answers on them; the step of one dropout;
    # nine ones and zeros that turn RGB into BGR.
    assert job.tail.count_params() == 23_587_712 + 2049 * 512 + 513 * 37 + 1 + 9


@pytest.mark.parametrize(
    ("recipe", "change", "error", "message"),
    [
        (
            VOTES,
            {"network": "cnn_smal"},
            ConfigError,
            r"network cnn_smal: is unknown; choose one of: efficientnet_lite0.*cnn_sm",
        ),
        (
            VOTES,
            {"answer": "softmax", "dataset": "votes"},
            ConfigError,
            "a run of votes: answer softmax is for classes",
        ),
        (VOTES, {"network": "xception", "input_size_px": 32}, ConfigError, "input_size_px 32 is too small"),
        (FINE, {"learn": 99}, ConfigError, "learn 99, but tiny has 2 blocks; write 1 to 2, head or all"),
        (FINE, {"network": "vgg16"}, WeightsError, "vgg16: holds no weights .*; run dvc repro weights"),
    ],
)
def test_a_recipe_that_does_not_fit_stops_with_a_line(
    recipe: Recipe, change: dict[str, Any], error: type[Exception], message: str, inputs: Path
) -> None:
    packed = open_packed(data_of(recipe, inputs)["packed"])
    changed, split = replace(recipe, **change), np.full(32, "train")
    with pytest.raises(error, match=message):
        make_job("toy", changed, packed, split, weights=inputs / "pretrained" / changed.network)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id,part\n0001,train\n", "is not a split"),
        ("id,split\n0000,train\n", "object 0001 has the split ''"),
        ("id,split\n0000,training\n", "object 0000 has the split 'training'"),
    ],
)
def test_splits_that_do_not_fit_are_refused(text: str, problem: str, inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=rf"split\.csv: {problem}"):
        read_split(tmp_path / "split.csv", open_packed(inputs / "packed"))


@pytest.mark.real
def test_real_weights_tell_galaxies_apart(
    real_data: Callable[[str], Path], real_weights: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """80 edge_on and 80 round galaxies, small: far above chance, which random labels would not be."""
    cv2 = pytest.importorskip("cv2")
    folder = real_data("kaggle_galaxy_zoo")
    table = pd.read_csv(folder / "labels.csv", dtype=str).query("label5_name in ['round', 'edge_on']")
    table = table.groupby("label5_name").head(80).reset_index(drop=True)
    files = {path.stem: path for path in folder.rglob("*.jpg")}
    ids = table[table.columns[0]]
    images = np.stack([cv2.resize(cv2.imread(str(files[i]))[92:332, 92:332, ::-1], (96, 96)) for i in ids])
    packed = tmp_path / "packed"
    packed.mkdir()
    np.save(packed / "images.npy", images)
    rows = pd.DataFrame({"id": ids, "label": table["label5_name"], "image": range(len(ids))})
    write_rows(packed, rows, DatasetCard("uint8", ("r", "g", "b"), (), ("edge_on", "round"), None, 0), [])
    order = np.random.default_rng(0).permutation(len(ids)) % 4
    split = np.array(["train", "train", "val", "test"])[order]
    pd.DataFrame({"id": ids, "split": split, "group": ids}).to_csv(tmp_path / "split.csv", index=False)
    make_project(tmp_path, monkeypatch)
    monkeypatch.setenv("DEEPSKY_WEIGHTS", str(real_weights()))
    weights_stage.run({"mobilenet": True}, WeightsParams(source="imagenet"), out=tmp_path / "pretrained")
    recipe = Recipe(dataset="toy", network="mobilenet", input_size_px=96, hidden_units=(64,), batch_size=8, epochs=6)
    out = run_train("galaxies", recipe, tmp_path, tmp_path)
    predictions = check_outputs(out, recipe, packed).query("split == 'test'")
    accuracy = ((predictions["p_round"] > 0.5) == (predictions["label"] == "round")).mean()
    assert accuracy > 0.85
    assert json.loads((out / "run.json").read_text())["weights"] == "imagenet"
