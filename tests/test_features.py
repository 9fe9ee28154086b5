"""Features: views are views, what is current stays, and a head learns from each image or one of its views."""

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from deepsky.cards import memory_bytes
from deepsky.datasets.packed import Packed, open_packed
from deepsky.errors import ConfigError, DataError, WeightsError
from deepsky.networks.backbone import build_features
from deepsky.networks.inputs import ImageSpec
from deepsky.networks.params import AugmentParams
from deepsky.networks.precision import on_cpu
from deepsky.networks.registry import find_backbone
from deepsky.stages import features as stage
from deepsky.stages.features import NetworkFeatures
from deepsky.training import view_features
from deepsky.training.batch_size import fitting, images_per_step
from deepsky.training.batches import TrainBatches
from deepsky.training.build import make_job
from deepsky.training.examples import Examples
from deepsky.training.predict import image_spec
from deepsky.training.recipe import ViewSpec
from deepsky.training.view_batches import ViewBatches
from deepsky.training.view_features import FILES, ViewFeatures, _view_seen, read_views, write_views
from tests.run_project import FLIPS, HEADS, know_tiny, write_project

PACKED, SPLIT, WEIGHTS = Path("data/packed/toy"), Path("data/splits/toy.csv"), Path("models/pretrained")
PLAIN = ViewSpec(input_size_px=32)
MIRRORED = replace(PLAIN, n_views=3, augment=AugmentParams(flip=True), seed=1)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return write_project(tmp_path_factory.mktemp("features"), patch)


@pytest.fixture(autouse=True)
def _inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    know_tiny(monkeypatch)


def views_of(
    spec: ViewSpec, out: Path, packed: Packed | None = None, images: Any = range(0, 32, 2), batch_size: int = 16
) -> ViewFeatures:
    """Write and read."""
    packed = packed or open_packed(PACKED)
    file = WEIGHTS / "tiny/weights.h5"
    write_views("tiny", spec, packed, file, np.array(images, np.int64), out, batch_size=batch_size)
    return read_views(out, len(packed.images))


def test_each_view_is_the_image_or_its_mirror_image_as_its_flag_says(tmp_path: Path) -> None:
    packed, trained = open_packed(PACKED), np.arange(0, 32, 2)
    lopsided = np.array(packed.images)
    lopsided[:, :, :6] = 255
    packed = replace(packed, images=lopsided)
    views = views_of(MIRRORED, tmp_path / "views", packed)
    assert views.views.shape == (3, 16, 6)
    assert 0.2 < views.mirrored.mean() < 0.8
    assert (views.mirrored[0] != views.mirrored[1]).any()
    # What the network makes of the images turned by hand, at another speed.
    turned = replace(packed, images=lopsided[:, :, ::-1])
    mirror = views_of(PLAIN, tmp_path / "turned", turned, batch_size=5)
    assert mirror.views.shape == (0, 0, 6)
    wanted = np.where(views.mirrored[..., None], mirror.plain[trained], views.plain[trained])
    difference = np.abs(mirror.plain - views.plain).max()
    assert np.abs(views.views - wanted).max() < 0.02 * difference
    assert difference > 0.005
    # Another speed changes no view.
    assert np.array_equal(views_of(MIRRORED, tmp_path / "again", packed, batch_size=5).views, views.views)


def test_test_views_are_turned_and_mirrored_images_and_the_plain_one_comes_first(tmp_path: Path) -> None:
    packed = open_packed(PACKED)
    sides = views_of(replace(PLAIN, test_views=8), tmp_path / "sides", packed).sides
    assert sides.shape == (8, 32, 6)
    plain = views_of(PLAIN, tmp_path / "plain", packed).plain
    np.testing.assert_array_equal(sides[0], plain)
    turned = replace(packed, images=np.rot90(packed.images, 1, axes=(1, 2)))
    quarter = views_of(PLAIN, tmp_path / "turned", turned).plain
    assert min(np.abs(side - quarter).max() for side in sides) < 1e-5


