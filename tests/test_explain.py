import keras
import numpy as np
import pytest

from deepsky.networks.backbone import build_features, draw_kernels
from deepsky.networks.finetune import build_tail_of
from deepsky.networks.heads import build_head, join, sigmoid_answer, softmax_answer, tree_answer
from deepsky.networks.inputs import ImageSpec, colour_front
from deepsky.networks.saving import save_h5
from deepsky.networks.views import average_views
from deepsky.training.explain import (
    call_once,
    channel_weights,
    feature_maps,
    frozen_tail,
    grad_cam,
    log_odds,
    plain_view,
    split_at_maps,
)
from tests.test_finetune import TINY


def pooled_tail(answer, *, size_px=12, n_maps=5, seed=3):
    """Convolution, average, one dense layer: the network whose Grad-CAM is known."""
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((size_px, size_px, 3), name="pixels")
    maps = keras.layers.Conv2D(8, 3, activation="relu", name="conv_1")(pixels)
    maps = keras.layers.Conv2D(n_maps, 3, activation="relu", name="conv_2")(maps)
    maps = keras.layers.Activation("linear", name="maps")(maps)
    return keras.Model(pixels, answer(keras.layers.GlobalAveragePooling2D(name="average")(maps)))


def pictures(n=3, size_px=12):
    return np.random.default_rng(1).uniform(0, 1, (n, size_px, size_px, 3)).astype(np.float32)


def log_odds_slopes(tail, inputs):
    """The closed form: channel k of h x w places moves logit c by kernel[k, c] / (h w) at each place."""
    kernel = np.asarray(tail.get_layer("probabilities").kernel, np.float64)
    to_maps, _ = split_at_maps(tail)
    maps = to_maps.predict(inputs, verbose=0)
    p = tail.predict(inputs, verbose=0).astype(np.float64)
    slopes = []
    for of_image in p:
        others = of_image[None, :] * (1 - np.eye(len(of_image)))
        others /= others.sum(axis=1, keepdims=True)
        slopes.append((kernel - kernel @ others.T) / (maps.shape[1] * maps.shape[2]))
    return maps, np.array(slopes)


def test_channel_weights_equal_the_closed_form():
    tail, inputs = pooled_tail(softmax_answer(4)), pictures()
    maps, slopes = log_odds_slopes(tail, inputs)
    _, behind = split_at_maps(tail)
    for of_image, wanted in zip(maps, slopes, strict=True):
        found = channel_weights(behind, of_image, exclusive=True)
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5 * np.abs(wanted).max())


def test_grad_cam_is_the_weighted_sum_without_its_negative_part():
    tail, inputs = pooled_tail(softmax_answer(4)), pictures()
    maps, slopes = log_odds_slopes(tail, inputs)
    heats = grad_cam(tail, inputs, [[0, 2], [1], [3]], exclusive=True)
    assert [len(of_image) for of_image in heats] == [2, 1, 1]
    for place, column, heat in ((0, 0, heats[0][0]), (0, 2, heats[0][1]), (1, 1, heats[1][0]), (2, 3, heats[2][0])):
        wanted = np.maximum(maps[place] @ slopes[place][:, column], 0)
        np.testing.assert_allclose(heat, wanted / wanted.max() if wanted.max() else wanted, atol=2e-3)
    assert max(heat.max() for of_image in heats for heat in of_image) == 1


