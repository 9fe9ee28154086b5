"""Heads trained together have the outcome they have alone, whatever stands beside them."""

from dataclasses import replace

import numpy as np
import pytest

from deepsky.training import population
from deepsky.training.batches import TrainBatches
from deepsky.training.examples import Examples
from deepsky.training.fit import Phase, fit_phases
from deepsky.training.population import HeadTrainer
from deepsky.training.recipe import Recipe
from deepsky.training.stacked import Shape
from deepsky.training.trials import EpochScore, Fit, MakeBatches, Outcome, SerialTrainer, fit_of_head, head_of
from deepsky.training.view_batches import ViewBatches
from deepsky.training.view_features import ViewFeatures

N_FEATURES, N_CLASSES = 24, 3
HEAD = Recipe(
    dataset="blobs", network="mobilenet", seed=3, learning_rate=2e-3, batch_size=16, epochs=4, hidden_units=(12, 7)
)
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
    "accurate": replace(HEAD, learning_rate=0.05, patience=1, monitor="val_accuracy"),
    "balanced": replace(HEAD, class_weights="balanced", batch_norm=True, optimizer="sgd", learning_rate=0.02),
}
WILD = replace(HEAD, optimizer="sgd", learning_rate=1e3, l2=1e3)


def examples(n_rows: int = 250) -> Examples:
    """Classes that a head learns to tell, in part; 170 train rows, so that the last step of an epoch is short."""
    rng = np.random.default_rng(0)
    label = np.minimum(rng.integers(0, N_CLASSES + 2, n_rows), N_CLASSES - 1)  # the last one is three times as frequent
    inputs = rng.normal(size=(n_rows, N_FEATURES)).astype(np.float32)
    inputs[:, :3] += 1.5 * np.eye(3, dtype=np.float32)[label]
    split = np.array(["train"] * 170 + ["val"] * 50 + ["test"] * (n_rows - 220))
    return Examples(inputs, np.arange(n_rows), np.eye(N_CLASSES, dtype=np.float32)[label], split)


def go_on(number: int, score: EpochScore) -> bool:
    return True


@pytest.fixture(scope="module")
def together() -> dict[str, Outcome]:
    candidates = {"wild": WILD, **CANDIDATES}
    outcomes = HeadTrainer(max_padding=1e9).train(list(candidates.values()), examples(), go_on)
    return dict(zip(candidates, outcomes, strict=True))


def check_alone(recipe: Recipe, outcome: Outcome, make_batches: MakeBatches = TrainBatches) -> None:
    """Compare an outcome with that of the head fitted by itself, as a run is."""
    data, head = examples(), head_of(recipe, N_FEATURES, N_CLASSES)
    history = fit_phases(head, head, data, [Phase(recipe)], lambda one, first: make_batches(data, one, first))
    scores = outcome.scores
    assert [score.epoch for score in scores] == list(history["epoch"])
    np.testing.assert_allclose([score.val_loss for score in scores], history["val_loss"], rtol=1e-4)
    np.testing.assert_allclose([score.val_accuracy for score in scores], history["val_accuracy"], atol=1e-6)


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_head_of_a_population_is_the_head_trained_alone(together, name):
    check_alone(CANDIDATES[name], together[name])


def test_balanced_classes_weigh_in_the_loss(together):
    plain = HeadTrainer().train([replace(CANDIDATES["balanced"], class_weights="none")], examples(), go_on)[0]
    assert abs(plain.scores[0].val_loss - together["balanced"].scores[0].val_loss) > 1e-3


def test_heads_on_random_views_are_those_trained_alone():
    rng, n_images = np.random.default_rng(5), len(examples().inputs)
    seen = rng.normal(size=(2, n_images, N_FEATURES)).astype(np.float32)
    views = ViewFeatures(examples().inputs[None], seen, rng.random((2, n_images)) < 0.5, np.arange(n_images))

    def make_batches(data: Examples, recipe: Recipe, first_epoch: int) -> ViewBatches:
        return ViewBatches(data, recipe, views, [1, 0, 2], first_epoch)  # a mirror image swaps the first two

    base = replace(HEAD, n_views=2)
    candidates = [base, replace(base, class_weights="balanced", dropout=0.3), replace(base, optimizer="adamw")]
    outcomes = HeadTrainer(make_batches).train(candidates, examples(), lambda n, score: n < 2 or score.epoch < 2)
    assert [outcome.ended for outcome in outcomes] == ["finished", "finished", "pruned"]
    for recipe, outcome in zip(candidates[:2], outcomes[:2], strict=True):
        check_alone(recipe, outcome, make_batches)
    (plain,) = HeadTrainer().train([base], examples(), go_on)
    assert plain.scores != outcomes[0].scores


def test_it_learns(together):
    assert together["plain"].scores[-1].val_loss < together["plain"].scores[0].val_loss
    assert together["sgd"].kept(HEAD).val_f1_macro > 0.5


def test_patience_ends_a_head_early(together):
    outcome = together["patient"]
    assert outcome.ended == "patience"
    assert len(outcome.scores) < HEAD.epochs
    assert together["plain"].ended == "finished"


def test_patience_watches_what_the_recipe_monitors(together):
    """The losses and the accuracies of these heads end their patience after different epochs."""
    accurate, patient = together["accurate"], together["patient"]
    accuracies = [score.val_accuracy for score in accurate.scores]
    assert len(accurate.scores) != len(patient.scores)
    assert accuracies.index(max(accuracies)) == len(accuracies) - 2
    best = replace(CANDIDATES["accurate"], keep="best")
    assert accurate.kept(best).val_accuracy == max(accuracies)
    assert accurate.kept(replace(best, monitor="val_loss")).val_loss == min(s.val_loss for s in accurate.scores)


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


def test_one_after_the_other_has_the_same_outcome(together):
    candidates = [HEAD, replace(HEAD, optimizer="sgd", learning_rate=1e3, l2=1e3), replace(HEAD, epochs=2)]
    trainer = SerialTrainer(lambda recipe, data: fit_of_head(recipe, data, TrainBatches))
    outcomes = trainer.train(candidates, examples(), lambda number, score: number != 2)
    assert [outcome.ended for outcome in outcomes] == ["finished", "diverged", "pruned"]
    assert [len(outcome.scores) for outcome in outcomes] == [4, 0, 1]
    expected = [score.val_loss for score in together["plain"].scores]
    np.testing.assert_allclose([score.val_loss for score in outcomes[0].scores], expected, rtol=1e-4)


def test_epochs_before_the_last_phase_are_not_scored():
    def prepare(recipe: Recipe, data: Examples) -> Fit:
        made = fit_of_head(recipe, data, TrainBatches)
        return Fit(made.model, made.tail, [Phase(replace(recipe, epochs=3)), *made.phases], made.make_batches)

    (outcome,) = SerialTrainer(prepare).train([replace(HEAD, epochs=2)], examples(), go_on)
    (alone,) = SerialTrainer(lambda *one: fit_of_head(*one, TrainBatches)).train([HEAD], examples(), go_on)
    assert [score.epoch for score in outcome.scores] == [1, 2]
    assert outcome.scores[0].val_loss < alone.scores[0].val_loss
