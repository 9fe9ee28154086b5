"""Paired runs: how sure it is that one is better, on the same groups of objects."""

import numpy as np
import pandas as pd
import pytest

from deepsky.evaluation.paired import by_group, compare

GROUP = pd.Series([f"field-{i % 25}" for i in range(500)])


def right(seed: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random(500) < share


def test_runs_that_differ_by_chance_are_not_told_apart_and_others_are() -> None:
    tables = {
        "good": by_group(GROUP, right(1, 0.9), "accuracy"),
        "as_good": by_group(GROUP, right(2, 0.9), "accuracy"),
        "bad": by_group(GROUP, right(3, 0.7), "accuracy"),
    }
    found = compare(tables, "accuracy")
    assert found is not None
    assert (found.n, found.n_groups, found.runs[2]) == (500, 25, "bad")
    assert found.score[2] == pytest.approx(right(3, 0.7).mean())
    assert found.better[0][2] > 0.999
    assert 0.5 <= found.better[0][1] < 0.9
    assert np.allclose(np.array(found.better) + np.transpose(found.better), 1)
    assert found.behind_low[1] < found.behind[1] < found.behind_high[1]
    assert found.behind_low[2] > 0.1


def test_answers_to_the_same_objects_tell_more_than_two_scores_do() -> None:
    base, better = right(4, 0.8), right(4, 0.8).copy()
    better[np.flatnonzero(~base)[:12]] = True  # the same answers, and a few more right ones
    same = compare({"a": by_group(GROUP, base, "accuracy"), "b": by_group(GROUP, better, "accuracy")}, "accuracy")
    other = compare(
        {"a": by_group(GROUP, base, "accuracy"), "c": by_group(GROUP, np.roll(better, 60), "accuracy")}, "accuracy"
    )
    assert same is not None
    assert other is not None
    assert same.runs == ["b", "a"]
    assert same.better[0][1] > 0.999 > other.better[0][1]


def test_of_rmse_less_is_better_and_equal_runs_are_even() -> None:
    errors = np.random.default_rng(6).gamma(1, 0.01, 500)
    tables = {name: by_group(GROUP, errors * factor, "rmse") for name, factor in (("a", 1), ("b", 1), ("c", 2))}
    found = compare(tables, "rmse")
    assert found is not None
    assert found.runs == ["a", "b", "c"]
    assert found.score[0] == pytest.approx(np.sqrt(errors.mean()))
    assert found.better[0][1] == 0.5
    assert found.better[0][2] == 1
    assert found.behind[2] > 0


def test_only_groups_that_all_were_tested_on_count() -> None:
    whole = by_group(GROUP, right(7, 0.8), "accuracy")
    part = by_group(GROUP[:400], right(8, 0.8)[:400], "accuracy")  # the groups hold fewer objects: another split
    assert compare({"a": whole, "b": part}, "accuracy") is None
    assert compare({"a": whole}, "accuracy") is None
    found = compare({"a": whole, "b": whole.iloc[:20]}, "accuracy")
    assert found is not None
    assert (found.n_groups, found.n) == (20, 400)
