"""Every network of the registries: images in, probabilities out, and the same after save and load."""

import errno
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from deepsky.errors import ConfigError, DataError, WeightsError
from deepsky.imaging.lupton import lupton_rgb
from deepsky.networks import alexnet
from deepsky.networks.backbone import Backbone, build_features
from deepsky.networks.folding import fold_normalisation
from deepsky.networks.heads import build_head, join, softmax_answer
from deepsky.networks.inputs import (
    AsinhStretch,
    ImageSpec,
    LuptonColour,
    colour_pixels,
    image_input,
    stretched_front,
)
from deepsky.networks.registry import BACKBONES, SCRATCH, find_backbone, find_scratch, known_networks, place_of
from deepsky.networks.saving import save_h5
from deepsky.training.saved import ModelCard, load_network, save_network

SPECS = {
    "gray": ImageSpec((40, 52, 1), "uint8", ("r",)),
    "rgb": ImageSpec((48, 48, 3), "uint8", ("red", "green", "blue")),
    "flux": ImageSpec((24, 24, 5), "flux", ("u", "g", "r", "i", "z"), ("i", "r", "g")),
}
N_IMAGES, N_CLASSES = 3, 4
# One of each kind: the larger ones differ in depth only, and building them takes seconds.
KINDS = [name for name in BACKBONES if name not in ("resnet101", "resnet152", "densenet169", "densenet201")]


def some_images(spec: ImageSpec, n_images: int = N_IMAGES) -> np.ndarray:
    rng = np.random.default_rng(5)
    if spec.kind == "uint8":
        return rng.integers(0, 256, (n_images, *spec.shape), dtype=np.uint8)
    return rng.normal(0.3, 1.0, (n_images, *spec.shape)).astype(np.float32)


def card_of(spec: ImageSpec, network: str) -> ModelCard:
    return ModelCard(
        dataset="toy",
        network=network,
        weights="random",
        classes=("A", "B", "C", "D"),
        kind=spec.kind,
        bands=spec.bands,
        colour_bands=spec.colour_bands,
        image_shape=spec.shape,
        pixel_scale_arcsec=0.396,
    )


def lively(base: keras.Model) -> None:
    """Without training, the features of small networks fade to 1e-19 and no pixel matters; those of ResNet explode."""
    if base.name in ("mobilenet", "efficientnet_lite0"):
        for layer in base.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.moving_variance.assign(np.full(layer.moving_variance.shape, 0.05, np.float32))


def front_and_tail(network: str, spec: ImageSpec) -> tuple[keras.Model, keras.Model]:
    keras.utils.set_random_seed(3)
    if network in BACKBONES:
        backbone = find_backbone(network)
        front = build_features(backbone, spec, backbone.min_size_px, None)
        lively(front.get_layer(network))
        return front, build_head(front.output_shape[1], softmax_answer(N_CLASSES), (8,), "relu")
    front = stretched_front(spec, {"cnn_small": 32, "alexnet": 95, "galaxy10_model_2": 100}.get(network, 64))
    return front, find_scratch(network)(front.output_shape[1:], softmax_answer(N_CLASSES))


# Building and loading a backbone takes seconds: each sees one kind of picture; MobileNet, the smallest, sees all.
CASES = [
    *[("mobilenet", pixels) for pixels in SPECS],
    *[("cnn_small", pixels) for pixels in SPECS],
    *[(network, "flux" if network == "vgg16" else "gray") for network in KINDS if network != "mobilenet"],
    *[
        (network, "flux" if "_1" in network else "rgb")
        for network in SCRATCH
        if network not in ("cnn_small", "resnet34")  # of the kind of resnet18
    ],
]


@pytest.mark.parametrize(("network", "pixels"), CASES)
def test_saved_network_predicts_what_front_and_tail_predict(
    network: str, pixels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alexnet, "HIDDEN_UNITS", (64, 64))  # the 57 M weights of its own make a file of 230 MB
    spec = SPECS[pixels]
    images = some_images(spec)
    front, tail = front_and_tail(network, spec)
    expected = keras.ops.convert_to_numpy(tail(front(images)))
    save_network(tmp_path / "model.h5", join(front, tail, network), card_of(spec, network))
    loaded, card = load_network(tmp_path / "model.h5")
    probabilities = loaded.predict(images, verbose=0)
    assert card == card_of(spec, network)
    assert probabilities.shape == (N_IMAGES, N_CLASSES)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert len(np.unique(probabilities[:, 0])) == N_IMAGES, "the pixels must matter"


@pytest.mark.parametrize("network", KINDS)
def test_only_the_head_trains_and_no_layer_has_an_automatic_name(network: str) -> None:
    backbone = find_backbone(network)
    with keras.StatelessScope():  # without values of the weights, which only take time here
        first, again = (build_features(backbone, SPECS["rgb"], backbone.min_size_px, None) for _ in range(2))
    tail = build_head(first.output_shape[1], softmax_answer(N_CLASSES), (8,), "relu")
    assert first.trainable_weights == []
    assert [w.path for w in first.weights] == [w.path for w in again.weights]
    assert first.get_config() == again.get_config()
    assert len(join(first, tail, network).trainable_weights) == 4


