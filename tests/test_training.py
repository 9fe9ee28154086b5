"""Features, fitting and the train stages, on toy skies that can be learned."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from deepsky.config import read_section
from deepsky.datasets.packed import DatasetCard, open_packed, write_rows
from deepsky.errors import ConfigError, DataError
from deepsky.networks.backbone import BackboneParams
from deepsky.networks.heads import build_head, softmax_answer
from deepsky.networks.pretrained import WeightsParams
from deepsky.stages import features as features_stage
from deepsky.stages import train as train_stage
from deepsky.stages import train_scratch as scratch_stage
from deepsky.stages import weights as weights_stage
from deepsky.training.features import FeaturesParams, predict_batches, read_features, write_features
from deepsky.training.fit import HISTORY_COLUMNS, Examples, ScratchParams, TrainParams, fit
from deepsky.training.job import read_split
from deepsky.training.saved import load_network
from tests.trained_folders import make_project

TRAIN = TrainParams(
    seed=1,
    hidden_units=(16, 8),
    activation="relu",
    dropout=0.0,
    batch_norm=False,
    l2=0.0,
    label_smoothing=0.0,
    optimizer="adam",
    learning_rate=1e-2,
    schedule="constant",
    weight_decay=0.004,
    momentum=0.9,
    batch_size=8,
    epochs=6,
    patience=None,
    keep="last",
)
SCRATCH = ScratchParams(
    seed=1, input_size_px=16, label_smoothing=0.0, optimizer="adam", learning_rate=3e-3, schedule="constant",
    weight_decay=0.004, momentum=0.9, batch_size=8, epochs=8, patience=None, keep="last",
)  # fmt: skip
SIZE_PX = 64
FILES = {"model.h5", "history.csv", "predictions.csv", "run.json"}


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
    pd.DataFrame({"id": rows["id"], "split": split, "group": ""}).to_csv(folder / "split.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("weights") / "mobilenet"
    weights_stage.run("mobilenet", WeightsParams(source="random", folder=None, download=False, seed=1), out=out)
    return out


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project of its own: the store and its artifacts stand beside dvc.yaml."""
    make_project(tmp_path, monkeypatch)


def run_features(sky: Path, weights: Path) -> Path:
    out = sky / "features.npy"
    features_stage.run(
        "mobilenet", BackboneParams(SIZE_PX), FeaturesParams(16), packed=sky / "packed", weights=weights, out=out
    )
    return out


def run_train(sky: Path, weights: Path, params: TrainParams = TRAIN) -> Path:
    out = sky / "trained"
    train_stage.run(
        "toy",
        "mobilenet",
        params,
        BackboneParams(SIZE_PX),
        "tests",
        {},
        packed=sky / "packed",
        split=sky / "split.csv",
        features=sky / "features.npy",
        weights=weights,
        out=out,
    )
    return out


def run_scratch(sky: Path, params: ScratchParams = SCRATCH) -> Path:
    out = sky / "trained"
    scratch_stage.run("toy", "cnn_small", params, "tests", {}, packed=sky / "packed", split=sky / "split.csv", out=out)
    return out


def check_outputs(out: Path, sky: Path) -> None:
    """Judge what every train stage promises about its files."""
    packed = open_packed(sky / "packed")
    assert {path.name for path in out.iterdir()} == FILES
    history = pd.read_csv(out / "history.csv")
    assert tuple(history.columns) == HISTORY_COLUMNS
    predictions = pd.read_csv(out / "predictions.csv", dtype={"id": str})
    assert list(predictions.columns) == ["id", "split", "label", "p_BLUE", "p_RED"]
    assert list(predictions["id"]) == list(packed.rows["id"])
    # The saved network alone, from the pixels, says what features + head said.
    model, card = load_network(out / "model.h5")
    alone = model.predict(packed.images[packed.rows["image"].to_numpy()], verbose=0)
    np.testing.assert_allclose(predictions[["p_BLUE", "p_RED"]].to_numpy(), alone, atol=1e-5)
    facts = json.loads((out / "run.json").read_text())
    assert (facts["dataset"], facts["weights"], facts["n_skipped"]) == ("toy", card.weights, 3)
    assert facts["n_parameters"] == model.count_params()
    counts = predictions.groupby(["split", "label"]).size()
    assert {(s, c): n for s, of in facts["class_counts"].items() for c, n in of.items()} == counts.to_dict()


