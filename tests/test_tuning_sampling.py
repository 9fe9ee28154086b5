from dataclasses import replace

import optuna
import pytest
from optuna.pruners import HyperbandPruner
from optuna.trial import TrialState

from deepsky.errors import ConfigError
from deepsky.training.recipe import Recipe
from deepsky.tuning.database import WorkerStorage, open_database, quiet
from deepsky.tuning.params import TuneParams
from deepsky.tuning.sampling import SEEN, decision_steps, grid, make_pruner, make_sampler, turn
from deepsky.tuning.space import suggest
from tests.tuning_project import HEAD, TUNE_PARAMS

LISTS = {
    "layers": (0, 1), "units": (8, 16), "activation": ("relu",), "dropout": (0.0,), "batch_norm": (False,),
    "l2": (0.0,), "label_smoothing": (0.0,), "optimizer": ("adam",), "learning_rate": (1e-3, 1e-2, 1e-1),
    "schedule": ("constant",), "weight_decay": (0.1,), "momentum": (0.9,), "batch_size": (32,),
}  # fmt: skip
GRID = replace(TUNE_PARAMS, sampler="grid", heads=replace(TUNE_PARAMS.heads, **LISTS))


def value_of(candidate: Recipe) -> float:
    return -abs(candidate.learning_rate - 1e-2) - len(candidate.hidden_units) - candidate.label_smoothing


def new_study(params: TuneParams, storage: str | WorkerStorage | None = None) -> optuna.Study:
    return optuna.create_study(
        study_name="s", storage=storage, directions=["maximize"] * len(params.objectives), load_if_exists=True,
        sampler=make_sampler(params, HEAD), pruner=make_pruner(params),
    )  # fmt: skip


def populate(study: optuna.Study, params: TuneParams, n_populations: int, size: int = 8) -> None:
    """Ask, judge and tell; every third trial is pruned."""
    for _ in range(n_populations):
        asked = [study.ask() for _ in range(size)]
        candidates = [suggest(trial, params, HEAD) for trial in asked]
        for trial, candidate in zip(asked, candidates, strict=True):
            values = [value_of(candidate)] * len(params.objectives)
            if trial.number % 3 == 2 and len(values) == 1:
                trial.report(values[0], 1)
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, values)


def drawn(study: optuna.Study) -> list[dict]:
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_one_seed_draws_one_search_also_when_it_was_stopped_between(tmp_path, sampler):
    params = replace(TUNE_PARAMS, sampler=sampler)
    once = new_study(params)
    populate(once, params, 5)
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    for _ in range(5):  # a process of its own for each population
        populate(new_study(params, open_database(url, create=True)), params, 1)
    assert drawn(new_study(params, url)) == drawn(once)
    assert len({str(params) for params in drawn(once)}) == 40
    other = new_study(replace(params, seed=2))
    populate(other, params, 1)
    assert drawn(other) != drawn(once)[:8]


def test_samplers_learn_and_differ():
    params = {name: replace(TUNE_PARAMS, sampler=name) for name in ("tpe", "random", "cmaes")}
    studies = {name: new_study(one) for name, one in params.items()}
    for name, study in studies.items():
        populate(study, params[name], 12)
    late = {name: [t.value for t in study.trials[48:] if t.value is not None] for name, study in studies.items()}
    mean = {name: sum(values) / len(values) for name, values in late.items()}
    assert mean["tpe"] > mean["random"]
    assert drawn(studies["cmaes"])[20:] != drawn(studies["random"])[20:]


def test_two_workers_never_draw_the_same(tmp_path):
    params, url = replace(TUNE_PARAMS, sampler="tpe"), f"sqlite:///{tmp_path / 'studies.db'}"
    first, second = new_study(params, url), new_study(params, url)
    for _ in range(6):  # both see the same trials
        asked = [study.ask() for study in (first, second)]
        a, b = (suggest(trial, params, HEAD) for trial in asked)
        assert a != b
        for study, trial in zip((first, second), asked, strict=True):
            study.tell(trial, 0.5)


def test_a_repeat_takes_no_turn():
    study = new_study(GRID)
    populate(study, GRID, 1, size=2)
    lost = study.ask()
    suggest(lost, GRID, HEAD)
    study.tell(lost, state=TrialState.FAIL)
    with quiet():
        optuna.storages.RetryHeartbeatStaleTrialCallback()(study, study.trials[lost.number])
    repeat = study.ask()
    assert suggest(repeat, GRID, HEAD) == suggest(lost, GRID, HEAD)
    new = study.ask()
    assert turn(study, study.trials[new.number]) == 3


def test_the_grid_is_drawn_whole_and_shuffled():
    study, combinations = new_study(GRID), grid(GRID, HEAD)
    populate(study, GRID, 3, size=3)
    assert len(combinations) == 9
    assert drawn(study) != combinations
    assert sorted(map(str, drawn(study))) == sorted(str(one) for one in combinations)


def test_too_large_a_grid_is_refused():
    units = tuple(range(1, 60))
    params = replace(GRID, heads=replace(GRID.heads, layers=(3,), units=units))
    with pytest.raises(ConfigError, match="sampler grid: spans more than 100000 combinations; shorten the lists"):
        make_sampler(params, HEAD)


def test_tpe_draws_from_the_best_of_a_long_search_whatever_came_after():
    params = replace(TUNE_PARAMS, sampler="tpe", pruner="none")
    drawing = new_study(replace(params, sampler="random"))
    populate(drawing, params, 1, size=3 * SEEN)
    trials = drawing.get_trials(deepcopy=False)
    trials.sort(key=lambda trial: -value_of(suggest(optuna.trial.FixedTrial(trial.params), params, HEAD)))
    study = new_study(params)
    study.add_trials(trials)
    populate(study, params, 1, size=24)
    new = study.trials[len(trials) :]
    assert sum(trial.params["layers"] == 0 for trial in new) > 12  # one in five by chance


@pytest.mark.parametrize("pruner", ["hyperband", "median"])
def test_the_pruner_decides_at_no_other_step(pruner):
    params = replace(TUNE_PARAMS, pruner=pruner, sampler="random", epochs=10)
    study, steps = new_study(params), decision_steps(params)
    assert len(steps) == {"hyperband": 3, "median": 9}[pruner]
    ended = set()
    for number in range(60):
        trial = study.ask()
        value = (number * 7) % 60 / 60
        for step in range(1, 10):
            trial.report(value, step)
            if trial.should_prune():
                ended.add(step)
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, value)
    assert ended
    assert ended <= steps


def test_steps_count_over_folds_and_repeats():
    params = replace(TUNE_PARAMS, epochs=4, folds=3, repeats=2)
    assert decision_steps(params) == {1, 3, 9}
    assert isinstance(make_pruner(params), HyperbandPruner)
    assert decision_steps(replace(params, pruner="none")) == set()
