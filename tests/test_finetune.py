"""Pretrained networks with a head: what trains of them, what stays, and the published numbers of parameters."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from deepsky.errors import ConfigError
from deepsky.networks.backbone import Backbone, build_base, build_features, tf_scaling
from deepsky.networks.finetune import base_of, blocks_of, build_tail_of, unfreeze
from deepsky.networks.heads import softmax_answer, tree_answer
from deepsky.networks.inputs import ImageSpec
from deepsky.networks.registry import BACKBONES, find_backbone
from deepsky.networks.saving import save_h5

# As Keras' documentation and model.summary() give them, with their top of 1000 classes behind average pooling; of
# EfficientNet-Lite0 the numbers in its published file.
N_PARAMETERS = {
    "efficientnet_lite0": 4_694_024,
    "mobilenet": 4_253_864,
    "resnet50": 25_636_712,
    "resnet101": 44_707_176,
    "resnet152": 60_419_944,
    "densenet121": 8_062_504,
    "densenet169": 14_307_880,
    "densenet201": 20_242_984,
    "vgg16": 14_714_688 + 513 * 1000,  # Keras' own has dense layers behind it
    "xception": 22_910_480,
}
N_BLOCKS = {
    "efficientnet_lite0": 16,
    "mobilenet": 13,
    "resnet50": 16,
    "resnet101": 33,
    "resnet152": 50,
    "densenet121": 4,
    "densenet169": 4,
    "densenet201": 4,
    "vgg16": 5,
    "xception": 14,
}
TOP_BLOCK = {
    "mobilenet": {"conv_dw_13", "conv_dw_13_bn", "conv_pw_13", "conv_pw_13_bn"},
    "vgg16": {"block5_conv1", "block5_conv2", "block5_conv3"},
    "xception": {"block14_sepconv1", "block14_sepconv1_bn", "block14_sepconv2", "block14_sepconv2_bn"},
    "resnet50": {f"conv5_block3_{n}_{kind}" for n in (1, 2, 3) for kind in ("conv", "bn")},
}


def build_tiny(size_px: int) -> keras.Model:
    pixels = keras.Input((size_px, size_px, 3), name="pixels")
    maps = keras.layers.Conv2D(4, 3, strides=2, name="conv1")(pixels)
    for number in (1, 2):
        maps = keras.layers.DepthwiseConv2D(3, use_bias=False, name=f"block{number}_depthwise")(maps)
        maps = keras.layers.BatchNormalization(name=f"block{number}_bn")(maps)
        maps = keras.layers.Conv2D(6, 1, name=f"block{number}_conv")(maps)
        maps = keras.layers.ReLU(name=f"block{number}_relu")(maps)
    return keras.Model(pixels, keras.layers.BatchNormalization(name="bn")(maps), name="tiny")


# What the real ones consist of, built in no time; the last normalisation belongs to the block before it.
TINY = Backbone(build_tiny, tf_scaling, 16, r"(block\d)_", "tiny.h5", "tiny", "")
TINY_TOP = {"block2_depthwise", "block2_bn", "block2_conv", "bn"}
HEAD = {"hidden_1", "probabilities", "dropout_0", "dropout_1"}


def tiny_tail(weights_file: Path | None = None, **options) -> keras.Model:
    chosen = {"frozen_norm": True, "hidden_units": (8,), "dropout": 0.2, "seed": 3, "answer": softmax_answer(3)}
    return build_tail_of(TINY, 20, weights_file, **{**chosen, **options})


def some_batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (4, 20, 20, 3)).astype(np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]


def step(tail: keras.Model) -> set[str]:
    """Train one step; return the paths of the weights that it changed."""
    before = [(weight, np.array(weight)) for weight in tail.weights]
    tail.compile(keras.optimizers.SGD(1.0), "categorical_crossentropy")
    tail.fit(*some_batch(), verbose=0)
    return {weight.path for weight, values in before if not np.array_equal(weight, values)}


@pytest.fixture(scope="module", params=BACKBONES)
def built(request: pytest.FixtureRequest) -> tuple[str, keras.Model]:
    """A network with 1000 classes, once for all tests; without values, which only take time here."""
    backbone = find_backbone(request.param)
    with keras.StatelessScope():
        pixels = keras.Input((backbone.min_size_px, backbone.min_size_px, 3), name="pixels")
        pooled = keras.layers.GlobalAveragePooling2D(name="average")(backbone.build(backbone.min_size_px)(pixels))
        return request.param, keras.Model(pixels, softmax_answer(1000)(pooled))


def test_parameters_are_as_published_and_names_are_fixed(built: tuple[str, keras.Model]) -> None:
    network, tail = built
    assert tail.count_params() == N_PARAMETERS[network]
    assert base_of(tail).name == network
    kinds = {layer.name.rstrip("_0123456789") for layer in base_of(tail).layers}
    assert not kinds & {"conv2d", "batch_normalization", "zero_padding2d", "activation", "add", "input_layer"}


def test_unfreezing_takes_blocks_from_the_top(built: tuple[str, keras.Model]) -> None:
    network, tail = built
    backbone, base = find_backbone(network), base_of(tail)
    blocks = blocks_of(base, backbone)
    assert len(blocks) == N_BLOCKS[network]
    every = {weight.path for weight in base.weights if "moving" not in weight.path}
    trains = []
    for n_blocks in (1, 2, len(blocks), None, 0):
        unfreeze(tail, backbone, n_blocks)
        trains.append({weight.path for weight in base.trainable_weights})
        top = {layer.name for block in blocks[len(blocks) - (n_blocks or 0) :] for layer in block}
        assert n_blocks is None or {path.split("/")[0] for path in trains[-1]} <= top
        assert len(tail.trainable_weights) == len(trains[-1]) + 2, "the head always trains"
    last, two, blocks_all, everything, nothing = trains
    assert nothing < last < two < blocks_all <= everything == every
    assert {path.split("/")[0] for path in last} == TOP_BLOCK.get(network, {path.split("/")[0] for path in last})
    with pytest.raises(
        ConfigError,
        match=f"learn {len(blocks) + 1}, but {network} has {len(blocks)} blocks; write 1 to {len(blocks)}, head",
    ):
        unfreeze(tail, backbone, len(blocks) + 1)


def test_frozen_norm_keeps_the_statistics_while_scales_and_offsets_train() -> None:
    changed = step(tiny_tail())
    assert not {path for path in changed if "moving" in path}
    assert {"block1_bn/gamma", "block1_bn/beta", "conv1/kernel", "block2_depthwise/kernel"} <= changed
    tail, images = tiny_tail(dropout=0.0), some_batch()[0]
    trained, used = (np.array(tail(images, training=training)) for training in (True, False))
    np.testing.assert_array_equal(trained, used)


def test_without_it_the_statistics_follow_the_images() -> None:
    tail = tiny_tail(frozen_norm=False)
    assert {"bn/moving_mean", "bn/moving_variance"} <= step(tail)
    assert base_of(tail).get_layer("bn").momentum == 0.9, "Keras' 0.99 wants thousands of steps"


@pytest.mark.parametrize("frozen_norm", [True, False])
def test_only_the_unfrozen_blocks_and_the_head_change(frozen_norm: bool) -> None:
    tail = tiny_tail(frozen_norm=frozen_norm)
    for n_blocks, trains in ((0, set()), (1, TINY_TOP), (0, set())):
        unfreeze(tail, TINY, n_blocks)
        assert {path.split("/")[0] for path in step(tail)} - HEAD == trains


@pytest.mark.parametrize("n_blocks", [0, 1, None])
def test_a_tail_is_saved_and_loaded_whatever_trains(n_blocks: int | None, tmp_path: Path) -> None:
    """HDF5 lists what trains first: a file would be read in another order if that were forgotten."""
    tail = tiny_tail(answer=tree_answer())
    rng = np.random.default_rng(1)
    for weight in tail.weights:
        if weight.dtype == "float32":
            weight.assign(weight + rng.uniform(0, 0.1, weight.shape))
    unfreeze(tail, TINY, n_blocks)
    save_h5(keras.Model(tail.inputs[0], tail(tail.inputs[0]), name="outer"), tmp_path / "model.h5")
    loaded = keras.saving.load_model(tmp_path / "model.h5", compile=False)
    for weight, again in zip(tail.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(np.array(weight), np.array(again), err_msg=weight.path)
    answer = loaded.predict(some_batch()[0], verbose=0)
    assert answer.shape == (4, 37)
    np.testing.assert_allclose(answer, tail.predict(some_batch()[0], verbose=0), atol=1e-6)


def test_a_seed_gives_one_network_whatever_was_built_before(tmp_path: Path) -> None:
    save_h5(tiny_tail(), tmp_path / "first.h5")
    keras.utils.set_random_seed(99)
    find_backbone("vgg16").build(32)
    save_h5(tiny_tail(), tmp_path / "again.h5")
    save_h5(tiny_tail(seed=4), tmp_path / "other.h5")
    first, again, other = ((tmp_path / f"{name}.h5").read_bytes() for name in ("first", "again", "other"))
    assert first == again != other


@pytest.mark.parametrize("frozen_norm", [True, False])
def test_weights_come_from_their_file(frozen_norm: bool, tmp_path: Path) -> None:
    base = build_tiny(16)
    rng = np.random.default_rng(1)
    for weight in base.weights:
        weight.assign(rng.uniform(0.5, 1, weight.shape))
    save_h5(base, tmp_path / "weights.h5")
    tail = tiny_tail(tmp_path / "weights.h5", frozen_norm=frozen_norm)
    for weight, expected in zip(base_of(tail).weights, base.weights, strict=True):
        np.testing.assert_array_equal(np.array(weight), np.array(expected))


@pytest.mark.real
def test_real_weights_give_the_features_of_the_frozen_backbone(real_weights: Callable[[], Path]) -> None:
    backbone = find_backbone("mobilenet")
    file = real_weights() / backbone.weights_file
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    spec = ImageSpec((64, 64, 3), "uint8", ("red", "green", "blue"))
    expected = build_features(backbone, spec, 64, file).predict(images, verbose=0)
    tail = build_tail_of(
        backbone, 64, file, frozen_norm=True, hidden_units=(), dropout=0.0, seed=1, answer=softmax_answer(3)
    )
    features = keras.Model(tail.inputs[0], tail.get_layer("average").output)
    np.testing.assert_allclose(features(images.astype(np.float32), training=True), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("hidden_units", [(), (8,)])
def test_dropout_stands_behind_hidden_layers_or_without_them_behind_the_backbone(hidden_units: tuple[int, ...]) -> None:
    images = some_batch()[0]
    for dropout, alike in ((0.0, True), (0.5, False)):
        tail = tiny_tail(hidden_units=hidden_units, dropout=dropout)
        trained, used = (np.array(tail(images, training=training)) for training in (True, False))
        assert np.array_equal(trained, used) == alike
    if hidden_units:
        assert "dropout_0" not in [layer.name for layer in tail.layers]
    else:
        pooled = keras.Model(tail.inputs[0], [tail.get_layer("average").output, tail.get_layer("dropout_0").output])
        features, left = (np.array(one) for one in pooled(images, training=True))
        assert 0.2 < (left == 0).mean() < 0.8
        np.testing.assert_allclose(left[left != 0], 2 * features[left != 0], rtol=1e-6)
    assert len([layer for layer in tail.get_layer("head").layers if "dropout" in layer.name]) == len(hidden_units)


def test_pixels_too_small_for_the_network_are_refused() -> None:
    with pytest.raises(ConfigError, match="input_size_px 40 is too small; use 71 or more"):
        build_base(find_backbone("xception"), 40)
