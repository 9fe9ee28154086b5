from dataclasses import replace
from pathlib import Path

import pytest

from deepsky.config import build, read_yaml
from deepsky.errors import ConfigError
from deepsky.networks.params import AugmentParams
from deepsky.training.recipe import Recipe
from deepsky.tuning.params import (
    FloatRange,
    HeadSpace,
    ImageSpace,
    IntRange,
    TuneParams,
    check_objectives,
    searched_keys,
)
from tests.tuning_project import HEAD, ROOT, write_params

NET = Recipe(dataset="blobs", network="cnn_small", start="scratch", learn="all", augment=AugmentParams(shift=0.1))
VOTES = Recipe(dataset="votes", network="mobilenet", answer="tree")


def read(root: Path, **tune) -> TuneParams:
    write_params(root, **tune)
    return section(root / "params.yaml")


def section(path: Path) -> TuneParams:
    return build(read_yaml(path)["tune"], TuneParams, f"{path}: tune")


def test_the_projects_own_section():
    params = section(ROOT / "params.yaml")
    assert isinstance(params.heads.layers, IntRange)
    assert isinstance(params.heads.learning_rate, FloatRange)
    assert set(params.heads.optimizer) == {"adam", "adamw", "adamax", "sgd"}
    assert params == TuneParams()  # so that it may be absent


def test_a_number_is_a_range_or_a_list_and_the_population_a_number_or_auto(tmp_path):
    params = read(tmp_path, heads__layers=[0, 2], heads__dropout=[0, 0.5], population="auto")
    assert params.heads.layers == (0, 2)
    assert params.heads.dropout == (0.0, 0.5)
    assert params.population == "auto"


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"trials": 0}, "trials must lie between 1 and 100000, not 0"),
        ({"trials": 10**30}, "trials must lie between 1 and 100000"),
        ({"epochs": 0}, "epochs must lie between 1 and"),
        ({"epochs": True}, "tune.epochs: True is not a whole number"),
        ({"population": 0}, "population must lie between 1 and"),
        ({"population": "many"}, "tune.population: 'many' does not fit; write a whole number or auto"),
        ({"population": 2.5}, r"tune.population: 2.5 does not fit"),
        ({"patience": 0}, "patience 0 does not lie between 1 and 100000; null means never"),
        ({"seed": -1}, "seed must lie between 0 and"),
        ({"sampler": "tpee"}, "tune.sampler: 'tpee' is unknown; choose one of: tpe, random, cmaes, grid"),
        ({"pruner": "asha"}, "tune.pruner: 'asha' is unknown"),
        ({"objectives": []}, r"objectives \[\] must be score, f1_macro, accuracy, cross_entropy or rmse"),
        ({"objectives": ["parameters"]}, "must be score, f1_macro"),
        ({"objectives": ["f1_macro", "accuracy"]}, "after it at most one of parameters, inference_ms"),
        ({"objectives": ["f1_macro", "parameters"]}, "pruner hyperband cannot compare .* set pruner: none"),
        ({"objectives": ["f1_macro", "parameters"], "pruner": "none", "sampler": "cmaes"}, "cmaes cannot optimise two"),
        ({"heads__dropout": {"low": 0.5, "high": 0.1}}, r"tune.heads.dropout: low 0.5 lies above high 0.1"),
        ({"heads__l2": {"low": 0.0, "high": 0.1, "log": True}}, r"tune.heads.l2: low 0.0 is not above 0, so log"),
        ({"heads__activation": []}, r"tune.heads: activation holds no choice"),
        ({"heads__activation": ["softmax"]}, "'softmax' is unknown; choose one of: relu"),
        ({"heads__dropout": [0.1, 1.0]}, r"tune.heads: dropout 1.0 must be at least 0 and below 1"),
        ({"heads__layers": [9]}, "layers 9 must be at least 0 and below 9"),
        ({"heads__units": {"low": 0, "high": 8}}, "units 0 must be at least 1"),
        ({"heads__label_smoothing": [1.0]}, "label_smoothing 1.0 must"),
        ({"images__learning_rate": [0.0]}, r"tune.images: learning_rate 0.0 must be above 0"),
        ({"images__learning_rate": [1e300]}, r"learning_rate 1e\+300 must be above 0 and at most 1000"),
        ({"images__batch_size": [0]}, "batch_size 0 must be at least 1"),
        ({"images__batch_size": [10**30]}, "must be at least 1 and at most 65536"),
        ({"images__augment_strength": {"low": 0.5, "high": 99.0}}, "augment_strength 99.0 must be at least 0"),
        ({"images__learn": [0, "all"]}, r"learn \[0, 'all'\] must be all, or how many of the last blocks learn"),
        ({"images__learn": ["head"]}, "tune.images.learn: 'head' does not fit; write a whole number or all"),
        ({"images__learn": []}, "learn holds no choice"),
        ({"scratch": {}}, "tune: 'scratch' is unknown"),
        (
            {"heads__units": "all"},
            r"tune.heads.units: 'all' does not fit; write {low: ..., high: ..., log: ...} or a list",
        ),
        ({"heads__units": {"low": 1.5, "high": 8}}, r"tune.heads.units.low: 1.5 is not a whole number"),
        ({"heads__learning_rate": {"low": 1e-3, "high": float("inf")}}, "inf is not finite"),
    ],
)
def test_refuses_in_one_line(tmp_path, tune, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, **tune)
    assert "\n" not in str(caught.value)


