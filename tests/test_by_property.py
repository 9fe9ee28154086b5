"""Accuracy over properties, and how the properties are measured."""

import numpy as np
import pandas as pd
import pytest

from deepsky.catalogue.magnitudes import with_magnitudes
from deepsky.evaluation.by_property import by_property, property_figure
from deepsky.imaging.apertures import measure_middles


def test_light_in_the_middle_is_measured_above_the_sky() -> None:
    rng, size, sigma = np.random.default_rng(0), 64, np.array([1.5, 3.0, 4.0])
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    light = np.exp(-(x**2 + y**2) / (2 * sigma[:, None, None] ** 2)) / (2 * np.pi * sigma[:, None, None] ** 2)
    cutouts = (200 * light + 7 + rng.normal(0, 0.1, (3, size, size))).astype(np.float32)
    ratio, half_px = measure_middles(cutouts)
    n_pixels = (x**2 + y**2 <= 16**2).sum()
    assert ratio == pytest.approx(200 / (0.1 * np.sqrt(n_pixels)), rel=0.1)
    assert half_px == pytest.approx(sigma * np.sqrt(2 * np.log(2)), abs=0.3)
    ratio, half_px = measure_middles(np.zeros((1, 16, 16), np.float32))
    assert np.isnan(ratio).all()
    assert np.isnan(half_px).all()


def test_r_is_a_magnitude_only_beside_its_four_neighbours() -> None:
    table = pd.DataFrame({name: ["18.5", "-9999", "bright"] for name in "ugriz"})
    assert with_magnitudes(table)["r_mag"].fillna(0).tolist() == [18.5, 0, 0]
    assert "r_mag" not in with_magnitudes(table.drop(columns="u").assign(r_mag="bright"))


def test_accuracy_falls_over_the_magnitude_and_objects_without_one_are_left_out() -> None:
    rng = np.random.default_rng(1)
    rows = pd.DataFrame({"group": [f"field-{i % 30}" for i in range(600)], "r_mag": rng.uniform(15, 22, 600)})
    is_right = rng.random(600) < 1 - (rows["r_mag"] - 15) / 10
    rows.loc[:59, "r_mag"] = np.nan
    table = by_property(rows, is_right.to_numpy())
    assert table["n"].tolist() == [90] * 6
    assert (np.diff(table["middle"]) > 0).all()
    assert table["accuracy"].iloc[0] > table["accuracy"].iloc[5] + 0.3
    first = rows["r_mag"].between(table["low"].iloc[0], table["high"].iloc[0])
    assert table["accuracy"].iloc[0] == pytest.approx(is_right[first].mean())
    assert (table["accuracy_low"] < table["accuracy"]).all()
    assert len(property_figure(table, "sky").axes) == 1
    assert (table["n_groups"] > 10).all()
    assert "unreliable" not in property_figure(table, "sky").get_suptitle()
    few = by_property(rows.assign(group=[f"field-{i % 4}" for i in range(600)]), is_right.to_numpy())
    assert (few["n_groups"] == 4).all()
    assert property_figure(few, "sky").get_suptitle() == "sky\nhollow: interval unreliable, from fewer than 10 groups"
    assert by_property(rows[:70].assign(snr=np.nan), is_right.to_numpy()[:70]).empty
