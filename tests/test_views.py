"""The mean answer over exact views of an image."""

from pathlib import Path

import keras
import numpy as np
import pytest

from deepsky.errors import DataError
from deepsky.networks.portable import fused, portable
from deepsky.networks.saving import save_h5
from deepsky.networks.views import VIEWS, DihedralViews, average_views, images_at_once, mean_of_views, views_of

SWAPS = [1, 0, 2]


def core(shape: tuple[int, int, int] = (10, 10, 3)) -> keras.Model:
    image = keras.Input(shape, dtype="uint8", name="image")
    flat = keras.layers.Flatten(name="flat")(keras.layers.Rescaling(1 / 255, name="scale")(image))
    last = keras.layers.Dense(3, activation="softmax", name="probabilities", kernel_initializer="random_normal")
    return keras.Model(image, last(flat), name="core")


def images(n_images: int = 5, shape: tuple[int, int, int] = (10, 10, 3)) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (n_images, *shape), dtype=np.uint8)


def by_hand(network: keras.Model, some: np.ndarray, n_views: int) -> np.ndarray:
    answers = []
    for turns, mirrored in VIEWS[n_views]:
        seen = np.rot90(some[:, :, ::-1] if mirrored else some, turns, axes=(1, 2))
        answer = network.predict(seen, verbose=0)
        answers.append(answer[:, SWAPS] if mirrored else answer)
    return np.mean(answers, axis=0)


@pytest.mark.parametrize("n_views", VIEWS)
def test_the_mean_is_that_of_views_made_by_hand(n_views: int) -> None:
    network = core()
    whole = average_views(network, n_views, SWAPS, "averaged")
    assert images_at_once(whole, 16) == 16 // n_views
    averaged = whole.predict(images(), batch_size=2, verbose=0)
    np.testing.assert_allclose(averaged, by_hand(network, images(), n_views), atol=1e-6)
    assert len(VIEWS[n_views]) == n_views
    answers = [network.predict(view, verbose=0) for view in views_of(images(), n_views)]
    np.testing.assert_allclose(mean_of_views(answers, SWAPS), averaged, atol=1e-6)
    assert n_views not in (2, 8) or np.abs(mean_of_views(answers, range(3)) - averaged).max() > 1e-3


def test_views_are_all_different_and_stay_whole_numbers() -> None:
    views = keras.ops.convert_to_numpy(DihedralViews(8)(images(2)))
    assert views.dtype == np.uint8
    assert len({one.tobytes() for one in views}) == 16
    np.testing.assert_array_equal(views[:2], images(2))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_with_all_views_a_turned_image_is_the_same_image(turns: int) -> None:
    network = core()
    averaged = average_views(network, 8, SWAPS, "averaged")
    turned = np.rot90(images(), turns, axes=(1, 2))
    np.testing.assert_allclose(averaged.predict(turned), averaged.predict(images()), atol=1e-6)
    assert not np.allclose(network.predict(turned), network.predict(images()), atol=1e-2)


@pytest.mark.parametrize("n_views", [2, 8])
def test_with_mirror_images_a_mirrored_image_is_its_partner(n_views: int) -> None:
    averaged = average_views(core(), n_views, SWAPS, "averaged")
    mirrored = averaged.predict(images()[:, :, ::-1], verbose=0)
    np.testing.assert_allclose(mirrored[:, SWAPS], averaged.predict(images(), verbose=0), atol=1e-6)


@pytest.mark.parametrize("n_views", VIEWS)
def test_saved_in_layers_of_keras_it_answers_the_same(n_views: int, tmp_path: Path) -> None:
    network = core()
    averaged = average_views(network, n_views, SWAPS, "averaged")
    save_h5(portable(averaged), tmp_path / "model.h5")
    loaded = keras.models.load_model(tmp_path / "model.h5", compile=False)
    assert {type(layer).__module__.partition(".")[0] for layer in loaded.layers} == {"keras"}
    expected = averaged.predict(images(), verbose=0)
    np.testing.assert_allclose(loaded.predict(images(), verbose=0), expected, atol=1e-6)
    again = fused(loaded)
    np.testing.assert_array_equal(again.predict(images(), verbose=0), expected)
    assert images_at_once(again, 16) == 16 // n_views
    assert loaded.input_shape == again.input_shape == (None, 10, 10, 3)
    assert loaded.output_shape == again.output_shape == (None, 3)
    save_h5(portable(average_views(network, n_views, SWAPS, "averaged")), tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "model.h5").read_bytes()


def test_quarter_turns_of_oblongs_are_refused_and_mirror_images_are_not() -> None:
    oblong = (6, 8, 3)
    with pytest.raises(DataError, match="test_views: images are 6 x 8 px; pack square cutouts, or set it to 1 or 2"):
        average_views(core(oblong), 4, SWAPS, "averaged")
    network = core(oblong)
    averaged = average_views(network, 2, SWAPS, "averaged").predict(images(3, oblong), verbose=0)
    np.testing.assert_allclose(averaged, by_hand(network, images(3, oblong), 2), atol=1e-6)
