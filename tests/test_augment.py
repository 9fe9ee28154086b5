"""Random views in the graph, and mirror images whose label is another one."""

from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from deepsky.errors import DataError
from deepsky.networks.augment import MirrorBack, RandomView, mirror_swaps, resample
from deepsky.networks.dropout import SeededDropout
from deepsky.networks.params import AugmentParams
from deepsky.networks.saving import save_h5

ALL = AugmentParams(flip=True, rotation_deg=180, shift=0.1, shear_deg=10, zoom=0.2, brightness=0.3)
TOP = 255.0


def images(n_images: int = 24, size_px: int = 17) -> np.ndarray:
    return np.random.default_rng(7).uniform(0, TOP, (n_images, size_px, size_px, 3)).astype(np.float32)


def discs(n_images: int, size_px: int = 32) -> np.ndarray:
    """Bright discs off the middle, wide enough for a bilinear view to keep their light."""
    rows, columns = np.mgrid[:size_px, :size_px]
    light = 200 * np.exp(-((rows - 12) ** 2 + (columns - 20) ** 2) / 8)
    return np.repeat(light[None, ..., None].astype(np.float32), n_images, axis=0)


def view(augment: AugmentParams, pixels: np.ndarray, *, top: float | None = TOP, training: bool = True) -> list:
    layer = RandomView(asdict(augment), seed=5, top=top, name="view")
    return [keras.ops.convert_to_numpy(one) for one in layer(pixels, training=training)]


def centre_of_light(pixels: np.ndarray) -> np.ndarray:
    """(n, 2): row and column from the middle, px."""
    middle = (pixels.shape[1] - 1) / 2
    places = np.arange(pixels.shape[1]) - middle
    light = pixels[..., 0].astype(float)
    total = light.sum(axis=(1, 2))
    return np.stack([(light.sum(axis=2) * places).sum(1), (light.sum(axis=1) * places).sum(1)], axis=1) / total[:, None]


def test_views_are_the_images_outside_training() -> None:
    pixels, mirrored = view(ALL, images(), training=False)
    np.testing.assert_array_equal(pixels, images())
    assert not mirrored.any()


def test_nothing_asked_for_changes_nothing() -> None:
    pixels, mirrored = view(AugmentParams(), images())
    np.testing.assert_array_equal(pixels, images())
    assert not mirrored.any()


def test_half_of_the_views_are_exact_mirror_images_and_say_so() -> None:
    before = images(200, 8)
    pixels, mirrored = view(AugmentParams(flip=True), before)
    assert set(mirrored) == {0, 1}
    assert 70 < mirrored.sum() < 130
    np.testing.assert_array_equal(pixels, np.where(mirrored[:, None, None, None] > 0, before[:, :, ::-1], before))


def test_mirrored_tells_of_every_view_that_no_turn_undoes() -> None:
    """With everything on, a mirror image is one whose handedness changed: three lights, counted clockwise or not."""
    rows, columns = np.mgrid[:32, :32]
    lights = [np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / 8) for r, c in ((9, 15), (20, 12), (18, 22))]
    pixels = np.repeat(np.stack(lights, axis=-1)[None].astype(np.float32), 100, axis=0)
    seen, mirrored = view(AugmentParams(True, 180, 0.05, 10, 0.2, 0.3), pixels, top=None)

    def hand(some: np.ndarray) -> np.ndarray:
        first, second, third = (centre_of_light(some[..., [place]]) for place in range(3))
        return np.sign(np.linalg.det(np.stack([second - first, third - first], axis=1)))

    np.testing.assert_array_equal(hand(seen) != hand(pixels), mirrored == 1)


def test_turns_reach_all_sides_and_keep_the_distance() -> None:
    seen, mirrored = view(AugmentParams(rotation_deg=180), discs(200))
    centres = centre_of_light(seen)
    np.testing.assert_allclose(np.hypot(*centres.T), np.hypot(3.5, 4.5), atol=0.1)
    assert {(row > 0, column > 0) for row, column in centres} == {(a, b) for a in (True, False) for b in (True, False)}
    assert not mirrored.any()
    little = centre_of_light(view(AugmentParams(rotation_deg=20), discs(200))[0])
    angles = np.degrees(np.arctan2(*little.T) - np.arctan2(-3.5, 4.5))
    assert -20.5 < angles.min() < -18
    assert 18 < angles.max() < 20.5


def test_moves_go_as_far_as_asked() -> None:
    moved = centre_of_light(view(AugmentParams(shift=0.1), discs(300))[0]) - centre_of_light(discs(1))
    assert np.all(np.abs(moved).max(axis=0) < 3.3)
    assert np.all(moved.max(axis=0) > 2.8)
    assert np.all(moved.min(axis=0) < -2.8)


