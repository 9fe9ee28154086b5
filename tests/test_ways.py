"""The stages fine_tune and from_scratch, end to end on toy galaxies."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import pandas as pd
import pytest

from deepsky.catalogue.decision_tree import QUESTIONS, places
from deepsky.config import build
from deepsky.datasets.packed import open_packed
from deepsky.errors import ConfigError, DataError
from deepsky.networks.augment import AugmentParams
from deepsky.stages import fine_tune, from_scratch
from deepsky.tracking.runs import find_run, run_key
from deepsky.training.explain import check_pictures
from deepsky.training.image_job import ImageJob
from deepsky.training.job import read_split
from deepsky.training.recipes import FineTuneParams, FromScratchParams
from deepsky.training.saved import load_network
from tests.conftest import ROOT
from tests.recipe_project import know_tiny, write_random_weights
from tests.toy_galaxies import write_galaxies
from tests.trained_folders import make_project

FINE_TUNE = FineTuneParams(
    seed=1, label_smoothing=0.1, optimizer="adamw", learning_rate=1e-3, schedule="one_cycle", weight_decay=0.01,
    momentum=0.9, batch_size=8, epochs=1, patience=None, keep="best", dataset="toy", network="tiny",
    input_size_px=32, augment=AugmentParams(flip=True, rotation_deg=180.0), test_views=1, class_weights="balanced",
    mixup=0.2, precision="float32", answer="softmax", hidden_units=(8,), dropout=0.2, head_epochs=1,
    head_learning_rate=1e-2, unfreeze=2, norm="inference",
)  # fmt: skip
SCRATCH = FromScratchParams(
    seed=1, label_smoothing=0.0, optimizer="adamax", learning_rate=3e-3, schedule="cosine", weight_decay=0.0,
    momentum=0.9, batch_size=8, epochs=2, patience=None, keep="last", dataset="toy", network="cnn_small",
    input_size_px=16, augment=AugmentParams(flip=True, shift=0.1, brightness=0.1), test_views=4, class_weights="none",
    mixup=0.0, precision="float32", answer="tree",
)  # fmt: skip
FILES = {"model.h5", "history.csv", "predictions.csv", "run.json", "pictures"}
# What a fresh process does. TensorFlow: a stage again. JAX: a fit, and the answers of a network that was saved.
AGAIN = """
import json, sys
from pathlib import Path
from deepsky.config import build
from deepsky.networks import BACKBONES
from deepsky.stages import fine_tune
from deepsky.training.recipes import FineTuneParams
from tests.test_finetune import TINY

BACKBONES["tiny"] = TINY
inputs, sections = Path(sys.argv[1]), json.loads(sys.argv[3])
fine_tune.run("tuned", build(sections[0], FineTuneParams, ""), "tests", {"split": {"seed": 3}}, out=Path("tuned"),
              packed=inputs / "packed", split=inputs / "split.csv", weights=inputs / "weights")
"""
IN_JAX = """
import json, sys
from pathlib import Path
import keras
import numpy as np
from deepsky.config import build
from deepsky.datasets.packed import open_packed
from deepsky.stages import from_scratch
from deepsky.training.job import read_split
from deepsky.training.recipes import FromScratchParams
from deepsky.training.saved import load_network
from tests.test_image_fit import check_order_of_rows

assert keras.backend.backend() == "jax"
inputs, saved, sections = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
packed, params = open_packed(inputs / "votes/packed"), build(sections[1], FromScratchParams, "")
job = from_scratch.make_job("votes", params, {}, packed, read_split(inputs / "votes/split.csv", packed))
job.fit([]).to_csv("history.csv", index=False)
check_order_of_rows()
np.save("votes.npy", load_network(saved / "votes/model.h5")[0].predict(packed.images, verbose=0))
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = write_galaxies(tmp_path_factory.mktemp("ways") / "toy", 32, mirrored=True)
    write_galaxies(folder / "votes", 32, fractions=True)
    with pytest.MonkeyPatch.context() as patch:
        know_tiny(patch)
        write_random_weights("tiny", folder / "weights")
        yield folder