@pytest.mark.parametrize("network", KINDS)
def test_folding_changes_nothing_but_the_work(network: str) -> None:
    backbone = find_backbone(network)
    base = backbone.build(backbone.min_size_px)
    rng = np.random.default_rng(0)
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):  # as after training: nothing is 0 or 1
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    folded = fold_normalisation(base)
    pixels = rng.uniform(-1, 1, (2, *base.input_shape[1:])).astype(np.float32)
    expected = keras.ops.convert_to_numpy(base(pixels, training=False))
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(keras.ops.convert_to_numpy(folded(pixels)) / scale, expected / scale, atol=2e-5)
    norms = [sum(isinstance(of, keras.layers.BatchNormalization) for of in m.layers) for m in (base, folded)]
    if network == "densenet121":  # most of its normalisations stand before a convolution
        assert norms == [121, 62]
    else:
        assert norms[1] == 0
        assert (norms[0] > 0) == (network != "vgg16")


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for number in (1, 2):
        front, tail = front_and_tail("cnn_small", SPECS["flux"])
        save_network(tmp_path / f"{number}.h5", join(front, tail, "cnn_small"), card_of(SPECS["flux"], "cnn_small"))
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_a_limit_on_files_is_a_plain_error_that_names_the_file(tmp_path: Path) -> None:
    model, path = build_head(64, softmax_answer(4), (512,), "relu"), tmp_path / "weights.h5"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save_h5(model, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))


def test_lupton_layer_equals_the_pictures_a_person_sees() -> None:
    rng = np.random.default_rng(2)
    flux = rng.normal(0.0, 0.05, (2, 16, 16, 5)).astype(np.float32)
    flux[:, 4:9, 4:9] += rng.uniform(0, 40, (2, 5, 5, 5)).astype(np.float32)  # beyond saturation
    layer = keras.ops.convert_to_numpy(LuptonColour([3, 2, 1])(flux))
    picture = lupton_rgb(flux[..., [3, 2, 1]])
    assert picture.max() == 255
    assert np.abs(layer - picture).max() <= 0.51  # the picture is rounded


def test_asinh_stretch_equals_numpy() -> None:
    flux = np.array([-1e3, -0.3, -1e-7, 0.0, 1e-9, 0.02, 5e3], np.float32)
    stretched = keras.ops.convert_to_numpy(AsinhStretch(0.02)(flux))
    np.testing.assert_allclose(stretched, np.arcsinh(flux.astype(float) / 0.02), rtol=1e-5)


@pytest.mark.parametrize("network", KINDS)
def test_scaling_equals_keras(network: str) -> None:
    rgb, backbone = keras.Input((4, 4, 3)), find_backbone(network)
    scaled = keras.Model(rgb, backbone.scale(rgb))
    values = np.random.default_rng(1).uniform(0, 255, (2, 4, 4, 3)).astype(np.float32)
    if network == "efficientnet_lite0":
        expected = (values - 127) / 128
    else:
        expected = getattr(keras.applications, backbone.weights_folder).preprocess_input(values.copy())
    np.testing.assert_allclose(keras.ops.convert_to_numpy(scaled(values)), expected, atol=1e-4)


def test_gray_is_the_same_in_all_three_channels_and_stays_in_range() -> None:
    spec = SPECS["gray"]
    image = image_input(spec)
    pixels = keras.Model(image, colour_pixels(image, spec, 32)).predict(some_images(spec), verbose=0)
    assert pixels.shape == (N_IMAGES, 32, 32, 3)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])
    assert pixels.min() >= -0.01
    assert 128 < pixels.max() < 255.01


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (ImageSpec((8, 8, 4), "uint8", ("a", "b", "c", "d")), "4 channels"),
        (ImageSpec((8, 8, 2), "flux", ("g", "r", "i"), ("i", "r", "g")), "2 channels"),
        (ImageSpec((8, 8, 2), "flux", ("g", "r"), ("i", "r", "g")), "colour_bands"),
        (ImageSpec((8, 8, 2), "flux", ("g", "r"), ()), "colour_bands"),
    ],
)
def test_pixels_that_no_backbone_can_show_are_refused(spec: ImageSpec, named: str) -> None:
    with pytest.raises(DataError, match=named):
        build_features(find_backbone("mobilenet"), spec, 32, None)


def test_a_network_that_is_unknown_or_has_no_such_weights_and_a_too_small_input_are_refused() -> None:
    for find in (find_backbone, find_scratch, place_of):
        with pytest.raises(
            ConfigError, match=r"network alexnett: is unknown; choose one of: efficientnet_lite0.*, cnn_small, "
        ):
            find("alexnett")
    with pytest.raises(
        ConfigError, match=r"alexnet: has no pretrained weights; choose one of: efficientnet_lite0.*start: scr"
    ):
        find_backbone("alexnet")
    with pytest.raises(ConfigError, match="input_size_px 40 is too small; use 71"):
        build_features(find_backbone("xception"), SPECS["rgb"], 40, None)