def test_zoom_changes_the_size_and_shear_keeps_it() -> None:
    zoomed = view(AugmentParams(zoom=0.3), discs(300))[0].sum(axis=(1, 2, 3)) / discs(1).sum()
    assert 0.45 < zoomed.min() < 0.55  # 0.7 squared
    assert 1.6 < zoomed.max() < 1.75
    leaning = view(AugmentParams(shear_deg=30), discs(300))[0]
    np.testing.assert_allclose(leaning.sum(axis=(1, 2, 3)) / discs(1).sum(), 1, atol=0.02)
    lean = (centre_of_light(leaning) - centre_of_light(discs(1)))[:, 1]
    assert 3.5 * np.tan(np.radians(27)) < np.abs(lean).max() < 3.5 * np.tan(np.radians(30.5))


def test_brightness_is_clipped_only_where_there_is_a_top() -> None:
    before = images(100, 8)
    share = view(AugmentParams(brightness=0.3), before, top=None)[0] / before
    np.testing.assert_allclose(share.std(axis=(1, 2, 3)), 0, atol=1e-5)
    assert 0.7 <= share.min() < 0.75
    assert 1.25 < share.max() <= 1.3001
    assert view(AugmentParams(brightness=0.3), before)[0].max() == TOP
    assert view(AugmentParams(brightness=0.3), before - 100, top=None)[0].min() < -100, "flux may be negative"


def test_resampling_is_bilinear_with_reflected_edges_as_scipy_has_it() -> None:
    before, rng = images(2, 9), np.random.default_rng(1)
    column, row = rng.uniform(-9, 18, (2, 2, 9, 9)).astype(np.float32)
    seen = keras.ops.convert_to_numpy(resample(before, column, row))
    for number in range(2):
        for channel in range(3):
            places = [row[number], column[number]]
            expected = map_coordinates(before[number, ..., channel], places, order=1, mode="reflect")
            np.testing.assert_allclose(seen[number, ..., channel], expected, atol=0.02)


def test_a_device_can_hold_every_counter() -> None:
    """TensorFlow leaves an int32 variable on the host, where a step compiled for a GPU cannot reach it."""
    layers = [RandomView(asdict(ALL), seed=5, top=TOP, name="view"), SeededDropout(0.5, seed=1, name="dropout")]
    for layer, inputs in zip(layers, (images(1), np.zeros((1, 4), np.float32)), strict=True):
        layer(inputs, training=True)
        assert {keras.backend.standardize_dtype(weight.dtype) for weight in layer.weights} == {"int64"}


def test_views_differ_by_image_and_step_and_repeat_with_the_seed() -> None:
    same = np.repeat(images(1), 6, axis=0)
    layers = [RandomView(asdict(ALL), seed=seed, top=TOP, name="view") for seed in (5, 5, 6)]
    first, again, other = (keras.ops.convert_to_numpy(layer(same, training=True)[0]) for layer in layers)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first[0], first[1])
    assert not np.allclose(first, keras.ops.convert_to_numpy(layers[0](same, training=True)[0]))


def small_network(n_classes: int = 3) -> keras.Model:
    pixels = keras.Input((8, 8, 1), name="pixels")
    flat = keras.layers.Flatten(name="flat")(pixels)
    return keras.Model(pixels, keras.layers.Dense(n_classes, activation="softmax", name="probabilities")(flat))


def learner_of(tail: keras.Model, swaps: list[int]) -> keras.Model:
    """Image -> answer and mirrored, as a learner sees them in training."""
    pixels = keras.Input((8, 8, 1), name="pixels")
    seen, mirrored = RandomView({"flip": True}, seed=1, top=1.0, name="view")(pixels)
    return keras.Model(pixels, [MirrorBack(swaps, name="back")([tail(seen), mirrored]), mirrored])


def test_a_mirror_image_of_a_clockwise_spiral_teaches_anticlockwise() -> None:
    spirals = np.random.default_rng(3).uniform(0, 1, (40, 8, 8, 1)).astype(np.float32)
    labels = np.eye(3)[np.arange(40) % 3]
    swaps = mirror_swaps(("anticlockwise", "clockwise", "edge-on"), [("clockwise", "anticlockwise")])
    assert swaps == [1, 0, 2]
    tail = small_network()
    answer, mirrored = (keras.ops.convert_to_numpy(one) for one in learner_of(tail, swaps)(spirals, training=True))
    mirror_image = tail.predict(spirals[:, :, ::-1], verbose=0)
    plain = tail.predict(spirals, verbose=0)
    is_mirrored = mirrored[:, None] == 1
    np.testing.assert_allclose(answer, np.where(is_mirrored, mirror_image[:, swaps], plain), atol=1e-6)
    # The loss is the one of a mirror image with the other label.
    loss = keras.losses.categorical_crossentropy
    others = np.where(is_mirrored, labels[:, swaps], labels)
    seen = np.where(is_mirrored, mirror_image, plain)
    np.testing.assert_allclose(np.array(loss(labels, answer)), np.array(loss(others, seen)), rtol=1e-5)
    assert not np.allclose(np.array(loss(labels, seen)), np.array(loss(others, seen)))


