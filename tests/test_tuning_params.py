from pathlib import Path

import pytest

from deepsky.config import read_section
from deepsky.errors import ConfigError
from deepsky.training.fit import TrainParams
from deepsky.tuning.params import FloatRange, IntRange, TuneParams
from tests.tuning_project import ROOT, make_project, write_params


def read(root: Path, **tune) -> TuneParams:
    write_params(root, **tune)
    return read_section("tune", TuneParams, root / "params.yaml")


def test_the_projects_own_section():
    params = read_section("tune", TuneParams, ROOT / "params.yaml")
    assert isinstance(params.heads.layers, IntRange)
    assert isinstance(params.heads.learning_rate, FloatRange)
    assert set(params.heads.optimizer) == {"adam", "adamw", "adamax", "sgd"}


def test_a_number_is_a_range_or_a_list_and_the_population_a_number_or_auto(tmp_path):
    params = read(tmp_path, heads__layers=[0, 2], heads__dropout=[0, 0.5], population="auto")
    assert params.heads.layers == (0, 2)
    assert params.heads.dropout == (0.0, 0.5)
    assert params.population == "auto"


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"trials": 0}, "trials 0 is below 1"),
        ({"epochs": 0}, "epochs 0 is below 1"),
        ({"population": 0}, "population 0 is below 1"),
        ({"population": "many"}, "tune.population: 'many' does not fit; write a value of type int or auto"),
        ({"population": 2.5}, r"tune.population: 2.5 does not fit"),
        ({"patience": 0}, "patience 0 is below 1; null means never"),
        ({"seed": -1}, "seed must lie between 0 and"),
        ({"sampler": "tpee"}, "tune.sampler: 'tpee' is unknown; choose one of: tpe, random, cmaes, grid"),
        ({"pruner": "asha"}, "tune.pruner: 'asha' is unknown"),
        ({"objectives": []}, r"objectives \[\] must be f1_macro, accuracy or cross_entropy"),
        ({"objectives": ["parameters"]}, "must be f1_macro"),
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
        ({"scratch__learning_rate": [0.0]}, r"tune.scratch: learning_rate 0.0 must be above 0"),
        ({"scratch__batch_size": [0]}, "batch_size 0 must be at least 1"),
        (
            {"heads__units": "all"},
            r"tune.heads.units: 'all' does not fit; write {low: ..., high: ..., log: ...} or a list",
        ),
        ({"heads__units": {"low": 1.5, "high": 8}}, r"tune.heads.units.low: 1.5 is not of type int"),
        ({"heads__learning_rate": {"low": 1e-3, "high": float("inf")}}, "must be finite"),
    ],
)
def test_refuses_in_one_line(tmp_path, tune, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, **tune)
    assert "\n" not in str(caught.value)


def test_a_grid_needs_lists_and_says_where(tmp_path):
    make_project(tmp_path, sampler="grid")
    params = read_section("tune", TuneParams, tmp_path / "params.yaml")
    reference = read_section("train", TrainParams, tmp_path / "params.yaml")
    with pytest.raises(
        ConfigError, match=r"tune.heads.\w+: is a range, of which sampler grid cannot try all; write it"
    ):
        params.space_of(reference)
