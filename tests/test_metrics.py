import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepsky.errors import DataError
from deepsky.metrics import score, wilson_interval

CLASSES = ("GALAXY", "QSO", "STAR")
# Six rows counted by hand: GALAXY 2 of 3 right (one called STAR), QSO 1 of 2 (one called GALAXY), STAR 1 of 1.
LABELS = ("GALAXY", "GALAXY", "GALAXY", "QSO", "QSO", "STAR")
ANSWERS = (0, 0, 2, 1, 0, 2)


def _probabilities(answers=ANSWERS):
    table = np.full((len(answers), 3), 0.1)
    table[np.arange(len(answers)), answers] = 0.8
    return table


def test_scores_equal_a_count_by_hand():
    scores = score(LABELS, _probabilities(), CLASSES, majority_class="GALAXY", where="here")
    assert scores.n == 6
    assert scores.accuracy == pytest.approx(4 / 6)
    assert scores.baseline == pytest.approx(3 / 6)
    np.testing.assert_array_equal(scores.confusion, [[2, 0, 1], [1, 1, 0], [0, 0, 1]])
    assert scores.per_class["GALAXY"].precision == pytest.approx(2 / 3)
    assert scores.per_class["QSO"].recall == pytest.approx(1 / 2)
    assert scores.per_class["STAR"].f1 == pytest.approx(2 / 3)
    assert [c.support for c in scores.per_class.values()] == [3, 2, 1]
    assert scores.f1_macro == pytest.approx(2 / 3)
    assert scores.f1_weighted == pytest.approx((3 * 2 / 3 + 2 * 2 / 3 + 2 / 3) / 6)


def test_class_that_never_occurs_scores_zero_but_does_not_lower_macro_f1():
    scores = score(("GALAXY", "QSO"), _probabilities((0, 1)), CLASSES, majority_class="QSO", where="here")
    assert (scores.per_class["STAR"].f1, scores.per_class["STAR"].support) == (0, 0)
    assert scores.f1_macro == 1
    assert scores.confusion.shape == (3, 3)


def test_order_of_classes_names_the_columns():
    turned = score(LABELS, _probabilities()[:, ::-1], CLASSES[::-1], majority_class="GALAXY", where="here")
    assert turned.accuracy == pytest.approx(4 / 6)
    assert turned.per_class["GALAXY"].support == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.__setitem__((2, 1), np.nan), "prediction 3 holds a value that is not a number"),
        (lambda p: p.__setitem__((2, 1), np.inf), "not a number"),
        (lambda p: p.__setitem__((4, 0), 0.5), "prediction 5"),
        (lambda p: p.__setitem__(0, [1.4, -0.2, -0.2]), "is no probability"),
    ],
)
def test_refuses_what_is_no_probability(change, words):
    table = _probabilities()
    change(table)
    with pytest.raises(DataError, match=words):
        score(LABELS, table, CLASSES, majority_class="GALAXY", where="predictions.csv")


@pytest.mark.parametrize(
    ("labels", "table", "words"),
    [
        (("GALAXY", "COMET"), _probabilities((0, 1)), "unknown class 'COMET'"),
        (LABELS, _probabilities()[:, :2], r"\(6, 2\), not \(6, 3\)"),
        (LABELS, _probabilities()[:5], r"\(5, 3\), not \(6, 3\)"),
        ((), np.zeros((0, 3)), "no rows"),
    ],
)
def test_refuses_what_does_not_fit(labels, table, words):
    with pytest.raises(DataError, match=words):
        score(labels, table, CLASSES, majority_class="GALAXY", where="predictions.csv")


def test_wilson_interval_equals_published_values():
    # Newcombe 1998, Statistics in Medicine 17, 857, table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_mirrors(counts):
    n_right, n = counts
    low, high = wilson_interval(n_right, n)
    assert 0 <= low <= n_right / n + 1e-12
    assert n_right / n - 1e-12 <= high <= 1
    assert wilson_interval(n - n_right, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize("counts", [(1, 0), (3, 2), (-1, 2)])
def test_wilson_interval_refuses_no_share(counts):
    with pytest.raises(ValueError, match="not a share"):
        wilson_interval(*counts)