def sure_network(swaps: list[int], flip: bool) -> keras.Model:
    """A learner of 1 x 1 pixels whose logits are 30 times the pixel's first channel, 0 and 0."""
    pixels = keras.Input((2, 2, 1), name="pixels")
    answer = keras.layers.Dense(3, activation="softmax", name="probabilities")
    seen, mirrored = RandomView({"flip": flip}, seed=1, top=None, name="view")(pixels)
    probabilities = answer(keras.layers.GlobalAveragePooling2D(name="average")(seen))
    answer.set_weights([np.array([[30.0, 0, 0]], np.float32), np.zeros(3, np.float32)])
    learner = keras.Model(pixels, MirrorBack(swaps, name="back")([probabilities, mirrored]))
    learner.compile(keras.optimizers.SGD(1.0), keras.losses.CategoricalCrossentropy(), metrics=[], jit_compile=False)
    return learner


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX takes every loss from clipped probabilities")
@pytest.mark.parametrize("swaps", [[0, 1, 2], [1, 0, 2], [2, 1, 0]])
@pytest.mark.parametrize("flip", [False, True])
def test_a_confident_wrong_answer_teaches_as_much_as_plain_cross_entropy(swaps: list[int], flip: bool) -> None:
    pixels, label = np.ones((16, 2, 2, 1), np.float32), 1
    learner = sure_network(swaps, flip)
    _, mirrored = RandomView({"flip": flip}, seed=1, top=None)(pixels, training=True)
    loss = learner.train_on_batch(pixels, np.eye(3, dtype=np.float32)[[label] * 16])
    # By hand: the cross-entropy of softmax(30, 0, 0), where a mirror image has the other label.
    is_mirrored = np.array(mirrored).astype(bool)
    assert is_mirrored.any() == flip
    labels = np.where(is_mirrored, swaps[label], label)
    log_p = np.array([30.0, 0, 0]) - np.logaddexp.reduce([30.0, 0, 0])
    assert float(loss) == pytest.approx(-log_p[labels].mean(), rel=1e-6)
    slope = np.exp(log_p) - np.eye(3)[labels].mean(axis=0)
    kernel, bias = learner.get_layer("probabilities").get_weights()
    np.testing.assert_allclose(kernel[0], [30, 0, 0] - slope, atol=1e-5)
    np.testing.assert_allclose(bias, -slope, atol=1e-5)


def test_datasets_without_pairs_keep_their_answers() -> None:
    spirals = np.random.default_rng(3).uniform(0, 1, (20, 8, 8, 1)).astype(np.float32)
    tail = small_network()
    for swaps in (mirror_swaps(("a", "b", "c"), ()), mirror_swaps(("galaxy",), ())):
        answer, mirrored = (keras.ops.convert_to_numpy(one) for one in learner_of(tail, swaps)(spirals, training=True))
        seen = np.where(mirrored[:, None, None, None] == 1, spirals[:, :, ::-1], spirals)
        np.testing.assert_allclose(answer, tail.predict(seen, verbose=0), atol=1e-6)


def test_a_learner_can_be_saved(tmp_path: Path) -> None:
    learner = learner_of(small_network(), [1, 0, 2])
    save_h5(learner, tmp_path / "learner.h5")
    loaded = keras.models.load_model(tmp_path / "learner.h5", compile=False)
    pixels = np.random.default_rng(3).uniform(0, 1, (4, 8, 8, 1)).astype(np.float32)
    for one, other in zip(loaded(pixels, training=True), learner(pixels, training=True), strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), atol=1e-6)


def test_views_count_in_float32_under_mixed_precision() -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = view(ALL, images())[0]
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_array_equal(mixed, view(ALL, images())[0])


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ([("clockwise", "anticlockwise")], "a mirror image shows 'anticlockwise', which is not among them"),
        ([("clockwise", "edge-on"), ("clockwise", "merger")], "names a class twice; name each in one pair"),
        ([("clockwise", "clockwise")], "names a class twice"),
    ],
)
def test_pairs_that_cannot_be_swapped_are_refused(pairs: list[tuple[str, str]], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        mirror_swaps(("clockwise", "edge-on", "merger"), pairs)


def test_images_that_are_not_square_are_refused() -> None:
    with pytest.raises(DataError, match="augment: images are 8 x 12 px; resize them to squares"):
        RandomView({"flip": True}, seed=1, top=1.0)(np.zeros((1, 8, 12, 3), np.float32), training=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rotation_deg", 181), ("shift", -0.1), ("shear_deg", 46), ("zoom", 0.6), ("brightness", float("nan"))],
)
def test_augmentation_that_leaves_no_image_is_refused_by_key(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{key} must lie between 0 and .*, not {value}"):
        AugmentParams(**{key: value})


def test_a_strength_stays_within_the_limits() -> None:
    augment = AugmentParams(flip=True, rotation_deg=100, shift=0.1)
    assert augment.times(2) == AugmentParams(flip=True, rotation_deg=180, shift=0.2)
    assert augment.times(0) == AugmentParams(flip=True)
    assert [one.moves for one in (augment, augment.times(0), AugmentParams(brightness=0.2))] == [True, True, False]
