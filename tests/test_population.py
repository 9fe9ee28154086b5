"""Heads trained together have the outcome they have alone, whatever stands beside them."""

from dataclasses import replace

import numpy as np
import pytest

from deepsky.networks.heads import build_head, softmax_answer
from deepsky.training import population
from deepsky.training.fit import Examples, ScratchParams, TrainParams, fit
from deepsky.training.population import HeadTrainer
from deepsky.training.stacked import Shape
from deepsky.training.trials import EpochScore, Outcome, ScratchTrainer

N_FEATURES, N_CLASSES = 24, 3
HEAD = TrainParams(
    seed=3, label_smoothing=0.0, optimizer="adam", learning_rate=2e-3, schedule="constant", weight_decay=0.004,
    momentum=0.9, batch_size=16, epochs=4, patience=None, keep="best", hidden_units=(12, 7), activation="relu",
    dropout=0.0, batch_norm=False, l2=0.0,
)  # fmt: skip
CANDIDATES = {
    "plain": HEAD,
    "wider": replace(HEAD, hidden_units=(40,)),
    "deeper": replace(HEAD, hidden_units=(9, 17, 5, 8)),
    "softmax regression": replace(HEAD, hidden_units=()),
    "dropout": replace(HEAD, dropout=0.4, hidden_units=(11, 23)),
    "batch norm": replace(HEAD, batch_norm=True, activation="gelu"),
    "adamw": replace(HEAD, optimizer="adamw", weight_decay=0.1, activation="elu"),
    "adamax": replace(HEAD, optimizer="adamax", label_smoothing=0.15, activation="tanh"),
    "sgd": replace(HEAD, optimizer="sgd", schedule="cosine", learning_rate=0.05, activation="selu", batch_norm=True),
    "cosine": replace(HEAD, schedule="cosine", activation="silu", dropout=0.2, l2=1e-3),
    "one cycle": replace(HEAD, schedule="one_cycle", learning_rate=1e-2),
    "patient": replace(HEAD, learning_rate=0.05, patience=1),
}
WILD = replace(HEAD, optimizer="sgd", learning_rate=1e30)