def test_a_name_is_another_one_where_the_features_are(tmp_path: Path) -> None:
    recipes = [replace(HEADS, n_views=0), replace(HEADS, n_views=0, seed=2), replace(HEADS, n_views=0, augment=FLIPS)]
    recipes += [HEADS, replace(HEADS, dropout=0.5), replace(HEADS, seed=2), replace(HEADS, n_views=3)]
    recipes += [
        replace(HEADS, test_views=2),
        replace(HEADS, augment=FLIPS.times(0.5)),
        replace(HEADS, input_size_px=24),
    ]
    written = [content_of(views_of(one.views, tmp_path / str(n))) for n, one in enumerate(recipes)]
    pairs = list(itertools.combinations(range(len(recipes)), 2))
    alike = [(one, other) for one, other in pairs if recipes[one].views.name == recipes[other].views.name]
    assert alike == [(0, 1), (0, 2), (1, 2), (3, 4)]
    assert [(one, other) for one, other in pairs if written[one] == written[other]] == alike


@pytest.mark.parametrize("n_images", [80, 45])
def test_random_views_are_the_same_in_batches_of_several_steps(n_images: int) -> None:
    packed = open_packed(PACKED)
    images = np.random.default_rng(1).integers(0, 256, (n_images, 20, 20, 3), dtype=np.uint8)
    spec = replace(MIRRORED, augment=FLIPS)
    _, viewer = view_features._build("tiny", image_spec(packed), spec, WEIGHTS / "tiny/weights.h5")
    assert viewer is not None
    few, many = (
        [_view_seen(None, viewer, number, images, np.arange(n_images), n_at_once) for number in (0, 1)]
        for n_at_once in (32, 64)
    )
    for one, other in zip(few, many, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert np.abs(few[0] - few[1]).max() > 1e-3


def test_features_in_16_bits_are_near_those_in_32_and_say_so(tmp_path: Path) -> None:
    mixed = replace(MIRRORED, precision="mixed")
    assert mixed.name != MIRRORED.name
    before = keras.config.dtype_policy().name
    exact, rounded = views_of(MIRRORED, tmp_path / "32"), views_of(mixed, tmp_path / "16")
    assert keras.config.dtype_policy().name == before
    for one, other in ((exact.sides, rounded.sides), (exact.views, rounded.views)):
        assert other.dtype == np.float32
        difference = np.abs(one - other).max()
        assert 0 < difference < 0.03 * np.abs(one).max()
    np.testing.assert_array_equal(exact.mirrored, rounded.mirrored)


def test_auto_takes_32_images_on_a_cpu_and_on_a_card_what_its_memory_holds() -> None:
    front = build_features(find_backbone("mobilenet"), ImageSpec((64, 64, 3), "uint8", ("r", "g", "b")), 224, None)
    largest = 4 * 113 * 113 * 64  # bytes of its largest map, with a margin on two sides
    for images, wanted in ((1, 32), (63, 32), (64, 64), (127, 64), (500, 256), (512, 512), (10_000, 512)):
        assert fitting(images * largest * 4 * 4, front) == wanted
    assert fitting(None, front) == 32
    assert images_per_step("auto", front) == (32 if on_cpu() else fitting(memory_bytes(), front))
    assert images_per_step(7, front) == 7


@pytest.mark.parametrize(
    ("said", "wanted"), [("echo 81559", 81559 << 20), ("echo '[N/A]'", None), ("exit 9", None), (None, None)]
)
def test_the_memory_of_the_card_in_use_is_asked_of_nvidias_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, wanted: int | None
) -> None:
    if said:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f'#!/bin/sh\n[ "$1" = --id=3 ] || exit 1\n{said}\n')
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,0")
    assert memory_bytes() == wanted
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert memory_bytes() is None


def test_a_card_s_memory_is_taken_as_it_is_needed_unless_a_person_says_otherwise() -> None:
    names = "TF_FORCE_GPU_ALLOW_GROWTH", "XLA_PYTHON_CLIENT_PREALLOCATE"
    code = f"import deepsky, os; print(*(os.environ[name] for name in {names}))"
    clean = {name: value for name, value in os.environ.items() if name not in names}
    for own, wanted in (({}, "true false"), ({names[1]: "true"}, "true true")):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean | own, check=True)
        assert done.stdout.strip() == wanted


