import math
from dataclasses import replace

import numpy as np
import pytest

from deepsky.networks.heads import build_head, softmax_answer
from deepsky.training.examples import Examples
from deepsky.tuning.objective import Objective
from tests.tuning_project import HEAD, TUNE_PARAMS, FormulaTrainer

TUNE = replace(TUNE_PARAMS, epochs=3, pruner="none")
ONE = replace(HEAD, epochs=3, hidden_units=(5,))


def fold(n_features: int = 4) -> Examples:
    split = np.array(["train", "val", "test"] * 2)
    targets = np.eye(2, dtype=np.float32)[np.arange(6) % 2]
    return Examples(np.zeros((6, n_features), np.float32), np.arange(6), targets, split)


def judge(params, trainer, candidates, folds=1, on_step=lambda index, step, value: True):
    ended = {}

    def on_end(index, result):
        assert index not in ended
        ended[index] = result

    Objective(params, trainer, [fold() for _ in range(folds)]).judge(candidates, on_step, on_end)
    return ended


def f1(epoch, seed=1, rate=1e-3):
    return 1 / (1 + abs(math.log10(rate) + 3)) - 0.1 / epoch + 0.01 * seed


def test_a_value_is_the_mean_of_folds_and_repeats_each_with_its_seed():
    trainer, params = FormulaTrainer(), replace(TUNE, folds=2, repeats=3)
    steps = []
    result = judge(params, trainer, [ONE], folds=2, on_step=lambda index, step, value: steps.append(step) or True)[0]
    assert [one.seed for one in trainer.fitted] == [1, 1, 2, 2, 3, 3]
    assert result.values == (pytest.approx(np.mean([f1(3, seed) for seed in (1, 1, 2, 2, 3, 3)])),)
    assert steps == [step for step, _ in result.curve] == list(range(1, 19))
    assert set(result.curve[0][1]) == {"val_loss", "val_accuracy", "val_f1_macro", "val_rmse"}


def test_the_pruner_sees_the_mean_so_far():
    seen = []

    def on_step(index, step, value):
        seen.append(value)
        return step < 4

    result = judge(replace(TUNE, folds=2), FormulaTrainer(), [ONE], folds=2, on_step=on_step)[0]
    assert result.state == "PRUNED"
    assert seen == pytest.approx([f1(1), f1(2), f1(3), (f1(3) + f1(1)) / 2])
    assert len(result.curve) == 4


def test_one_candidates_end_is_not_the_others():
    candidates = [replace(ONE, learning_rate=rate) for rate in (1e-2, 10.0, 1e-3)]
    trainer = FormulaTrainer(diverging=1.0)
    ended = judge(
        replace(TUNE, repeats=2), trainer, candidates, on_step=lambda index, step, value: (index, step) != (0, 2)
    )
    assert {index: result.state for index, result in ended.items()} == {0: "PRUNED", 1: "FAIL", 2: "COMPLETE"}
    assert ended[1].reason == "val_loss is nan after epoch 2"
    assert ended[0].values == ended[1].values == ()
    assert [one.learning_rate for one in trainer.fitted] == [1e-2, 10.0, 1e-3, 1e-3]


@pytest.mark.parametrize(
    ("name", "value"), [("accuracy", f1(3) / 2), ("cross_entropy", 1 - f1(3)), ("rmse", (1 - f1(3)) / 4)]
)
def test_other_objectives(name, value):
    assert judge(replace(TUNE, objectives=(name,)), FormulaTrainer(), [ONE])[0].values == (pytest.approx(value),)


def test_costs_are_those_of_the_head():
    heads = [ONE, replace(ONE, hidden_units=(7, 3), batch_norm=True), replace(ONE, hidden_units=())]
    ended = judge(replace(TUNE, objectives=("f1_macro", "parameters")), FormulaTrainer(), heads)
    counts = [
        build_head(4, softmax_answer(2), head.hidden_units, "relu", batch_norm=head.batch_norm).count_params()
        for head in heads
    ]
    assert [ended[index].values[1] for index in range(3)] == counts
    assert counts[0] == 4 * 5 + 5 + 5 * 2 + 2
    timed = judge(replace(TUNE, objectives=("f1_macro", "inference_ms")), FormulaTrainer(), [ONE])[0]
    assert timed.values[1] > 0
