"""The networks trained from the images: published numbers of parameters, and what they refuse."""

import keras
import numpy as np
import pytest

from deepsky.errors import ConfigError
from deepsky.networks.heads import sigmoid_answer, softmax_answer
from deepsky.networks.registry import SCRATCH, find_scratch

SIZE_PX = 64


def n_trained(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def tail_of(network: str, size_px: int | None = None, n_classes: int = 4) -> keras.Model:
    """Without values of the weights, which only take time here."""
    size_px = size_px or {"alexnet": 95, "galaxy10_model_2": 100}.get(network, SIZE_PX)
    with keras.StatelessScope():
        return find_scratch(network)((size_px, size_px, 3), softmax_answer(n_classes))


# torchvision's documentation gives these three, with biases of convolutions where it has them.
@pytest.mark.parametrize(
    ("network", "n_parameters"), [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("alexnet", 61_100_840)]
)
def test_published_parameter_counts_with_1000_classes(network: str, n_parameters: int) -> None:
    assert n_trained(tail_of(network, n_classes=1000)) == n_parameters


@pytest.mark.parametrize(
    ("network", "size_px", "side_px", "by_hand"),
    [
        ("regression_512", 100, 4, 128 * 16 * 512 + 512 + 513 * 37),
        ("regression_512", 70, 2, 128 * 4 * 512 + 512 + 513 * 37),
        ("regression_96_64", 100, 4, 128 * 16 * 96 + 96 + 97 * 64 + 65 * 37),
        ("regression_96_64", 70, 2, 128 * 4 * 96 + 96 + 97 * 64 + 65 * 37),
    ],
)
def test_the_regression_study_networks_have_its_widths(network: str, size_px: int, side_px: int, by_hand: int) -> None:
    with keras.StatelessScope():
        tail = find_scratch(network)((size_px, size_px, 3), sigmoid_answer(37))
    widths = [layer.filters for layer in tail.layers if isinstance(layer, keras.layers.Conv2D)]
    assert widths == ([32, 64, 128, 128] if network == "regression_512" else [32, 96, 128, 128])
    convolutions = sum((9 * n_in + 1) * n_out for n_in, n_out in zip([3, *widths[:-1]], widths, strict=True))
    assert tail.get_layer("flat").output.shape == (None, side_px**2 * 128)
    assert n_trained(tail) == convolutions + by_hand


# What the study printed; of model 2 it printed 3,649,546, and not its layers.
@pytest.mark.parametrize(
    ("network", "shape", "n_parameters"),
    [
        ("cnn_mnist", (28, 28, 1), 121_930),
        ("cnn_cifar10", (32, 32, 3), 122_570),
        ("galaxy10_model_1", (32, 32, 3), 122_570),
        ("galaxy10_model_2", (256, 256, 3), 3_649_722),
    ],
)
def test_the_galaxy10_study_networks_have_its_numbers_of_parameters(
    network: str, shape: tuple[int, int, int], n_parameters: int
) -> None:
    with keras.StatelessScope():
        assert n_trained(find_scratch(network)(shape, softmax_answer(10))) == n_parameters


def test_layers_stand_as_the_studies_print_them() -> None:
    def behind_the_maps(network: str) -> list[str]:
        layers = tail_of(network, 100).layers
        flat = next(number for number, layer in enumerate(layers) if layer.name == "flat")
        return [layer.name for layer in layers[flat:]]

    assert behind_the_maps("regression_512") == ["flat", "dropout_1", "hidden_1", "probabilities"]
    assert behind_the_maps("regression_96_64") == [
        "flat", "dropout_1", "hidden_1", "dropout_2", "hidden_2", "probabilities"
    ]  # fmt: skip
    assert behind_the_maps("galaxy10_model_1") == ["flat", "hidden_1", "dropout", "probabilities"]
    assert tail_of("regression_512", 100).get_layer("dropout_1").rate == 0.5
    first = tail_of("galaxy10_model_2", 100).get_layer("conv_1")
    assert (first.filters, first.kernel_size) == (8, (10, 10))


@pytest.mark.parametrize(
    ("network", "side_px"),
    [
        ("alexnet", 5),
        ("resnet18", 2),
        ("resnet34", 2),
        ("regression_512", 4),
        ("galaxy10_model_1", 16),
        ("galaxy10_model_2", 1),
    ],
)
def test_the_last_maps_have_a_name(network: str, side_px: int) -> None:
    tail = tail_of(network)
    maps = tail.get_layer("maps").output
    assert maps.shape[1:3] == (side_px, side_px)
    behind = keras.Model(maps, tail.output)
    assert not [layer for layer in behind.layers if isinstance(layer, keras.layers.Conv2D)]


@pytest.mark.parametrize("network", SCRATCH)
def test_every_layer_has_a_fixed_name_and_pixels_keep_their_scale_outside(network: str) -> None:
    tail, again = tail_of(network), tail_of(network)
    assert [layer.name for layer in tail.layers] == [layer.name for layer in again.layers]
    assert tail.get_config()["name"] == network
    # Stretched flux is anywhere, pictures are in 0..1: both are brought to the same range, by what is learned.
    assert isinstance(tail.get_layer("standardise"), keras.layers.BatchNormalization)


@pytest.mark.parametrize("network", SCRATCH)
def test_normalisation_forgets_its_start_within_a_short_training(network: str) -> None:
    norms = [layer for layer in tail_of(network).layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} == {0.9}


@pytest.mark.parametrize(
    ("network", "min_size_px"),
    [
        ("alexnet", 95),
        ("regression_512", 46),
        ("regression_96_64", 46),
        ("cnn_mnist", 10),
        ("cnn_cifar10", 8),
        ("galaxy10_model_1", 8),
        ("galaxy10_model_2", 93),
    ],
)
def test_the_smallest_images_are_named(network: str, min_size_px: int) -> None:
    assert tail_of(network, min_size_px).output.shape == (None, 4)
    with pytest.raises(ConfigError, match=f"network {network}: cannot see .* set its input_size_px to {min_size_px}"):
        tail_of(network, min_size_px - 1)


@pytest.mark.parametrize(("network", "size_px"), [("alexnet", 95), ("resnet18", 32), ("regression_512", 46)])
def test_a_step_reaches_every_kernel(network: str, size_px: int) -> None:
    keras.utils.set_random_seed(1)
    tail = tail_of(network, size_px)
    tail.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    kernels = [weight for weight in tail.trainable_weights if len(weight.shape) > 1]
    before = [weight.numpy() for weight in kernels]
    tail.train_on_batch(np.random.default_rng(1).random((8, size_px, size_px, 3), np.float32), np.arange(8) % 4)
    still = [kernel.path for kernel, old in zip(kernels, before, strict=True) if (kernel.numpy() == old).all()]
    assert not still


@pytest.mark.parametrize(
    ("network", "size_px"), [("regression_96_64", 64), ("galaxy10_model_1", 64), ("galaxy10_model_2", 100)]
)
def test_they_learn_what_is_easy(network: str, size_px: int) -> None:
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    labels = np.arange(48) % 2
    images = rng.normal(0.3, 0.1, (48, size_px, size_px, 3)).astype(np.float32)
    images[labels == 1, 20:44, 28:36] += 0.4  # seen edge-on, upright
    images[labels == 0, 28:36, 20:44] += 0.4  # and lying
    tail = find_scratch(network)((size_px, size_px, 3), softmax_answer(2))
    tail.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    losses = tail.fit(images, labels, batch_size=8, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < 0.1 < losses[0]