@pytest.mark.parametrize("kind", ["uint8", "flux"])
def test_the_head_learns_and_the_saved_network_agrees(kind: str, weights: Path, tmp_path: Path) -> None:
    sky = write_sky(tmp_path / "sky", kind)
    run_features(sky, weights)
    out = run_train(sky, weights)
    check_outputs(out, sky)
    predictions = pd.read_csv(out / "predictions.csv").query("split == 'test'")
    assert ((predictions["p_RED"] > 0.5) == (predictions["label"] == "RED")).mean() > 0.85
    assert json.loads((out / "run.json").read_text())["params"]["train"]["learning_rate"] == 1e-2


@pytest.mark.parametrize("kind", ["uint8", "flux"])
def test_cnn_small_learns_and_the_saved_network_agrees(kind: str, tmp_path: Path) -> None:
    sky = write_sky(tmp_path / "sky", kind)
    out = run_scratch(sky)
    check_outputs(out, sky)
    predictions = pd.read_csv(out / "predictions.csv").query("split == 'test'")
    assert ((predictions["p_RED"] > 0.5) == (predictions["label"] == "RED")).mean() > 0.85


def test_rows_that_share_an_image_share_its_probabilities(weights: Path, tmp_path: Path) -> None:
    sky = write_sky(tmp_path / "sky", "uint8", n_rows=64, n_images=16)
    assert np.load(run_features(sky, weights)).shape[0] == 16
    out = run_train(sky, weights, replace(TRAIN, epochs=1))
    check_outputs(out, sky)
    predictions = pd.read_csv(out / "predictions.csv")
    assert len(predictions) == 64
    assert predictions.groupby(np.arange(64) // 4)["p_RED"].nunique().max() == 1


def test_features_do_not_depend_on_the_batch_and_hold_each_image_once() -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    images = np.random.default_rng(0).normal(size=(23, 4, 4, 1)).astype(np.float32)
    for batch_size in (1, 5, 23, 32):
        np.testing.assert_array_equal(predict_batches(model, images, batch_size), images.reshape(23, 16))
    assert predict_batches(model, images[:0], 5).shape == (0, 16)


def test_features_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "features" / "f.npy"
    with pytest.raises(DataError, match=r"f\.npy: features of image 2 are not finite"):
        write_features(np.array([[0.0], [1.0], [np.nan]], np.float32), path)
    assert not path.parent.exists()
    write_features(np.zeros((3, 2), np.float32), path)
    assert read_features(path, 3).shape == (3, 2)
    with pytest.raises(DataError, match=r"has shape \(3, 2\) for 4 images"):
        read_features(path, 4)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"f\.npy: holds no features"):
        read_features(path, 1)


def separable(n_rows: int = 120) -> Examples:
    rng = np.random.default_rng(0)
    label = np.arange(n_rows) % 3
    inputs = rng.normal(0, 0.3, (n_rows, 5)).astype(np.float32)
    inputs[np.arange(n_rows), label] += 2
    split = np.where(np.arange(n_rows) < 80, "train", "val")
    return Examples(inputs, np.arange(n_rows), label.astype(np.int64), split, n_classes=3)


def test_fit_learns_a_separable_set_and_reports_each_epoch_to_callbacks() -> None:
    seen: list[int] = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    history = fit(build_head(5, softmax_answer(3), (16,), "relu"), separable(), TRAIN, [watch])
    assert seen == list(range(TRAIN.epochs))
    assert list(history["epoch"]) == list(range(1, TRAIN.epochs + 1))
    assert history["val_accuracy"].iloc[-1] > 0.95
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adamax", "sgd"])
def test_every_optimizer_fits(optimizer: str) -> None:
    params = replace(TRAIN, optimizer=optimizer, epochs=2)  # type: ignore[arg-type]
    assert np.isfinite(fit(build_head(5, softmax_answer(3), (16,), "relu"), separable(), params)["loss"]).all()


def test_an_input_that_is_nan_stops_with_a_line() -> None:
    examples = separable()
    examples.inputs[7] = np.nan
    with pytest.raises(DataError, match="image 7: is not finite"):
        fit(build_head(5, softmax_answer(3), (16,), "relu"), examples, TRAIN)


def test_a_loss_that_is_nan_stops_with_a_line() -> None:
    head = build_head(5, softmax_answer(3), (16,), "tanh")
    head.get_layer("hidden_1").kernel.assign(np.full((5, 16), np.nan, np.float32))
    with pytest.raises(ConfigError, match="epoch 1: loss is nan; lower learning_rate"):
        fit(head, separable(), TRAIN)