def content_of(views: ViewFeatures) -> list[bytes]:
    return [np.ascontiguousarray(getattr(views, name)).tobytes() for name in FILES]


def run_stage(out: Path, batch_size: int = 16, split: Path = SPLIT, **networks: NetworkFeatures) -> None:
    stage.run(networks, batch_size, packed=PACKED, split=split, weights=WEIGHTS, out=out)


def network_features(*specs: ViewSpec, code: str = "1") -> NetworkFeatures:
    return NetworkFeatures(code=code, views={spec.name: spec for spec in specs})


def states(out: Path) -> Mapping[str, tuple[bytes, int]]:
    """Return bytes and inode of each file: one that is written anew is another file."""
    files = [path for path in out.rglob("*") if path.is_file()]
    return {str(path.relative_to(out)): (path.read_bytes(), path.stat().st_ino) for path in sorted(files)}


def test_the_stage_keeps_what_is_current_and_computes_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "features"
    run_stage(out, tiny=network_features(PLAIN, MIRRORED), cnn_small=network_features())
    first = states(out)
    folders = {f"tiny/{spec.name}" for spec in (PLAIN, MIRRORED)}
    names = [f"{name}.npy" for name in FILES] + ["key.txt"]
    assert set(first) == {f"{folder}/{name}" for folder in folders for name in names} | {
        "features.json", "tiny/features.json", "cnn_small/features.json",
    }  # fmt: skip
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "tiny 32px: 6 features of 32 images",
        f"tiny {MIRRORED.name}: 6 features of 32 images, and of 3 random views of 16 of them",
    ]

    # Another speed, and no other network: nothing is computed.
    run_stage(out, 5, tiny=network_features(PLAIN, MIRRORED))
    again = states(out)
    assert set(again) == {name for name in first if not name.startswith("cnn_small/")}
    assert {name: again[name] for name in again if "px" in name} == {
        name: state for name, state in first.items() if "px" in name
    }
    assert [line.endswith(": is there") for line in capsys.readouterr().out.splitlines()] == [True, True]

    # One spec less, another one more: the one that stays is not touched, the other one goes.
    turned = replace(PLAIN, test_views=2)
    run_stage(out, tiny=network_features(MIRRORED, turned))
    assert {path.name for path in (out / "tiny").iterdir()} == {MIRRORED.name, turned.name, "features.json"}
    kept = {name: state for name, state in states(out).items() if MIRRORED.name in name}
    assert kept == {name: state for name, state in first.items() if MIRRORED.name in name}

    # Other code: all is computed again, and the bytes are the same.
    run_stage(out, tiny=network_features(MIRRORED, turned, code="2"))
    for name, (content, inode) in states(out).items():
        if name.startswith(f"tiny/{MIRRORED.name}/") and not name.endswith("key.txt"):
            assert content == first[name][0]
            assert inode != first[name][1]


def changed(before: Mapping[str, tuple[bytes, int]], after: Mapping[str, tuple[bytes, int]]) -> set[str]:
    """Return the folders of features whose files are others."""
    return {name.split("/")[1] for name in before if "px" in name and before[name] != after[name]}