@pytest.mark.parametrize("network", known_networks())
def test_every_entry_of_the_registries_is_there(network: str) -> None:
    assert (network in BACKBONES) != (network in SCRATCH)
    found = find_backbone(network) if network in BACKBONES else find_scratch(network)
    assert isinstance(found, Backbone) if network in BACKBONES else callable(found)
    assert Path(sys.modules[place_of(network).partition(":")[0]].__file__ or "").parent == Path(alexnet.__file__).parent


def test_no_network_is_imported_that_no_run_uses() -> None:
    code = (
        "import sys, deepsky.networks.registry as r; r.find_scratch('cnn_small'); "
        "print(*sorted({r.place_of(name).partition(':')[0] for name in r.known_networks()} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["deepsky.networks.cnn_small"]


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_h5(build_head(3, softmax_answer(2), (4,), "relu"), tmp_path / "weights.h5")
    with pytest.raises(WeightsError, match=r"weights\.h5: holds no weights of mobilenet"):
        build_features(find_backbone("mobilenet"), SPECS["rgb"], 32, tmp_path / "weights.h5")
    (tmp_path / "weights.h5").write_bytes(b"<html>404</html>")
    with pytest.raises(WeightsError, match=r"weights\.h5: holds no weights of mobilenet"):
        build_features(find_backbone("mobilenet"), SPECS["rgb"], 32, tmp_path / "weights.h5")


def test_h5_files_that_are_no_network_of_ours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    with pytest.raises(DataError, match=r"model\.h5: does not exist"):
        load_network(path)
    path.write_bytes(b"PK not hdf5")
    with pytest.raises(DataError, match=r"model\.h5: is not an HDF5 file"):
        load_network(path)
    save_h5(build_head(3, softmax_answer(2), (4,), "relu"), path)
    with pytest.raises(DataError, match="holds no deepsky_card"):
        load_network(path)


@pytest.fixture(scope="module")
def small_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "model.h5"
    save_network(
        path, join(*front_and_tail("cnn_small", SPECS["rgb"]), "cnn_small"), card_of(SPECS["rgb"], "cnn_small")
    )
    return path


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("{", "deepsky_card is not JSON"),
        ("[" * 100_000, "deepsky_card is not JSON"),
        ("[]", "deepsky_card is wrong: .* is not a mapping"),
        ({"classes": None}, r"deepsky_card\.classes is wrong: None is not a list"),
        ({"classes": ["A", "B", "A", "D"]}, "name one twice"),
        ({"classes": ["A", "B"]}, r"it makes \(None, 4\) of \(None, 48, 48, 3\)"),
        ({"kind": "radio"}, r"deepsky_card\.kind is wrong: 'radio' is unknown"),
        ({"image_shape": [48, 48]}, "is not height, width, channel"),
        ({"image_shape": [48, 40, 3]}, "its card says"),
        ({"bands": ["r"]}, "are not the 3 channels"),
        ({"crop_px": -3}, "crop_px must lie between"),
        ({"denoise": "median", "denoise_strength": 4.0}, "must be an odd number"),
        ({"pixel_scale_arcsec": float("nan")}, "is not finite"),
        ({"target": "fractions"}, "its card says"),
        ({"answer": 42}, "'answer' is unknown"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(
    changed: str | dict[str, object], said: str, small_network: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.h5"
    shutil.copy(small_network, path)
    with h5py.File(path, "r+") as file:
        card = json.loads(file.attrs["deepsky_card"])
        file.attrs["deepsky_card"] = changed if isinstance(changed, str) else json.dumps(card | changed)
    with pytest.raises(DataError, match=rf"model\.h5: .*{said}"):
        load_network(path)


def test_a_network_with_a_weight_that_is_no_number_is_refused(small_network: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    shutil.copy(small_network, path)
    with h5py.File(path, "r+") as file:
        kernels = [name for name in _datasets(file) if name.endswith("probabilities/kernel")]
        file[kernels[0]][0, 0] = np.nan
    with pytest.raises(DataError, match=r"model\.h5: cannot be built \(weight .*probabilities/kernel is not finite\)"):
        load_network(path)


def _datasets(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found


def test_code_hidden_in_a_saved_network_is_not_run(tmp_path: Path) -> None:
    path, spec = tmp_path / "model.h5", SPECS["rgb"]
    image = keras.Input(spec.shape, name="image")
    flat = keras.layers.Flatten(name="flat")(keras.layers.Lambda(lambda x: x * 2, name="hidden")(image))
    save_network(path, keras.Model(image, flat), card_of(spec, "mobilenet"))
    with pytest.raises(DataError, match="cannot be built"):
        load_network(path)