@pytest.fixture(scope="module")
def trained(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages, run once in this process."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        make_project(folder, patch)
        paths = {"packed": inputs / "packed", "split": inputs / "split.csv"}
        data = {"split": {"seed": 3}}
        fine_tune.run("tuned", FINE_TUNE, "tests", data, weights=inputs / "weights", out=folder / "tuned", **paths)
        votes = {"packed": inputs / "votes/packed", "split": inputs / "votes/split.csv"}
        from_scratch.run("votes", SCRATCH, "tests", {}, out=folder / "votes", **votes)
    return folder


def test_a_fine_tuned_network_says_alone_what_the_predictions_say(trained: Path, inputs: Path) -> None:
    out, packed = trained / "tuned", open_packed(inputs / "packed")
    assert {path.name for path in out.iterdir()} == FILES
    history = pd.read_csv(out / "history.csv")
    assert list(history["epoch"]) == [1, 2]  # the head's, and the whole's
    predictions = pd.read_csv(out / "predictions.csv", dtype={"id": str})
    assert list(predictions.columns) == ["id", "split", "label", "p_BLUE", "p_RED"]
    model, card = load_network(out / "model.h5")
    assert (card.network, card.target, card.weights) == ("tuned", "class", "random")
    alone = model.predict(packed.images, verbose=0)
    np.testing.assert_allclose(predictions[["p_BLUE", "p_RED"]], alone, atol=1e-5)
    facts = json.loads((out / "run.json").read_text())
    assert (facts["way"], facts["target"], facts["n_epochs"], facts["kept_epoch"]) == ("fine_tune", "class", 2, 2)
    assert facts["params"]["recipe"]["unfreeze"] == 2
    assert facts["params"]["split"] == {"seed": 3}
    assert facts["n_parameters"] == model.count_params()
    assert 0 < facts["n_trained_parameters"] < facts["n_parameters"]
    assert (out / "pictures/grad_cam.png").is_file()


def test_vote_fractions_obey_the_tree_and_have_plain_answers_beside_the_mean_ones(trained: Path, inputs: Path) -> None:
    out, packed = trained / "votes", open_packed(inputs / "votes/packed")
    assert {path.name for path in out.iterdir()} == FILES | {"predictions_plain.csv"}
    assert list(pd.read_csv(out / "history.csv").columns) == ["epoch", "rmse", "loss", "val_rmse", "val_loss"]
    predictions = pd.read_csv(out / "predictions.csv", dtype={"id": str})
    plain = pd.read_csv(out / "predictions_plain.csv", dtype={"id": str})
    assert list(plain.columns) == list(predictions.columns)
    assert list(plain["id"]) == list(predictions.query("split == 'test'")["id"])
    assert list(predictions.columns[3:5]) == ["p_Class1.1", "p_Class1.2"]
    assert packed.fractions is not None
    np.testing.assert_allclose(predictions.filter(like="t_Class"), packed.fractions, atol=1e-6)
    answers = predictions.filter(like="p_Class").to_numpy()
    np.testing.assert_allclose(answers[:, :3].sum(axis=1), 1, atol=3e-6)
    np.testing.assert_allclose(answers[:, places(QUESTIONS[6])].sum(axis=1), answers[:, 0], atol=3e-6)
    model, card = load_network(out / "model.h5")
    assert card.target == "fractions"
    np.testing.assert_allclose(answers, model.predict(packed.images, verbose=0), atol=1e-5)
    turned = np.rot90(packed.images, axes=(1, 2))  # the mean over quarter turns does not see them
    np.testing.assert_allclose(answers, model.predict(turned, verbose=0), atol=1e-4)
    test = predictions.query("split == 'test'").filter(like="p_Class").to_numpy()
    assert np.abs(test - plain.filter(like="p_Class").to_numpy()).max() > 1e-4


def test_the_run_in_mlflow_has_figures_parameters_and_pictures(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, measure in (("tuned", "val_accuracy"), ("votes", "val_rmse")):
        run = find_run("tests", run_key(trained / name))
        assert run is not None
        stored = run._client.get_run(run.run_id)
        epochs = run._client.get_metric_history(run.run_id, "epoch_s")
        assert [point.step for point in epochs] == [1, 2]
        assert {measure, "training_s", "images_per_s", "kept_epoch", "input_wait_share"} <= set(stored.data.metrics)
        assert stored.data.params["recipe.augment.flip"] == "True"
        assert stored.data.tags["deepsky.way"] in ("fine_tune", "from_scratch")
        assert any(file.path == "pictures/grad_cam.png" for file in run._client.list_artifacts(run.run_id, "pictures"))


def test_fresh_processes_train_the_same_network_and_jax_trains_and_loads_it(
    trained: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = json.dumps([asdict(FINE_TUNE), asdict(SCRATCH)])
    processes = []
    for backend, script in (("tensorflow", AGAIN), ("jax", IN_JAX)):
        out = tmp_path / backend
        out.mkdir()
        make_project(out, monkeypatch)
        environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", script, str(inputs), str(trained), sections]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in processes:
        errors = process.communicate()[1]
        assert process.returncode == 0, errors
    files = [path.relative_to(trained) for path in (trained / "tuned").rglob("*") if path.is_file()]
    assert len(files) > 8
    for file in files:
        assert (trained / file).read_bytes() == (tmp_path / "tensorflow" / file).read_bytes(), file
    said = pd.read_csv(trained / "votes/predictions.csv").filter(like="p_")
    np.testing.assert_allclose(np.load(tmp_path / "jax/votes.npy"), said, atol=2e-4)
    history = pd.read_csv(tmp_path / "jax/history.csv")
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


def changed_by_fit(job: ImageJob) -> set[str]:
    """Fit, and return the weights of the tail that are others afterwards; of its parts only the weights' own paths."""
    before = [(weight, np.array(weight)) for weight in job.tail.weights]
    history = job.fit([])
    assert np.isfinite(history["loss"]).all()
    return {"/".join(weight.path.split("/")[-2:]) for weight, old in before if not np.array_equal(weight, old)}


def test_a_backbone_learns_from_scratch(inputs: Path) -> None:
    packed = open_packed(inputs / "packed")
    params = replace(SCRATCH, network="tiny", input_size_px=32, answer="softmax", test_views=1, epochs=1)
    job = from_scratch.make_job("plain", params, {}, packed, read_split(inputs / "split.csv", packed))
    assert job.weights == "scratch"
    assert job.top == 255.0
    changed = changed_by_fit(job)
    assert {"conv1/kernel", "block2_depthwise/kernel", "block1_bn/gamma", "probabilities/kernel"} <= changed
    assert {"block1_bn/moving_mean", "bn/moving_mean", "bn/moving_variance"} <= changed
    np.testing.assert_allclose(job.answers().sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("norm", ["inference", "batch"])
def test_statistics_move_in_fine_tuning_where_the_recipe_lets_them(
    norm: Literal["inference", "batch"], inputs: Path
) -> None:
    packed = open_packed(inputs / "packed")
    params = replace(FINE_TUNE, norm=norm, unfreeze="all")
    job = fine_tune.make_job("norm", params, {}, packed, read_split(inputs / "split.csv", packed), inputs / "weights")
    statistics = [weight for weight in job.tail.weights if "moving" in weight.path]
    before = [np.array(weight) for weight in statistics]
    job.tail(job.front(packed.images[:8]), training=True)
    same = [np.array_equal(weight, old) for weight, old in zip(statistics, before, strict=True)]
    assert all(same) if norm == "inference" else not any(same)
    assert any("_bn/gamma" in weight.path for weight in job.tail.trainable_weights)


def test_the_residual_network_of_the_regression_study_has_its_parameters(inputs: Path) -> None:
    packed = open_packed(inputs / "votes/packed")
    params = replace(SCRATCH, network="resnet50", input_size_px=32, hidden_units=(512,), dropout=0.5, answer="sigmoid")
    with keras.StatelessScope():
        job = from_scratch.make_job("r50", params, {}, packed, read_split(inputs / "votes/split.csv", packed))
    # Keras gives 23,587,712 without top; 512 units on 2048 features and 37 answers on them; the step of one dropout.
    assert job.tail.count_params() == 23_587_712 + 2049 * 512 + 513 * 37 + 1


def test_no_training_begins_whose_pictures_cannot_be_drawn(inputs: Path) -> None:
    packed = open_packed(inputs / "votes/packed")
    job = from_scratch.make_job("votes", SCRATCH, {}, packed, read_split(inputs / "votes/split.csv", packed))
    check_pictures(job.tail, job.split)
    with pytest.raises(DataError, match="split test: holds no rows"):
        check_pictures(job.tail, np.full(32, "train"))
    with pytest.raises(DataError, match="network bare: has no layer 'maps'"):
        check_pictures(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="bare"), job.split)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "cnn_smal"}, "network cnn_smal: is unknown; choose one of: cnn_small, .*mobilenet"),
        ({"answer": "softmax"}, "answer softmax is for classes"),
        ({"dropout": 0.5}, r"recipe toy: cnn_small ends in layers of its own; set hidden_units: \[\] and dropout: 0"),
        ({"hidden_units": [8]}, "cnn_small ends in layers of its own"),
        ({"network": "xception", "input_size_px": 32}, "input_size_px 32 is too small"),
    ],
)
def test_a_recipe_that_does_not_fit_stops_with_a_line(change: dict[str, object], message: str, inputs: Path) -> None:
    packed = open_packed(inputs / "votes/packed")
    params = build({**json.loads(json.dumps(asdict(SCRATCH))), **change}, FromScratchParams, "recipe")
    with pytest.raises(ConfigError, match=message):
        from_scratch.make_job("toy", params, {}, packed, read_split(inputs / "votes/split.csv", packed))


def test_more_blocks_than_there_are_stop_with_a_line(inputs: Path) -> None:
    packed = open_packed(inputs / "packed")
    with pytest.raises(ConfigError, match="unfreeze 99"):
        fine_tune.make_job(
            "toy",
            replace(FINE_TUNE, unfreeze=99),
            {},
            packed,
            read_split(inputs / "split.csv", packed),
            inputs / "weights",
        )