def test_features_follow_pixels_weights_and_of_random_views_the_train_rows(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, both = tmp_path / "features", {PLAIN.name, MIRRORED.name}
    run_stage(out, tiny=network_features(PLAIN, MIRRORED))
    before = states(out)
    # Train rows: the plain features do not depend on them.
    lines = SPLIT.read_text().splitlines()
    other = tmp_path / "split.csv"
    other.write_text("\n".join([lines[0], lines[1].replace(",train,", ",test,"), *lines[2:]]) + "\n")
    run_stage(out, split=other, tiny=network_features(PLAIN, MIRRORED))
    assert changed(before, states(out)) == {MIRRORED.name}
    assert 0 not in read_views(out / "tiny" / MIRRORED.name, 32).viewed
    # Rows that change no image, and where a test row went, change nothing.
    before = states(out)
    other.write_text(other.read_text().replace(",val,", ",test,"))
    run_stage(out, split=other, tiny=network_features(PLAIN, MIRRORED))
    assert changed(before, states(out)) == set()
    # A pixel, and the weights.
    images = PACKED / "images.npy"
    pixels, content = np.load(images), images.read_bytes()
    pixels[3, 0, 0, 0] ^= 1
    try:
        np.save(images, pixels)
        run_stage(out, split=other, tiny=network_features(PLAIN, MIRRORED))
    finally:
        images.write_bytes(content)
    assert changed(before, states(out)) == both
    before = states(out)
    monkeypatch.setattr(stage, "read_weights_card", lambda folder: replace(read_card(folder), sha256="other"))
    run_stage(out, split=other, tiny=network_features(PLAIN, MIRRORED))
    assert changed(before, states(out)) == both


read_card = stage.read_weights_card


def test_a_file_that_was_half_written_or_lost_is_computed_again(tmp_path: Path) -> None:
    out = tmp_path / "features"
    run_stage(out, tiny=network_features(PLAIN))
    before = states(out)
    (out / "tiny" / PLAIN.name / "key.txt").unlink()  # it comes last
    run_stage(out, tiny=network_features(PLAIN))
    assert {name: content for name, (content, _) in states(out).items()} == {
        name: content for name, (content, _) in before.items()
    }


def test_only_images_of_train_rows_get_views(tmp_path: Path) -> None:
    run_stage(tmp_path, tiny=network_features(HEADS.views))
    views = read_views(tmp_path / "tiny" / HEADS.views.name, 32)
    assert list(views.viewed) == list(np.flatnonzero(pd.read_csv(SPLIT)["split"] == "train"))
    assert views.views.shape == (2, 16, 6)


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
    recipe = replace(HEADS, seed=seed, **changes)
    return ViewBatches(Examples(plain, image, targets, split), recipe, views, [1, 0, 2]), mirrored, viewed


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
    plain = TrainBatches(batches._examples, HEADS)
    for got, wanted in zip(seen(batches), seen(plain), strict=True):
        assert np.array_equal(got, wanted)


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    packed, split = open_packed(PACKED), np.full(32, "train")
    with pytest.raises(DataError, match=r"holds no features of views .*; run dvc repro"):
        read_views(tmp_path, 32)
    few = views_of(HEADS.views, tmp_path / "few", images=range(4))
    with pytest.raises(DataError, match=r"holds features \(1, 32, 6\) and \(2, 4, 6\) for 31 images"):
        read_views(tmp_path / "few", 31)
    job = make_job("heads", HEADS, packed, split, weights=WEIGHTS / "tiny", views=few)
    with pytest.raises(DataError, match="image 4: is to be learned from, but has no views; run dvc repro"):
        job.fit([])
    recipe = replace(HEADS, test_views=2)
    with pytest.raises(DataError, match="features of toy: were seen from 1 sides, test_views is 2; run dvc repro"):
        make_job("heads", recipe, packed, split, weights=WEIGHTS / "tiny", views=few)
    digits = replace(packed, card=replace(packed.card, refused=("mirror",)))
    with pytest.raises(ConfigError, match="a run of toy: flip true would mirror images"):
        make_job("heads", HEADS, digits, split, weights=WEIGHTS / "tiny", views=few)
    oblong = replace(packed, images=packed.images[:, :-2])
    with pytest.raises(DataError, match="test_views: images are 18 x 20 px; pack square cutouts"):
        views_of(replace(PLAIN, test_views=4), tmp_path / "oblong", oblong)
    with pytest.raises(WeightsError, match=r"cnn_small: holds no weights .*; run dvc repro weights"):
        run_stage(tmp_path / "scratch", cnn_small=network_features(PLAIN))


def test_features_that_are_no_numbers_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.zeros((32, 6), np.float32)
    features[7, 3] = np.nan
    monkeypatch.setattr(view_features, "predict_batches", lambda *_: features)
    with pytest.raises(DataError, match="features of image 7 are not finite; look for NaN pixels"):
        views_of(PLAIN, tmp_path / "views")
    assert list(tmp_path.iterdir()) == []