def test_nan_weights_that_relu_hides_from_the_loss_stop_with_a_line() -> None:
    head = build_head(5, softmax_answer(3), (16,), "relu")
    head.get_layer("hidden_1").kernel.assign(np.full((5, 16), np.nan, np.float32))
    with pytest.raises(ConfigError, match=r"epoch 1: (hidden_1/kernel is not finite|loss is nan)"):
        fit(head, separable(), TRAIN)


def test_a_diverging_fit_leaves_nothing_behind(weights: Path, tmp_path: Path) -> None:
    sky = write_sky(tmp_path / "sky", "uint8")
    run_features(sky, weights)
    with pytest.raises(ConfigError, match=r"loss is|not finite"):
        run_train(sky, weights, replace(TRAIN, optimizer="sgd", learning_rate=1e20))
    assert not [path for path in sky.iterdir() if "trained" in path.name]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id,part\n0001,train\n", "is not a split"),
        ("id,split\n0000,train\n", "object 0001 has the split ''"),
        ("id,split\n0000,training\n", "object 0000 has the split 'training'"),
    ],
)
def test_splits_that_do_not_fit_are_refused(text: str, problem: str, tmp_path: Path) -> None:
    sky = write_sky(tmp_path / "sky", "uint8", n_rows=4)
    (sky / "split.csv").write_text(text)
    with pytest.raises(DataError, match=rf"split\.csv: {problem}"):
        read_split(sky / "split.csv", open_packed(sky / "packed"))


def test_no_val_rows_is_an_error() -> None:
    examples = separable()
    with pytest.raises(DataError, match="split val: holds no rows"):
        fit(build_head(5, softmax_answer(3), (16,), "relu"), replace(examples, split=np.full(120, "train")), TRAIN)


@pytest.mark.parametrize("key", ["learning_rate", "batch_size", "epochs", "patience"])
def test_params_that_cannot_train_are_refused(key: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps({"train": {**asdict(TRAIN), key: 0}}))
    with pytest.raises(ConfigError, match=f"params.yaml: train: {key} 0"):
        read_section("train", TrainParams, tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed must lie"),
        ({"seed": 2**32}, "seed must lie"),
        ({"hidden_units": (8, 0)}, "hidden_units"),
        ({"dropout": 1.0}, "dropout"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"momentum": 1.0}, "momentum"),
        ({"l2": float("nan")}, "l2"),
        ({"weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_seeds_and_units_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TRAIN, **change)
    with pytest.raises(ValueError, match="input_size_px must lie"):
        replace(SCRATCH, input_size_px=4)


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
    pd.DataFrame({"id": ids, "split": split}).to_csv(tmp_path / "split.csv", index=False)
    monkeypatch.setenv("DEEPSKY_WEIGHTS", str(real_weights()))
    weights = tmp_path / "mobilenet"
    weights_stage.run("mobilenet", WeightsParams("imagenet", None, False, 1), out=weights)
    monkeypatch.setattr(f"{__name__}.SIZE_PX", 96)
    run_features(tmp_path, weights)
    out = run_train(tmp_path, weights, replace(TRAIN, learning_rate=1e-3, hidden_units=(64,)))
    predictions = pd.read_csv(out / "predictions.csv").query("split == 'test'")
    accuracy = ((predictions["p_round"] > 0.5) == (predictions["label"] == "round")).mean()
    assert accuracy > 0.85
    assert json.loads((out / "run.json").read_text())["weights"] == "imagenet"


def test_keep_best_keeps_the_weights_of_the_lowest_validation_loss() -> None:
    # Random labels: every epoch of learning makes validation worse.
    examples = replace(separable(), label=np.random.default_rng(1).integers(0, 3, 120))
    head = build_head(5, softmax_answer(3), (16,), "relu")
    history = fit(head, examples, replace(TRAIN, learning_rate=0.1, epochs=8, keep="best"))
    rows = examples.rows("val")
    inputs, targets = examples.inputs_of(rows), examples.targets_of(rows)
    loss = float(keras.ops.mean(keras.losses.categorical_crossentropy(targets, head.predict(inputs, verbose=0))))
    assert history["val_loss"].idxmin() != len(history) - 1, "the last epoch is not the best"
    assert loss == pytest.approx(history["val_loss"].min(), rel=1e-3)
