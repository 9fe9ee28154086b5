"""Calibration and prediction sets: right about data of which the truth is known."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss

from deepsky.calibration import at_temperature, brier_score, calibration_error, fit_temperature, reliability
from deepsky.evaluation.certainty import certainty
from deepsky.evaluation.prediction_sets import coverage, prediction_sets, threshold
from deepsky.evaluation.trained import read_trained
from tests.trained_folders import write_trained


def answers(n: int, seed: int = 0, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities and classes that follow them; above a temperature of 1 they are surer than they should be."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(4, 0.5), n)
    truth = (rng.random((n, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(max=3)
    return at_temperature(probabilities, 1 / temperature), truth


def test_the_temperature_that_spoiled_the_probabilities_is_found() -> None:
    for spoiled in (0.5, 1.0, 2.5):
        probabilities, truth = answers(20_000, temperature=spoiled)
        found = fit_temperature(probabilities, truth)
        assert found == pytest.approx(spoiled, rel=0.05)
        scaled = at_temperature(probabilities, found)
        assert (scaled.argmax(axis=1) == probabilities.argmax(axis=1)).all()
        assert calibration_error(reliability(scaled, truth)) < 0.02
        if spoiled != 1:
            assert calibration_error(reliability(probabilities, truth)) > 0.05
            assert brier_score(scaled, truth) < brier_score(probabilities, truth)


def test_bins_hold_equally_many_rows_and_count_what_is_right() -> None:
    probabilities = np.array([[0.6, 0.4]] * 10 + [[0.1, 0.9]] * 10)
    truth = np.array([0] * 6 + [1] * 4 + [1] * 5 + [0] * 5)
    assert [(one.n, one.accuracy) for one in reliability(probabilities, truth)] == [(10, 0.6), (10, 0.5)]
    assert calibration_error(reliability(probabilities, truth)) == pytest.approx(0.4 / 2)
    many = reliability(np.repeat(probabilities, 12, axis=0), np.repeat(truth, 12))
    assert [one.n for one in many] == [16] * 15
    assert len(reliability(probabilities[:7], truth[:7])) == 1
    assert brier_score(probabilities, truth) == pytest.approx(2 * brier_score_loss(truth, probabilities[:, 1]))


def test_sets_of_exchangeable_objects_cover_nine_of_ten() -> None:
    val, val_truth = answers(4000, seed=1, temperature=3)  # sets need no calibrated probabilities
    test, truth = answers(3000, seed=2, temperature=3)
    sets = prediction_sets(test, threshold(val, val_truth))
    groups = np.array([f"field-{i % 60}" for i in range(3000)])
    found = coverage(sets, truth, groups)
    assert found is not None
    assert found.coverage_low <= 0.9 <= found.coverage_high
    assert found.coverage_high - found.coverage_low < 0.05
    assert 1 < found.size < 4
    of_class = coverage(sets, truth, groups, 2)
    assert of_class is not None
    assert of_class.n == (truth == 2).sum()
    assert of_class.coverage == pytest.approx(sets[truth == 2, 2].mean())
    assert coverage(sets, truth, groups, 4) is None


def test_too_few_val_objects_leave_no_class_out() -> None:
    val, truth = answers(8)
    assert threshold(val, truth) == 0  # nine would do
    assert prediction_sets(val, 0.0).all()


def test_without_val_objects_of_their_own_nothing_is_scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("models/trained/sky/mobilenet")
    write_trained(folder, n_objects=400)
    found = certainty(read_trained(folder, "sky-mobilenet"))
    assert {"test_ece", "test_brier", "temperature_left", "test_ece_scaled", "test_set_size"} <= set(found.figures)
    assert list(found.tables["prediction_sets.csv"]["class"]) == ["", "GALAXY", "QSO", "STAR"]
    assert json.loads(json.dumps(found.details))["sets"]["overall"]["n"] == 100
    path = folder / "predictions.csv"
    pd.read_csv(path, dtype={"id": str}).replace({"split": {"test": "val"}}).to_csv(path, index=False)
    (folder / "run.json").write_text(
        (folder / "run.json").read_text().replace('"tested_on": "test"', '"tested_on": "val"')
    )
    without = certainty(read_trained(folder, "sky-mobilenet"))
    assert set(without.figures) == {"test_ece", "test_brier"}
    assert without.details["sets"] is None