def examples(n_rows: int = 250) -> Examples:
    """Classes that a head learns to tell, in part; 170 train rows, so that the last step of an epoch is short."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, N_CLASSES, n_rows)
    inputs = rng.normal(size=(n_rows, N_FEATURES)).astype(np.float32)
    inputs[:, :3] += 1.5 * np.eye(3, dtype=np.float32)[label]
    split = np.array(["train"] * 170 + ["val"] * 50 + ["test"] * (n_rows - 220))
    return Examples(inputs, np.arange(n_rows), label, split, N_CLASSES)


def go_on(number: int, score: EpochScore) -> bool:
    return True


@pytest.fixture(scope="module")
def together() -> dict[str, Outcome]:
    candidates = {"wild": WILD, **CANDIDATES}
    outcomes = HeadTrainer(max_padding=1e9).train(list(candidates.values()), examples(), go_on)
    return dict(zip(candidates, outcomes, strict=True))


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_head_of_a_population_is_the_head_trained_alone(together, name):
    params = CANDIDATES[name]
    head = build_head(
        N_FEATURES, softmax_answer(N_CLASSES), params.hidden_units, params.activation, dropout=params.dropout,
        batch_norm=params.batch_norm, l2=params.l2, seed=params.seed,
    )  # fmt: skip
    history = fit(head, examples(), params)
    scores = together[name].scores
    assert [score.epoch for score in scores] == list(history["epoch"])
    np.testing.assert_allclose([score.val_loss for score in scores], history["val_loss"], rtol=1e-4)
    np.testing.assert_allclose([score.val_accuracy for score in scores], history["val_accuracy"], atol=1e-6)


def test_it_learns(together):
    assert together["plain"].scores[-1].val_loss < together["plain"].scores[0].val_loss
    assert together["sgd"].kept("best").val_f1_macro > 0.5


def test_patience_ends_a_head_early(together):
    outcome = together["patient"]
    assert outcome.ended == "patience"
    assert len(outcome.scores) < HEAD.epochs
    assert together["plain"].ended == "finished"


def test_survivors_of_pruning_go_on_in_a_smaller_program(together):
    names = ["plain", "wider", "adamw", "adamax", "sgd", "dropout", "cosine", "batch norm"]
    survivors = {2, 5, 6}  # of every rule that keeps something between steps
    trainer = HeadTrainer(max_padding=1e9)
    outcomes = trainer.train(
        [CANDIDATES[name] for name in names], examples(), lambda number, score: number in survivors or score.epoch < 1
    )
    assert sorted(shape.n_heads for shape in trainer._programs) == [1, 2, 8]
    for number, (name, outcome) in enumerate(zip(names, outcomes, strict=True)):
        assert outcome.ended == ("finished" if number in survivors else "pruned")
        expected = [score.val_loss for score in together[name].scores[: len(outcome.scores)]]
        np.testing.assert_allclose([score.val_loss for score in outcome.scores], expected, rtol=1e-4)


def test_a_head_that_diverges_harms_no_other(together):
    wild = together["wild"]  # beside it are heads that are as if alone
    assert wild.ended == "diverged"
    assert "finite" in wild.reason or "nan" in wild.reason
    assert "epoch 1" in wild.reason


def test_padding_is_bounded_and_sizes_are_powers_of_two():
    widths = [3, 4, 5, 60, 60, 64, 1000]
    heads = [
        population.Head(n, p, population.first_state(p, N_FEATURES, N_CLASSES), [])
        for n, p in enumerate(replace(HEAD, hidden_units=(width, width)) for width in widths)
    ]
    groups = HeadTrainer(max_padding=3.0)._groups(heads, N_FEATURES, N_CLASSES)
    assert sorted(head.number for _, group in groups for head in group) == list(range(len(widths)))
    for shape, group in groups:
        own = sum(population._own_weights(head) for head in group)
        assert len(group) == 1 or shape.n_heads * shape.n_weights_per_head <= 3.0 * own
        assert len(group) & (len(group) - 1) == 0
    assert len(groups) < len(widths)


def test_a_program_is_compiled_once_and_serves_each_head_of_its_shape(together):
    trainer = HeadTrainer()
    for name in ("plain", "adamw", "dropout"):
        (outcome,) = trainer.train([CANDIDATES[name]], examples(), go_on)
        assert len(trainer._programs) == 1
        expected = [score.val_loss for score in together[name].scores]
        np.testing.assert_allclose([score.val_loss for score in outcome.scores], expected, rtol=1e-4)


def test_programs_that_were_used_longest_ago_make_room(monkeypatch):
    a, b, c = (Shape(n_heads, N_FEATURES, 32, 2, N_CLASSES) for n_heads in (1, 2, 3))
    monkeypatch.setattr(population, "_MAX_BYTES", a.n_bytes + c.n_bytes)
    trainer = HeadTrainer()
    for shape in (a, b, a, c):
        assert trainer._program(shape) is trainer._programs[shape]
    assert list(trainer._programs) == [a, c]


def test_networks_that_have_no_population_are_fitted_in_turn(together):
    params = ScratchParams(
        seed=HEAD.seed, label_smoothing=0.0, optimizer="adam", learning_rate=2e-3, schedule="constant",
        weight_decay=0.0, momentum=0.9, batch_size=16, epochs=4, patience=None, keep="best", input_size_px=8,
    )  # fmt: skip

    def build_tail(shape, answer):
        return build_head(*shape, answer, HEAD.hidden_units, HEAD.activation, seed=HEAD.seed)

    candidates = [params, replace(params, optimizer="sgd", learning_rate=1e30), replace(params, epochs=2)]
    outcomes = ScratchTrainer(build_tail).train(candidates, examples(), lambda number, score: number != 2)
    assert [outcome.ended for outcome in outcomes] == ["finished", "diverged", "pruned"]
    assert [len(outcome.scores) for outcome in outcomes] == [4, 0, 1]
    expected = [score.val_loss for score in together["plain"].scores]
    np.testing.assert_allclose([score.val_loss for score in outcomes[0].scores], expected, rtol=1e-4)