def test_slices_of_channels_do_not_change_the_weights(monkeypatch):
    tail, inputs = pooled_tail(softmax_answer(3)), pictures(1)
    to_maps, behind = split_at_maps(tail)
    maps = to_maps.predict(inputs, verbose=0)[0]
    whole = channel_weights(behind, maps, exclusive=True)
    monkeypatch.setattr("deepsky.training.explain._BATCH_BYTES", 2 * 2 * maps.nbytes)  # two of five at once
    np.testing.assert_allclose(channel_weights(behind, maps, exclusive=True), whole, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("answer", [sigmoid_answer(37), tree_answer()])
def test_fractions_have_finite_heat(answer):
    heats = grad_cam(pooled_tail(answer), pictures(2), [[0, 5], [36]], exclusive=False)
    assert all(np.isfinite(heat).all() and heat.shape == (8, 8) for of_image in heats for heat in of_image)
    assert any(heat.max() == 1 for of_image in heats for heat in of_image)


def test_nothing_speaks_for_an_answer_of_empty_maps():
    tail = pooled_tail(softmax_answer(3))
    to_maps, behind = split_at_maps(tail)
    weights = channel_weights(behind, np.zeros(to_maps.output_shape[1:], np.float32), exclusive=True)
    assert np.isfinite(weights).all()
    assert np.abs(weights).max() > 0


def test_log_odds_keep_their_digits_near_one():
    logits = np.array([[30.0, 0.0, -2.0]])
    p = (np.exp(logits) / np.exp(logits).sum()).astype(np.float32)
    assert p[0, 0] == 1
    odds = log_odds(p, exclusive=True)
    assert odds[0, 0] == pytest.approx(30 - np.log(1 + np.exp(-2)), rel=1e-6)
    assert log_odds(np.array([[0.2, 1.0]]), exclusive=False)[0, 0] == pytest.approx(np.log(0.25))


def test_feature_maps_are_those_of_first_middle_and_last_layer():
    tail, inputs = pooled_tail(softmax_answer(3)), pictures()
    first, last = feature_maps(tail, inputs, n_layers=2)
    assert (first.name, last.name) == ("conv_1", "conv_2")
    assert first.maps.shape == (3, 10, 10, 8)
    np.testing.assert_array_equal(feature_maps(tail, inputs, n_layers=1)[0].maps, first.maps)
    np.testing.assert_allclose(last.maps, split_at_maps(tail)[0].predict(inputs, verbose=0), rtol=1e-6)


def test_feature_maps_of_a_network_inside_a_tail():
    inner = pooled_tail(softmax_answer(3))
    base = keras.Model(inner.inputs[0], inner.get_layer("conv_2").output, name="base")
    pixels = keras.Input((12, 12, 3), name="pixels")
    maps = base(keras.layers.Rescaling(2.0, name="scaling")(pixels))
    head = keras.layers.GlobalAveragePooling2D(name="average")(keras.layers.Activation("linear", name="maps")(maps))
    tail = keras.Model(pixels, softmax_answer(3)(head))
    layers = feature_maps(tail, pictures())
    assert [layer.name for layer in layers] == ["conv_1", "conv_2"]
    np.testing.assert_allclose(layers[1].maps, feature_maps(inner, 2 * pictures())[1].maps, rtol=1e-5)


# ---- the two parts of a saved network ----

SPEC = ImageSpec((20, 20, 3), "uint8", ("r", "g", "b"))
IMAGES = np.random.default_rng(6).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)


def _frozen_job():
    """Front, tail, and what pictures were drawn from when both were at hand."""
    front = build_features(TINY, SPEC, 32, None)
    draw_kernels(next(layer for layer in front.layers if isinstance(layer, keras.Model)), np.random.default_rng(2))
    tail = build_head(front.output_shape[1], softmax_answer(4), (8,), "relu", dropout=0.2, seed=1)
    return front, tail, None, frozen_tail(front, tail)


def _fine_tune_job():
    front = colour_front(SPEC, 32)
    options = {"hidden_units": (8,), "dropout": 0.2, "seed": 5, "answer": softmax_answer(4)}
    tail = build_tail_of(TINY, 32, None, frozen_norm=True, **options)
    return front, tail, front, tail


def _scratch_job():
    front = colour_front(SPEC, 12)
    tail = pooled_tail(softmax_answer(4))
    return front, tail, front, tail


@pytest.mark.parametrize("n_views", [1, 8])
@pytest.mark.parametrize("make_job", [_frozen_job, _fine_tune_job, _scratch_job])
def test_a_saved_network_shows_what_its_job_did(tmp_path, make_job, n_views):
    front, tail, shown_front, shown_tail = make_job()
    inputs = IMAGES if shown_front is None else call_once(shown_front, IMAGES)
    columns = [[0, 3], [1], [2]]
    maps, heats = feature_maps(shown_tail, inputs), grad_cam(shown_tail, inputs, columns, exclusive=True)
    save_h5(average_views(join(front, tail, "whole"), n_views, range(4), "whole"), tmp_path / "model.h5")
    keras.backend.clear_session()

    front, tail = plain_view(keras.models.load_model(tmp_path / "model.h5", compile=False))
    assert (front is None) == (shown_front is None)
    again = IMAGES if front is None else call_once(front, IMAGES)
    np.testing.assert_array_equal(again, inputs)
    found = feature_maps(tail, again)
    assert [layer.name for layer in found] == [layer.name for layer in maps]
    for layer, before in zip(found, maps, strict=True):
        np.testing.assert_array_equal(layer.maps, before.maps)
        assert before.maps.std() > 0
    for of_image, before in zip(grad_cam(tail, again, columns, exclusive=True), heats, strict=True):
        np.testing.assert_array_equal(of_image, before)
    assert max(heat.max() for of_image in heats for heat in of_image) == 1