def test_a_grid_needs_lists_and_says_where():
    with pytest.raises(
        ConfigError, match=r"tune.heads.\w+: is a range, of which sampler grid cannot try all; write it"
    ):
        TuneParams(sampler="grid").space_of(HEAD)
    lists = {"label_smoothing": (0.0,), "learning_rate": (1e-3,), "weight_decay": (0.1,), "momentum": (0.9,)}
    grid = TuneParams(sampler="grid", images=ImageSpace(**lists))
    with pytest.raises(ConfigError, match=r"tune\.images\.augment_strength: is a range"):
        grid.space_of(NET)
    assert grid.space_of(replace(NET, augment=AugmentParams())) == grid.images  # which has nothing to strengthen


def test_what_has_no_effect_on_a_run_is_not_searched():
    images = {name: searched_keys(ImageSpace(), one) for name, one in RUNS.items()}
    assert "augment_strength" in images["augmented"]
    assert "augment_strength" not in images["flipped"] + images["plain"]
    assert "learn" in images["fine_tuned"]
    assert "learn" not in images["augmented"]
    assert "label_smoothing" in searched_keys(HeadSpace(), HEAD)
    assert "label_smoothing" not in searched_keys(HeadSpace(), VOTES)


RUNS = {
    "augmented": NET,
    "plain": replace(NET, augment=AugmentParams()),
    "flipped": replace(NET, augment=AugmentParams(flip=True)),
    "fine_tuned": replace(NET, network="mobilenet", start="pretrained"),
}


def test_the_score_of_a_run_is_that_of_what_it_learns():
    assert TuneParams().of_run(HEAD).objectives == ("f1_macro",)
    assert TuneParams().of_run(VOTES).objectives == ("rmse",)
    assert TuneParams(objectives=("accuracy",)).of_run(HEAD).objectives == ("accuracy",)


@pytest.mark.parametrize(
    ("objectives", "base", "message"),
    [
        (("rmse",), HEAD, "rmse is for vote fractions, and r learns classes; write f1_macro or accuracy or cross_entr"),
        (("f1_macro",), VOTES, "tune.objectives: f1_macro is for classes, and r learns vote fractions; write rmse"),
        (("f1_macro", "parameters"), NET, "parameters is the same for every candidate of r; leave one objective"),
    ],
)
def test_objectives_that_say_nothing_of_a_run(objectives, base, message):
    with pytest.raises(ConfigError, match=message):
        check_objectives(objectives, base, "r")


def test_objectives_that_fit():
    check_objectives(("rmse", "parameters"), VOTES, "r")
    check_objectives(("cross_entropy", "inference_ms"), HEAD, "r")
    check_objectives(("accuracy",), NET, "r")
