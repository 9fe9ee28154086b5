"""deepsky tune adopt: a trial of a study becomes a run of params.yaml."""

import json
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from deepsky.commands import adopt as command
from deepsky.config import read_yaml
from deepsky.errors import ConfigError, StudyError
from deepsky.experiment.experiment import read_experiment
from deepsky.training.recipe import Origin, Recipe
from deepsky.tuning.database import open_database, quiet
from deepsky.tuning.selection import Selected, entry_of, tuned_name
from deepsky.tuning.space import suggest
from deepsky.tuning.study import meaning_of, open_study
from tests.conftest import ROOT
from tests.trained_folders import make_project

REAL = (ROOT / "params.yaml").read_text()
CELL, NAME = "sdss_cutouts-mobilenet", "sdss_cutouts_mobilenet_tuned"


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real params.yaml in a project of its own."""
    make_project(tmp_path, monkeypatch)
    (tmp_path / "params.yaml").write_text(REAL)
    return tmp_path / "params.yaml"


def make_study(name="night", run=CELL, values=(0.5, 0.75, 0.25, None), **changes) -> list[Recipe]:
    """A study with the given values of its trials, None for a failed one; returns the candidates."""
    experiment = read_experiment()
    base = experiment.run(run)
    tune = replace(experiment.tune.of_run(base), pruner="none", **changes)
    candidates = []
    with quiet():
        study = open_study(name, tune, base, meaning_of(run, tune, base, {}))
        for value in values:
            trial = study.ask()
            candidates.append(suggest(trial, tune, base))
            study.tell(trial, value, state=None if value is not None else TrialState.FAIL)
    return candidates


def adopted(name: str = NAME) -> Recipe:
    return read_experiment().run(name)


def is_as(recipe: Recipe, candidate: Recipe, *, own_head: bool = False) -> bool:
    """Tell whether a run learns as a candidate did, whatever has no effect."""
    settings = replace(recipe, origin=None).settings(own_head=own_head)
    return settings == candidate.settings(own_head=own_head)


def test_the_best_trial_becomes_a_run_and_is_shown(params, capsys):
    candidates = make_study()
    command.run("night", None, None)
    assert adopted().origin == Origin(study="night", trial=1, run=CELL)
    assert is_as(adopted(), candidates[1])
    printed = capsys.readouterr().out
    assert "study night, trial 1: f1_macro 0.75\n" in printed
    assert f"+  {NAME}:\n" in printed
    assert f"make repro trains it as {NAME}, beside {CELL}\n" in printed


def test_only_the_entry_is_new_in_the_real_file(params):
    make_study()
    command.run("night", None, None)
    before, after = REAL.splitlines(), params.read_text().splitlines()
    start = after.index(f"  {NAME}:")
    n_new = len(after) - len(before)
    assert after[:start] + after[start + n_new :] == before
    entry = read_yaml()["runs"][NAME]
    assert {"dataset", "network", "hidden_units", "learning_rate", "epochs", "patience", "seed", "origin"} <= set(entry)
    assert not {"keep", "input_size_px", "augment", "head_epochs", "start"} & set(entry)  # which it inherits


def test_another_trial_by_its_number_and_then_the_same_again(params, capsys):
    candidates = make_study()
    command.run("night", None, None)
    command.run("night", 2, None)
    assert adopted().origin == Origin(study="night", trial=2, run=CELL)
    assert is_as(adopted(), candidates[2])
    assert params.read_text().count(NAME) == 1
    before, modified = params.read_bytes(), params.stat().st_mtime_ns
    capsys.readouterr()
    command.run("night", 2, None)
    assert (params.read_bytes(), params.stat().st_mtime_ns) == (before, modified)
    assert "has it already" in capsys.readouterr().out


def test_a_run_of_its_own_keeps_its_own_keys(params):
    candidates = make_study("tuned", run="zoo1_fine_tune")
    command.run("tuned", 2, None)
    entry, base = read_yaml()["runs"]["zoo1_fine_tune_tuned"], read_yaml()["runs"]["zoo1_fine_tune"]
    assert set(base) <= set(entry)
    assert is_as(adopted("zoo1_fine_tune_tuned"), candidates[2])
    assert (
        adopted("zoo1_fine_tune_tuned").augment
        == candidates[2].augment
        != read_experiment().run("zoo1_fine_tune").augment
    )
    make_study("again", run="zoo1_fine_tune_tuned", seed=9)  # of what a search found
    command.run("again", 1, None)
    assert adopted("zoo1_fine_tune_tuned_tuned").origin == Origin(study="again", trial=1, run="zoo1_fine_tune_tuned")


@pytest.mark.parametrize(("run", "own_head"), [("zoo_frozen", False), ("sdss_jpg-cnn_small", True)])
def test_heads_on_views_and_networks_from_scratch(params, run, own_head):
    candidates = make_study("other", run=run)
    command.run("other", 0, None)
    assert is_as(adopted(tuned_name(run)), candidates[0], own_head=own_head)
    if run == "zoo_frozen":
        assert adopted(tuned_name(run)).views == read_experiment().run(run).views  # so that it needs no others


def test_vote_fractions(params):
    candidates = make_study("votes", run="zoo_fractions", values=(0.2, 0.1, 0.3), objectives=("rmse",))
    command.run("votes", None, None)
    assert adopted("zoo_fractions_tuned").origin.trial == 1
    assert is_as(adopted("zoo_fractions_tuned"), candidates[1], own_head=True)


def test_smaller_is_better_for_cross_entropy_and_the_first_objective_decides(params):
    make_study("loss", values=(0.5, 0.75, 0.25), objectives=("cross_entropy",))
    command.run("loss", None, None)
    assert adopted().origin.trial == 2
    make_study("two", values=([0.5, 10], [0.75, 9000], [0.25, 5]), objectives=("f1_macro", "parameters"))
    command.run("two", None, None)
    assert adopted().origin.trial == 1


def test_what_the_study_began_with_counts_more_than_params_yaml_now(params):
    candidates = make_study()
    text = params.read_text()
    for now, then in (
        ("keep: last  ", "keep: best  "),
        ("epochs: 77  ", "epochs: 10  "),
        ("sampler: grid ", "sampler: tpe "),
    ):
        assert then in text
        text = text.replace(then, now)
    params.write_text(text)
    command.run("night", None, None)
    assert is_as(adopted(), candidates[1])
    assert adopted().keep == "best"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("day", None, None), "study day: does not exist; it has night"),
        (("night", 9, None), "study night: has no trial 9; it has 4, counted from 0"),
        (("night", 3, None), r"study night, trial 3: is not complete \(fail\)"),
        (("night", None, "sqlite:///nowhere.db"), "nowhere.db: does not exist"),
    ],
)
def test_a_study_or_trial_that_is_not_there_is_named(params, arguments, words):
    make_study()
    with pytest.raises(StudyError, match=words):
        command.run(*arguments)
    assert params.read_text() == REAL


def test_a_study_without_a_complete_trial_is_refused(params):
    make_study(values=(None, None))
    with pytest.raises(StudyError, match="study night: has no complete trial; go on with it"):
        command.run("night", None, None)


def test_a_run_that_is_gone_is_named(params):
    make_study(run="zoo_frozen")
    text = REAL.replace("  zoo_frozen:", "  zoo_cold:", 1)
    params.write_text(text)
    with pytest.raises(ConfigError, match=r"run zoo_frozen: is not in params.yaml; choose one of: .*zoo"):
        command.run("night", None, None)
    assert params.read_text() == text


def test_a_run_that_learns_something_else_now_is_refused(params):
    make_study(run="zoo_frozen")
    first, _, rest = REAL.partition("  zoo_frozen:")
    params.write_text(f"{first}  zoo_frozen:{rest.replace('network: efficientnet_lite0', 'network: resnet50', 1)}")
    with pytest.raises(
        StudyError, match="began with network efficientnet_lite0 of run zoo_frozen, now it is resnet50; restore"
    ):
        command.run("night", None, None)


def test_a_run_of_that_name_that_nobody_searched_stays(params):
    make_study()
    text = REAL.replace("runs:  ", f"runs:\n  {NAME}: {{dataset: galaxy10, network: cnn_small}}\n  #  ", 1)
    assert text != REAL
    params.write_text(text)
    with pytest.raises(ConfigError, match=f"runs.{NAME}: stands there already, and no search wrote it; rename it"):
        command.run("night", None, None)
    assert params.read_text() == text


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({}, "study alien: has no settings: deepsky did not make it"),
        ({"settings": {"dataset": "d", "network": "mobilenet"}}, "study alien: was made by an older deepsky"),
    ],
)
def test_a_study_of_somebody_else_is_refused(params, own, words):
    make_study()
    with quiet():
        study = optuna.create_study(study_name="alien", storage=open_database("sqlite:///tuning.db"))
    for key, value in own.items():
        study.set_user_attr(key, value)
    with pytest.raises(StudyError, match=words):
        command.run("alien", None, None)


@given(rate=st.floats(min_value=1e-300, max_value=1000.0))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_every_number_is_read_back_as_it_was(params, rate):
    params.write_text(REAL)
    experiment = read_experiment()
    base = experiment.run(CELL)
    meaning = meaning_of(CELL, experiment.tune.of_run(base), base, {})
    drawn = {"layers": 0, "l2": 1e-5, "label_smoothing": 0.0, "optimizer": "adam", "learning_rate": rate,
             "schedule": "constant", "batch_size": 32}  # fmt: skip
    origin = Origin(study="night", trial=0, run=CELL)
    selected = Selected(origin, json.loads(json.dumps(meaning.settings)), drawn, {"f1_macro": 0.5})
    entry = entry_of(selected, base, {}, experiment.tune)
    document = command.edit.load()
    command.edit.set_entry(document, ("runs", NAME), entry)
    command.edit.save(document)
    assert read_yaml()["runs"][NAME] == entry
    assert adopted().learning_rate == rate
    assert adopted().hidden_units == ()


def test_names():
    assert tuned_name(CELL) == NAME
    assert tuned_name("zoo_frozen") == "zoo_frozen_tuned"
