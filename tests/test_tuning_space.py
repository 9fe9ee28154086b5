from dataclasses import asdict, replace

import optuna
import pytest

from deepsky.networks.params import AugmentParams
from deepsky.tuning.params import FloatRange
from deepsky.tuning.space import all_choices, candidate_of, changed_keys, describe_space, params_of, suggest
from tests.tuning_project import HEAD, TUNE_PARAMS

AUGMENT = AugmentParams(flip=True, rotation_deg=90.0, shift=0.1)
SCRATCH = replace(HEAD, network="cnn_small", start="scratch", learn="all", keep="last")
TUNED = replace(HEAD, learn=2, augment=AUGMENT)
VIEWS = replace(HEAD, augment=AUGMENT, n_views=4, seed=7)
VOTES = replace(HEAD, answer="tree")


def draw(base, n=200):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(n):
        trial = study.ask()
        candidate = suggest(trial, TUNE_PARAMS, base)
        yield candidate, trial.params


def test_only_what_has_an_effect_is_searched():
    seen = set()
    for candidate, chosen in draw(HEAD):
        n_layers = len(candidate.hidden_units)
        seen.add(n_layers)
        assert [name for name in chosen if name.startswith("units_")] == [f"units_{n + 1}" for n in range(n_layers)]
        for name in ("activation", "dropout", "batch_norm"):
            assert (name in chosen) == (n_layers > 0)
        assert ("weight_decay" in chosen) == (candidate.optimizer == "adamw")
        assert ("momentum" in chosen) == (candidate.optimizer == "sgd")
    assert seen == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("base", [HEAD, SCRATCH, TUNED, VIEWS, VOTES])
def test_a_trial_stands_for_its_candidate(base):
    for candidate, chosen in draw(base, 50):
        assert candidate_of(chosen, TUNE_PARAMS, base) == candidate
        assert params_of(candidate, TUNE_PARAMS) == chosen | ({"augment_strength": 1.0} if base is TUNED else {})
        assert (candidate.epochs, candidate.keep) == (TUNE_PARAMS.epochs, base.keep)
        own = {key for key, value in asdict(candidate).items() if value != asdict(base)[key]}
        assert own <= changed_keys(chosen) | {"epochs", "seed", "patience"}


def test_how_far_images_stray_and_what_learns_are_searched_where_the_run_has_them():
    drawn = list(draw(TUNED))
    assert {chosen["learn"] for _, chosen in drawn} == {1, 2, "all"}
    for candidate, chosen in drawn:
        assert candidate.learn == chosen["learn"]
        assert candidate.augment == AUGMENT.times(chosen["augment_strength"])
        assert candidate.augment.flip
    assert len({candidate.augment.shift for candidate, _ in drawn}) == len(drawn)
    for base in (SCRATCH, VIEWS, HEAD):
        assert not any({"learn", "augment_strength"} & set(chosen) for _, chosen in draw(base, 5))


def test_heads_on_random_views_keep_the_seed_that_drew_them():
    assert {candidate.seed for candidate, _ in draw(VIEWS, 5)} == {7}
    assert {candidate.views for candidate, _ in draw(VIEWS, 5)} == {VIEWS.views}
    assert {candidate.seed for candidate, _ in draw(replace(VIEWS, n_views=0), 5)} == {TUNE_PARAMS.seed}


def test_fractions_have_no_labels_to_smooth():
    assert not any("label_smoothing" in chosen for _, chosen in draw(VOTES, 5))


def test_a_run_outside_the_space_goes_to_its_edge():
    outside = params_of(replace(HEAD, l2=0.0, hidden_units=(2048, 32)), TUNE_PARAMS)
    assert outside == params_of(HEAD, TUNE_PARAMS) | {"l2": 1e-7, "units_1": 1024}
    assert candidate_of(outside, TUNE_PARAMS, HEAD).hidden_units == (1024, 32)


def test_a_run_with_another_choice_has_no_parameters():
    assert params_of(replace(HEAD, activation="selu"), TUNE_PARAMS) is None
    assert params_of(replace(HEAD, hidden_units=(8,) * 5), TUNE_PARAMS) is None
    assert params_of(replace(TUNED, learn=7), TUNE_PARAMS) is None


def test_every_combination_comes_once():
    lists = {"label_smoothing": (0.0,), "learning_rate": (1e-3,), "schedule": ("constant",), "weight_decay": (0.1, 0.2)}
    heads = replace(
        TUNE_PARAMS.heads, **lists, l2=(0.0,), momentum=(0.9,),
        layers=(0, 1, 2), units=(8, 16), activation=("relu", "tanh"),
        dropout=(0.0,), batch_norm=(False,), optimizer=("adam", "adamw"), batch_size=(32,),
    )  # fmt: skip
    params = replace(TUNE_PARAMS, sampler="grid", heads=heads)
    found = list(all_choices(params, HEAD))
    # Layers 0: one head; 1: two widths, two activations; 2: four and two. Each with adam, and adamw's two decays.
    assert len(found) == (1 + 2 * 2 + 4 * 2) * 3
    assert len({tuple(sorted(one.items())) for one in found}) == len(found)
    assert found == list(all_choices(params, HEAD))
    assert all(params_of(candidate_of(one, params, HEAD), params) == one for one in found)


def test_the_description_changes_with_the_space():
    other = replace(TUNE_PARAMS, heads=replace(TUNE_PARAMS.heads, dropout=FloatRange(0.0, 0.5)))
    assert describe_space(TUNE_PARAMS, HEAD)["dropout"] == {"low": 0.0, "high": 0.6, "log": False}
    assert describe_space(other, HEAD) != describe_space(TUNE_PARAMS, HEAD)
    assert describe_space(other, SCRATCH) == describe_space(TUNE_PARAMS, SCRATCH)
    assert "learn" in describe_space(TUNE_PARAMS, TUNED)
    assert "learn" not in describe_space(TUNE_PARAMS, SCRATCH)
