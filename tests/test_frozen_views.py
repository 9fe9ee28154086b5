"""Stages frozen_features and frozen: views are views, mirrored ones swap the label, and the network stands alone."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from deepsky.datasets.packed import DatasetCard, open_packed
from deepsky.errors import ConfigError, DataError
from deepsky.networks.augment import AugmentParams
from deepsky.stages import frozen, frozen_features
from deepsky.training.features import FeaturesParams
from deepsky.training.image_batches import ImageExamples, TrainBatches
from deepsky.training.saved import load_network
from deepsky.training.view_features import ViewFeatures, read_views, write_views
from deepsky.training.view_job import ViewBatches, as_image_recipe
from tests.recipe_project import FROZEN, know_tiny, write_project

SPEED = FeaturesParams(batch_size=16)
CARD = DatasetCard("uint8", ("r",), (), ("a", "b", "c"), None, 0)
RECIPE = as_image_recipe(FROZEN, CARD)
MIRRORED = replace(FROZEN, augment=AugmentParams(flip=True), n_views=3)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return write_project(tmp_path_factory.mktemp("frozen"), patch)


@pytest.fixture(autouse=True)
def _inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    know_tiny(monkeypatch)


def paths(name: str) -> dict[str, Path]:
    return {
        "packed": Path(f"data/packed/{name}"),
        "split": Path(f"data/splits/{name}.csv"),
        "weights": Path("models/pretrained/tiny"),
    }


def test_each_view_is_the_image_or_its_mirror_image_as_its_flag_says(project: Path, tmp_path: Path) -> None:
    weights, trained = paths("toy")["weights"] / "weights.h5", np.arange(0, 32, 2)
    lopsided = np.array(open_packed(Path("data/packed/toy")).images)
    lopsided[:, :, :6] = 255
    packed = replace(open_packed(Path("data/packed/toy")), images=lopsided)
    write_views(MIRRORED, SPEED, packed, weights, trained, tmp_path / "views")
    views = read_views(tmp_path / "views", 32)
    assert views.views.shape == (3, 16, 6)
    assert 0.2 < views.mirrored.mean() < 0.8
    assert (views.mirrored[0] != views.mirrored[1]).any()
    # What the backbone makes of the images turned by hand, at another speed.
    turned = replace(packed, images=lopsided[:, :, ::-1])
    write_views(replace(MIRRORED, n_views=0), FeaturesParams(5), turned, weights, trained, tmp_path / "turned")
    mirror = read_views(tmp_path / "turned", 32)
    assert mirror.views.shape == (0, 16, 6)
    wanted = np.where(views.mirrored[..., None], mirror.plain[trained], views.plain[trained])
    difference = np.abs(mirror.plain - views.plain).max()
    assert np.abs(views.views - wanted).max() < 0.02 * difference
    assert difference > 0.005
    # Another speed changes no view.
    write_views(MIRRORED, FeaturesParams(5), packed, weights, trained, tmp_path / "again")
    assert np.array_equal(read_views(tmp_path / "again", 32).views, views.views)


def test_only_images_of_train_rows_get_views(project: Path, tmp_path: Path) -> None:
    frozen_features.run(replace(FROZEN, n_views=1), SPEED, **paths("toy"), out=tmp_path / "views")
    split = pd.read_csv("data/splits/toy.csv")["split"]
    views = read_views(tmp_path / "views", 32)
    assert list(views.viewed) == list(np.flatnonzero(split == "train"))
    assert views.views.shape == (1, 16, 6)


def view_batches(n_views: int, seed: int = 1, **changes: Any) -> tuple[ViewBatches, np.ndarray, np.ndarray]:
    """Batches over rows whose features say which image and view they are: image + 100 * view."""
    image, n = np.arange(24) // 2, 12
    viewed = np.array([i for i in range(n) if i != 5])
    split = np.where(image == 5, "val", "train")
    targets = np.eye(3, dtype=np.float32)[image % 3]
    plain = np.arange(n, dtype=np.float32)[:, None]
    numbers = 100 * np.arange(1, n_views + 1, dtype=np.float32)[:, None]
    mirrored = np.random.default_rng(3).random((n_views, len(viewed))) < 0.5
    views = ViewFeatures(plain[np.newaxis], (viewed + numbers)[..., None], mirrored, viewed)
    examples = ImageExamples(plain, image, targets, split)
    recipe = replace(RECIPE, seed=seed, **changes)
    return ViewBatches(examples, recipe, views, [1, 0, 2]), mirrored, viewed


def seen(batches: TrainBatches) -> tuple[np.ndarray, np.ndarray]:
    parts = [batches[step] for step in range(len(batches))]
    return np.concatenate([part[0][:, 0] for part in parts]), np.concatenate([part[1] for part in parts])


def test_an_epoch_draws_the_plain_image_or_a_view_of_each_row_and_swaps_the_labels_of_mirror_images() -> None:
    batches, mirrored, viewed = view_batches(3)
    first, targets = seen(batches)
    image, view = (first % 100).astype(int), (first // 100).astype(int) - 1
    assert sorted(image) == sorted(list(viewed) * 2)  # every train row once, none of val
    assert set(view) == {-1, 0, 1, 2}  # -1: the plain image
    place = np.searchsorted(viewed, image)
    turned = (view >= 0) & mirrored[view, place]
    label = np.where(turned, np.array([1, 0, 2])[image % 3], image % 3)
    assert list(targets.argmax(axis=1)) == list(label)
    assert (label != image % 3).any()
    batches.on_epoch_end()
    second, _ = seen(batches)
    assert sorted(second % 100) == sorted(image)
    assert set(zip(second % 100, second // 100, strict=True)) != set(zip(image, view + 1, strict=True))
    again, other = view_batches(3)[0], view_batches(3, seed=2)[0]
    assert np.array_equal(seen(again)[0], first)
    assert not np.array_equal(seen(other)[0], first)


def test_the_plain_image_is_drawn_as_often_as_each_view() -> None:
    batches, *_ = view_batches(3)
    drawn = []
    for _ in range(100):
        drawn.append(seen(batches)[0] // 100)
        batches.on_epoch_end()
    shares = np.bincount(np.concatenate(drawn).astype(int)) / (100 * 22)
    np.testing.assert_allclose(shares, 0.25, atol=0.04)


def test_balanced_rows_weigh_what_their_own_class_does_whatever_is_drawn() -> None:
    batches, *_ = view_batches(3, class_weights="balanced")
    steps = [batches[step] for step in range(len(batches))]
    image = np.concatenate([features[:, 0] for features, _, _ in steps]).astype(int) % 100
    weights = np.concatenate([weight for _, _, weight in steps])
    counts = np.bincount(image % 3)
    np.testing.assert_allclose(weights, (len(image) / counts / 3)[image % 3], rtol=1e-5)
    assert len(set(counts)) > 1


def test_without_views_the_plain_images_are_learned_in_the_same_order() -> None:
    batches, *_ = view_batches(0)
    plain = TrainBatches(batches._examples, RECIPE)
    for got, wanted in zip(seen(batches), seen(plain), strict=True):
        assert np.array_equal(got, wanted)


@pytest.mark.parametrize(("name", "first"), [("toy", "p_BLUE"), ("votes", "p_Class1.1")])
def test_the_stage_writes_a_network_that_stands_alone(name: str, first: str, project: Path, tmp_path: Path) -> None:
    params = replace(FROZEN, dataset=name, augment=MIRRORED.augment, test_views=8 if name == "toy" else 1)
    features, out = tmp_path / "features", tmp_path / "trained"
    frozen_features.run(params, SPEED, **paths(name), out=features)
    frozen.run("heads", params, "tests", {"split": {"seed": 1}}, **paths(name), features=features, out=out)
    files = {"model.h5", "history.csv", "predictions.csv", "run.json", "pictures"}
    assert {path.name for path in out.iterdir()} == files | ({"predictions_plain.csv"} if name == "toy" else set())
    facts = json.loads((out / "run.json").read_text())
    assert (facts["way"], facts["network"], facts["n_epochs"]) == ("frozen", "heads", 2)
    assert facts["params"]["recipe"] == json.loads(json.dumps(asdict(params)))
    network, card = load_network(out / "model.h5")
    predictions = pd.read_csv(out / "predictions.csv")
    answers = predictions.filter(regex="^p_").to_numpy()
    assert predictions.columns[3] == first
    np.testing.assert_allclose(network.predict(open_packed(Path(f"data/packed/{name}")).images, verbose=0), answers,
                               atol=1e-4)  # fmt: skip
    assert card.weights == "random"
    np.testing.assert_allclose(answers[:, :3].sum(axis=1), 1, atol=3e-6)
    if name == "toy":
        plain, test = pd.read_csv(out / "predictions_plain.csv"), predictions["split"] == "test"
        assert np.abs(plain.filter(regex="^p_").to_numpy() - answers[test]).max() > 1e-3
    measure = "accuracy" if name == "toy" else "rmse"
    history = pd.read_csv(out / "history.csv")
    assert list(history.columns) == ["epoch", measure, "loss", f"val_{measure}", "val_loss"]
    assert history.notna().all(axis=None)


def test_what_does_not_fit_is_one_line(project: Path, tmp_path: Path) -> None:
    packed = open_packed(Path("data/packed/votes"))
    with pytest.raises(ConfigError, match=r"recipe of toy: answer tree has no classes: .* label_smoothing: 0; mend"):
        as_image_recipe(replace(FROZEN, label_smoothing=0.1), packed.card)
    with pytest.raises(DataError, match=r"holds no features of views .*; run dvc repro"):
        read_views(tmp_path, 32)
    write_views(replace(FROZEN, n_views=1), SPEED, packed, paths("votes")["weights"] / "weights.h5", np.arange(4),
                tmp_path / "few")  # fmt: skip
    with pytest.raises(DataError, match=r"holds features \(1, 32, 6\) and \(1, 4, 6\) for 31 images"):
        read_views(tmp_path / "few", 31)
    digits = replace(packed, card=replace(packed.card, refused=("mirror",)))
    with pytest.raises(ConfigError, match="recipe of toy: flip true would mirror images"):
        write_views(FROZEN, SPEED, digits, paths("votes")["weights"] / "weights.h5", np.arange(4), tmp_path / "digits")
    views, split = read_views(tmp_path / "few", 32), np.full(32, "train")
    with pytest.raises(ConfigError, match="recipe of toy: flip true would mirror images"):
        frozen.make_job("digits", FROZEN, {}, digits, split, views, paths("votes")["weights"])
    job = frozen.make_job(
        "votes", replace(FROZEN, dataset="votes"), {}, packed, split, views, paths("votes")["weights"]
    )
    with pytest.raises(DataError, match="image 4: is to be learned from, but has no views"):
        job.fit([])
