import cv2
import numpy as np
import pandas as pd
import pytest

from deepsky.errors import DataError
from deepsky.imaging.params import check_denoise
from deepsky.imaging.pictures import read_picture, to_gray
from deepsky.imaging.preparation import Preparation

METHODS = [("median", 3.0), ("bilateral", 40.0), ("nlm", 10.0)]


def noisy(n_channels=3, sigma=8.0):
    """A bright disc on a dark sky, with noise."""
    y, x = np.indices((64, 64))
    clean = np.where(np.hypot(x - 32, y - 32) < 16, 180.0, 40.0)[..., np.newaxis].repeat(n_channels, axis=2)
    noise = np.random.default_rng(3).normal(0, sigma, clean.shape)
    return clean, np.clip(clean + noise, 0, 255).astype(np.uint8)


def test_middle_is_cropped_then_shrunk_by_area():
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:30, 20:40] = (200, 100, 50)
    pixels[10:30:2, 20:40] = 0
    fitted = Preparation((10, 10), crop_px=20).apply("a.png", pixels)
    assert fitted.shape == (10, 10, 3)
    assert (fitted == (100, 50, 25)).all()  # every other row is black: the mean, not a pick
    assert Preparation((80, 70)).apply("a.png", pixels).shape == (80, 70, 3)
    with pytest.raises(DataError, match=r"a\.png: is 60 x 40 px, less than crop_px 50"):
        Preparation((10, 10), crop_px=50).apply("a.png", pixels)


def test_gray_is_luminance_and_gray_stays_gray():
    pixels = np.random.default_rng(1).integers(0, 255, (20, 20, 3), np.uint8)
    gray = Preparation((20, 20), gray=True).apply("a.png", pixels)
    assert np.array_equal(gray, to_gray(pixels))
    for asked in (True, False):
        shrunk = Preparation((10, 10), gray=asked).apply("a.png", gray)
        assert shrunk.shape == (10, 10, 1)
    assert Preparation((20, 20)).apply("a.png", gray) is gray


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize(("denoise", "strength"), METHODS)
def test_noise_is_smoothed_and_edges_stay(denoise, strength, n_channels):
    clean, pixels = noisy(n_channels)
    smooth = Preparation((64, 64), denoise=denoise, denoise_strength=strength).apply("a.png", pixels)
    assert smooth.shape == pixels.shape
    sky = np.s_[:12, :12]
    assert smooth[sky].std() < 0.6 * pixels[sky].std()
    assert np.abs(smooth - clean).mean() < 0.7 * np.abs(pixels - clean).mean()
    assert abs(smooth[28:36, 28:36].mean() - 180) < 3
    again = Preparation((64, 64), denoise=denoise, denoise_strength=strength).apply("a.png", pixels)
    assert np.array_equal(smooth, again)


@pytest.mark.parametrize(("denoise", "strength"), METHODS)
def test_stronger_is_smoother(denoise, strength):
    _, pixels = noisy()
    weak, strong = (
        Preparation((64, 64), denoise=denoise, denoise_strength=value).apply("a.png", pixels)[:12, :12].std()
        for value in (strength, 2 * strength + 1)
    )
    assert strong < weak


def test_colours_keep_their_places():
    pixels = np.full((32, 32, 3), (200, 90, 20), np.uint8)
    for denoise, strength in METHODS:
        smooth = Preparation((32, 32), denoise=denoise, denoise_strength=strength).apply("a.png", pixels)
        assert np.abs(smooth.astype(int) - (200, 90, 20)).max() <= 2, denoise
    # Non-local means weighs lightness against colour: the result must not depend on which end is called red.
    noise = np.random.default_rng(2).normal(0, 12, pixels.shape)
    grainy = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    ours = Preparation((32, 32), denoise="nlm", denoise_strength=9.0).apply("a.png", grainy)
    opencv = cv2.fastNlMeansDenoisingColored(np.ascontiguousarray(grainy[..., ::-1]), None, 9, 9, 7, 21)[..., ::-1]
    assert np.array_equal(ours, opencv)


def test_denoising_comes_before_the_shrinking():
    """At the resolution at which the noise is known: a shrunk picture has less of it."""
    _, pixels = noisy()
    ours = Preparation((16, 16), crop_px=32, denoise="median", denoise_strength=3.0).apply("a.png", pixels)
    by_hand = cv2.resize(
        cv2.medianBlur(np.ascontiguousarray(pixels[16:48, 16:48]), 3), (16, 16), interpolation=cv2.INTER_AREA
    )
    assert np.array_equal(ours, by_hand)


@pytest.mark.parametrize(
    ("denoise", "strength", "message"),
    [
        ("none", 3.0, "of denoise none must be 0, not 3"),
        ("median", 4.0, "odd number of pixels, not 4"),
        ("median", 3.5, "odd number of pixels, not 3.5"),
        ("median", 33.0, "between 3 and 31, not 33"),
        ("bilateral", 0.0, "between 1 and 255, not 0"),
        ("nlm", float("nan"), "between 1 and 100, not nan"),
    ],
)
def test_strengths_out_of_range_are_refused(denoise, strength, message):
    with pytest.raises(ValueError, match=message):
        check_denoise(denoise, strength)


@pytest.mark.real
def test_real_galaxies_keep_their_light(real_data):
    names = pd.read_csv(real_data("kaggle_galaxy_zoo/labels.csv"), dtype=str)["GalaxyID"].iloc[:3]
    for name in names:
        picture = read_picture(real_data(f"kaggle_galaxy_zoo/images/{name}.jpg"))
        plain = Preparation((100, 100), crop_px=207).apply(name, picture).astype(int)
        for denoise, strength in [("median", 3.0), ("bilateral", 20.0), ("nlm", 3.0)]:
            smooth = Preparation((100, 100), 207, denoise, strength).apply(name, picture).astype(int)
            assert abs(smooth.mean() - plain.mean()) < 1.0
            assert 0 < np.abs(smooth - plain).mean() < 2.5
