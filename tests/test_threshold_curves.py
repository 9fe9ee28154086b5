import numpy as np
import pytest

from deepsky.evaluation.threshold_curves import threshold_curves


def test_areas_are_those_of_a_small_case_done_by_hand():
    # Of the pairs (one of A, one of B), A has the larger p_A in 3 of 4; precision at its two objects is 1 and 2/3.
    p_a = np.array([0.9, 0.6, 0.7, 0.1])
    curves = threshold_curves(["A", "A", "B", "B"], np.stack([p_a, 1 - p_a], axis=1), ["A", "B"])
    assert curves["A"].auc == curves["B"].auc == pytest.approx(3 / 4)
    assert curves["A"].average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert curves["A"].roc == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]


def test_long_curves_are_thinned_with_both_ends():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 2000)
    p_a = np.clip(0.4 * truth + rng.uniform(0, 0.6, 2000), 0, 1)
    curves = threshold_curves(np.array(["B", "A"])[truth], np.stack([p_a, 1 - p_a], axis=1), ["A", "B"])
    for points in (curves["A"].roc, curves["A"].precision_recall):
        x, y = np.array(points).T
        assert 20 < len(x) <= 60
        assert (np.diff(x) >= 0).all()
        assert (x[0], x[-1]) == (0, 1)
    x, y = np.array(curves["A"].roc).T
    assert np.trapezoid(y, x) == pytest.approx(curves["A"].auc, abs=0.002)


def test_a_class_that_no_object_or_every_object_is_of_has_no_curves():
    answers = np.array([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1]])
    assert set(threshold_curves(["A", "B"], answers, ["A", "B", "C"])) == {"A", "B"}
    assert threshold_curves(["A", "A"], answers, ["A", "B", "C"]) == {}
