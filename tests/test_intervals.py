"""Intervals of scores: as published where somebody published them, and true about as often as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from deepsky.intervals import (
    Resampling,
    f1_interval,
    independent_gain_interval,
    paired_gain_interval,
    rmse_gain_interval,
    rmse_interval,
    share_gain_interval,
    share_interval,
    unreliable,
    wilson_interval,
)


def grouped_answers(rng, n_groups, share, correlation, per_group=8):
    """Whether answers are right that are more alike within a group: each group has a share of its own."""
    own = (1 - correlation) / correlation
    shares = rng.beta(share * own, (1 - share) * own, n_groups)
    group = np.repeat(np.arange(n_groups), per_group)
    return rng.random(len(group)) < shares[group], group


@pytest.mark.parametrize(("n_groups", "share"), [(20, 0.7), (20, 0.97), (100, 0.9)])
def test_the_interval_of_a_share_holds_the_truth_where_rows_of_a_group_are_alike(n_groups, share):
    rng, held, held_by_wilson = np.random.default_rng(1), [], []
    for _ in range(300):
        is_right, group = grouped_answers(rng, n_groups, share, 0.3)
        for found, interval in (
            (held, share_interval(is_right, Resampling(group))),
            (held_by_wilson, wilson_interval(is_right.sum(), len(is_right))),
        ):
            found.append(interval[0] <= share <= interval[1])
    assert np.mean(held) > 0.9
    assert np.mean(held_by_wilson) < 0.85  # which takes every row for a draw of its own


def test_of_rows_that_are_groups_themselves_it_is_close_to_wilsons():
    is_right = np.random.default_rng(2).random(2000) < 0.8
    alone = share_interval(is_right, Resampling(np.arange(2000)))  # more than are drawn one by one
    assert alone == pytest.approx(wilson_interval(is_right.sum(), 2000), abs=3e-3)
    assert share_interval(np.ones(20, bool), Resampling(np.arange(20))) == wilson_interval(20, 20)


def test_where_all_answers_are_right_as_many_rows_count_as_there_are_groups():
    right, rows = np.ones(60, bool), Resampling(np.repeat(np.arange(12), 5))
    assert share_interval(right, rows) == wilson_interval(12, 12)
    assert f1_interval(np.zeros(60, int), np.zeros(60, int), 3, rows) == wilson_interval(12, 12)
    one = Resampling(["field"] * 60)
    assert unreliable(one.n_groups) == "unreliable, from 1 group"
    assert share_interval(np.arange(60) < 30, one) == wilson_interval(0.5, 1)
    assert (unreliable(9), unreliable(10), unreliable(rows.n_groups)) == ("unreliable, from 9 groups", "", "")


@pytest.mark.parametrize("n_groups", [9, 20])
def test_the_interval_of_the_macro_f1_holds_the_truth_as_that_of_the_accuracy_does(n_groups):
    # Three equally frequent classes that are confused alike: the true macro F1 is the accuracy.
    rng, held = np.random.default_rng(9), []
    for _ in range(200):
        is_right, group = grouped_answers(rng, n_groups, 0.95, 0.3)
        truth, rows = rng.integers(0, 3, len(group)), Resampling(group)
        answer = np.where(is_right, truth, (truth + rng.integers(1, 3, len(group))) % 3)
        low, high = f1_interval(truth, answer, 3, rows)
        assert low <= f1_score(truth, answer, average="macro") <= high
        held.append(low <= 0.95 <= high)
    assert np.mean(held) > 0.9  # less by the bootstrap alone


def test_replicates_are_those_of_a_loop_over_groups():
    rng = np.random.default_rng(3)
    group, truth, answer = rng.integers(0, 15, 200), rng.integers(0, 3, 200), rng.integers(0, 2, 200)
    rows = Resampling(group)
    means = rows.means(truth)
    low, high = f1_interval(truth, answer, 4, rows)
    names, f1 = np.unique(group), []
    from deepsky.intervals import _draws

    place = np.random.default_rng(20180227).permutation(15)
    for number, draws in enumerate(_draws(15)[:400]):
        drawn = np.concatenate(
            [np.flatnonzero(group == names[g]) for g in range(15) for _ in range(int(draws[place[g]]))]
        )
        assert means[number] == pytest.approx(truth[drawn].mean())
        f1.append(f1_score(truth[drawn], answer[drawn], average="macro", zero_division=0))
    assert (low, high) == pytest.approx(np.quantile(f1, (0.025, 0.975)), abs=0.02)


def test_the_order_of_rows_changes_nothing():
    rng = np.random.default_rng(4)
    is_right, group = grouped_answers(rng, 700, 0.8, 0.2, per_group=2)
    order = rng.permutation(len(group))
    assert share_interval(is_right, Resampling(group)) == share_interval(is_right[order], Resampling(group[order]))


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


def test_gain_interval_equals_published_values():
    # The output of R's PropCIs::diffpropci.mp(b = 40, c = 20, n = 160), by an author of the method; it takes c - b.
    assert paired_gain_interval(20, 40, 160) == pytest.approx((-0.21601726, -0.03089632), abs=1e-8)
    assert paired_gain_interval(40, 20, 160) == pytest.approx((0.03089632, 0.21601726), abs=1e-8)


def test_gain_interval_by_hand():
    # 3 gained, 1 lost of 10: (3.5 - 1.5) / 12 = 1/6, variance (5 - 4 / 12) / 144, times 1.96.
    assert paired_gain_interval(3, 1, 10) == pytest.approx((1 / 6 - 0.35284, 1 / 6 + 0.35284), abs=1e-5)
    assert paired_gain_interval(10, 0, 10)[1] == 1
    assert paired_gain_interval(0, 10, 10)[0] == -1
    low, high = paired_gain_interval(0, 0, 50)
    assert low == -high < 0  # equal answers do not prove equal networks


@pytest.mark.parametrize(
    ("n", "gained", "lost"), [(25, 0.2, 0.1), (120, 0.1, 0.05), (120, 0.02, 0.02), (1000, 0.3, 0.25)]
)
def test_gain_interval_holds_the_truth_about_as_often_as_it_says(n, gained, lost):
    counts = np.random.default_rng(1).multinomial(n, [gained, lost, 1 - gained - lost], size=4000)
    intervals = np.array([paired_gain_interval(int(b), int(c), n) for b, c, _ in counts])
    held = ((intervals[:, 0] <= gained - lost) & (gained - lost <= intervals[:, 1])).mean()
    assert 0.94 < held <= 1.0


def test_gain_of_different_objects_equals_published_values():
    # Newcombe 1998, Statistics in Medicine 17, 873, table II, method 10: 56/70 and 48/80, 9/10 and 3/10, 5/56 and 0/29.
    for (a, m), (b, n), wanted in (((56, 70), (48, 80), (0.0524, 0.3339)), ((9, 10), (3, 10), (0.1705, 0.8090)),
                                   ((5, 56), (0, 29), (-0.0381, 0.1926))):  # fmt: skip
        one, other = (k / of for k, of in ((a, m), (b, n)))
        found = independent_gain_interval((one, *wilson_interval(a, m)), (other, *wilson_interval(b, n)))
        assert found == pytest.approx(wanted, abs=5e-5)


@pytest.mark.parametrize("counts", [(1, 0, 0), (2, 2, 3), (-1, 0, 5), (0, -1, 5)])
def test_gain_interval_refuses_no_counts(counts):
    with pytest.raises(ValueError, match="no counts"):
        paired_gain_interval(*counts)


@pytest.mark.parametrize("n", [40, 200])
def test_rmse_interval_holds_the_truth_about_as_often_as_it_says(n):
    rows, rng = Resampling(np.arange(n)), np.random.default_rng(5)
    squares = rng.gamma(1.2, 0.003, (800, n))  # skewed, as squared errors are
    intervals = np.array([rmse_interval(of_sample, rows) for of_sample in squares])
    wanted = np.sqrt(1.2 * 0.003)
    held = ((intervals[:, 0] <= wanted) & (wanted <= intervals[:, 1])).mean()
    assert 0.9 < held < 0.97


def test_rmse_interval_at_its_ends():
    assert rmse_interval(np.zeros(4), Resampling(range(4))) == (0, 0)
    assert rmse_interval(np.full(9, 0.25), Resampling([1] * 9)) == (0, 1)  # no fraction is off by more


def test_rmse_gain_interval_holds_the_truth_about_as_often_as_it_says():
    rng, rows, held = np.random.default_rng(6), Resampling(range(60)), []
    for _ in range(500):
        shared = rng.gamma(1.5, 0.002, 60)
        better, worse = shared + rng.gamma(1, 0.0005, 60), shared + rng.gamma(1, 0.001, 60)
        gain, low, high = rmse_gain_interval(better, worse, rows)
        assert low <= gain <= high
        held.append(low <= np.sqrt(0.004) - np.sqrt(0.0035) <= high)
    assert 0.9 < np.mean(held) < 0.98


def test_rmse_gain_of_equal_answers_is_nothing():
    squares, rows = np.random.default_rng(7).gamma(1, 1, 20), Resampling(range(20))
    assert rmse_gain_interval(squares, squares, rows) == (0, 0, 0)
    assert rmse_gain_interval(squares / 4, squares, rows)[0] > 0


@pytest.mark.parametrize("differing", [0.02, 0.3])
def test_gain_of_a_share_holds_the_truth_where_rows_of_a_group_are_alike(differing):
    rng, held, group = np.random.default_rng(8), [], np.repeat(np.arange(30), 6)
    rows = Resampling(group)
    for _ in range(300):
        changed = rng.random(180) < rng.beta(differing * 2, (1 - differing) * 2, 30)[group]
        better = rng.random(180) < 0.7
        gain, low, high = share_gain_interval(changed & better, changed & ~better, rows)
        assert low <= gain <= high
        held.append(low <= 0.4 * differing <= high)
    assert np.mean(held) > 0.88
    none = np.zeros(180, bool)
    assert share_gain_interval(none, none, rows) == (0, *paired_gain_interval(0, 0, 30))
