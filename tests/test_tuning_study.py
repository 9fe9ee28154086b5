import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import optuna
import pytest
from optuna.trial import TrialState

from deepsky.errors import StudyError
from deepsky.tuning.database import open_database, quiet
from deepsky.tuning.params import FloatRange
from deepsky.tuning.space import suggest
from deepsky.tuning.study import best_trial, is_done, load_study, meaning_of, open_study, summaries
from tests.postgresql import ENCODED
from tests.tuning_project import HEAD, RUN, TUNE_PARAMS

DATA = {"data/splits/blobs.csv": "1" * 32}


@pytest.fixture
def params(tmp_path, monkeypatch):
    """Parameters whose relative storage counts from a project's root."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    return TUNE_PARAMS


def opened(params, name="s", base=HEAD, data=DATA, run=RUN):
    return open_study(name, params, base, meaning_of(run, params, base, data))


def test_a_study_is_created_once_with_the_run_first(params, tmp_path):
    study = opened(params)
    again = opened(params)
    assert (tmp_path / "studies.db").is_file()
    assert [trial.state for trial in again.trials] == [TrialState.WAITING]
    with quiet():
        assert suggest(study.ask(), params, HEAD) == replace(HEAD, epochs=params.epochs, seed=params.seed)
    assert optuna.get_all_study_names(again._storage) == ["s"]


def test_a_waiting_trial_is_claimed_once(params):
    """Threads stand for processes: each has its own connection."""
    study = opened(params)
    for _ in range(40):
        study.enqueue_trial({})
    waiting = [trial._trial_id for trial in study.get_trials(states=[TrialState.WAITING])]
    storages, together = [opened(params)._storage for _ in range(3)], Barrier(3)

    def claim(storage):
        claimed = []
        for trial_id in waiting:
            together.wait()
            if storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                claimed.append(trial_id)
        return claimed

    with ThreadPoolExecutor(3) as pool:
        claimed = [one for of_worker in pool.map(claim, storages) for one in of_worker]
    assert sorted(claimed) == waiting


def test_directions_follow_the_objectives(params):
    two = replace(params, objectives=("cross_entropy", "parameters"), pruner="none")
    assert [direction.name for direction in opened(two).directions] == ["MINIMIZE", "MINIMIZE"]
    assert opened(params, "t").direction.name == "MAXIMIZE"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 7}, "began with epochs 10, now it is 7; restore that in params.yaml, or give --study another name"),
        ({"seed": 9}, "began with seed 1, now it is 9"),
        ({"folds": 2}, "began with folds 1, now it is 2"),
        ({"sampler": "random"}, 'began with sampler "tpe", now it is "random"'),
    ],
)
def test_other_settings_are_refused(params, change, message):
    opened(params)
    with pytest.raises(StudyError, match=message):
        opened(replace(params, **change))


def test_another_space_run_or_data_is_refused_and_nothing_lost(params):
    study = opened(params)
    heads = replace(params.heads, dropout=FloatRange(0.0, 0.3))
    with pytest.raises(StudyError, match=r'began with dropout {"low": 0.0, "high": 0.6.*now it is .*"high": 0.3'):
        opened(replace(params, heads=heads))
    with pytest.raises(StudyError, match=r'began with recipe.keep "best", now it is "last"'):
        opened(params, base=replace(HEAD, keep="last"))
    with pytest.raises(StudyError, match=r'began with run "blobs-mobilenet", now it is "other"'):
        opened(params, run="other")
    with pytest.raises(StudyError, match=r"blobs.csv .* now it is .*; run dvc pull or dvc repro"):
        opened(params, data={"data/splits/blobs.csv": "2" * 32})
    assert len(study.trials) == 1


def test_what_may_change_may_change(params):
    begun = opened(params)
    more = opened(replace(params, trials=7, population=3, heartbeat_s=2, backend="tensorflow"))
    other = opened(params, base=replace(HEAD, learning_rate=0.5, mixup=0.2))  # searched; without effect on a head
    assert begun.user_attrs == more.user_attrs == other.user_attrs
    assert len(other.trials) == 1


def test_a_study_of_someone_else_is_refused(params):
    opened(params)
    study = optuna.create_study(study_name="theirs", storage=open_database(params.storage), direction="maximize")
    study.add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(StudyError, match="study theirs: has no settings: deepsky did not make it"):
        opened(params, "theirs")


def test_a_study_of_an_older_deepsky_is_refused(params):
    study = optuna.create_study(study_name="old", storage=open_database(params.storage, create=True))
    study.set_user_attr("settings", {"dataset": "blobs", "network": "mobilenet", "objectives": ["f1_macro"]})
    study.add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(StudyError, match=r"study old: was made by an older deepsky.*; give --study another name"):
        opened(params, "old")


def test_names(params):
    with pytest.raises(StudyError, match="is no name of a study"):
        opened(params, "it's")
    opened(params, "one")
    with pytest.raises(StudyError, match="study two: does not exist; it has one"):
        load_study("two", params.storage)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///absent.db", "absent.db: does not exist; run make tune first"),
        ("sqlite:///other.db", "other.db: is a database of something else; name another"),
        ("sqlite:///text.db", "text.db: the studies cannot be read or written .file is not a database."),
        ("mysql://host/name", "is no storage for studies; give sqlite"),
        ("studies.db", "is no storage for studies"),
    ],
)
def test_what_is_no_database_of_studies(params, tmp_path, url, message):
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE things (x)")
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(StudyError, match=message) as caught:
        load_study("s", url)
    assert "\n" not in str(caught.value)


def test_an_unreachable_server_is_one_line_without_the_password(params):
    with pytest.raises(
        StudyError, match=r"postgresql://me:\*\*\*@127.0.0.1:1/db: the studies cannot be read"
    ) as caught:
        load_study("s", "postgresql://me:hidden@127.0.0.1:1/db")
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)


COLD_START = """
import sys
import optuna
from deepsky.tuning.database import open_database
print("ready", flush=True)
sys.stdin.readline()
storage = open_database("sqlite:///cold.db", create=True)
study = optuna.create_study(study_name="s", storage=storage, load_if_exists=True)
for _ in range(3):
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    study.tell(trial, 0.5)
"""


def test_processes_may_all_begin_on_a_database_that_is_not_there(params, tmp_path):
    workers = [
        subprocess.Popen([sys.executable, "-c", COLD_START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                         stderr=subprocess.PIPE, cwd=tmp_path)
        for _ in range(4)
    ]  # fmt: skip
    for worker in workers:
        worker.stdout.readline()
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        _, errors = worker.communicate()
        assert worker.returncode == 0, errors
    trials = load_study("s", "sqlite:///cold.db").trials
    assert [trial.number for trial in trials] == list(range(12))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}


def test_postgresql_keeps_a_study(params, postgres):
    shared = replace(params, storage=postgres)
    first, second = opened(shared), opened(shared)
    with quiet():
        for study in (first, second):
            trial = study.ask()
            suggest(trial, shared, HEAD)
            study._storage.record_heartbeat(trial._trial_id)
            study.tell(trial, 0.5)
    third = load_study("s", postgres)
    assert [trial.value for trial in third.trials] == [0.5, 0.5]
    for study in (first, second, third):
        study._storage.close()
    with pytest.raises(StudyError, match="password authentication failed") as caught:
        load_study("s", postgres.replace(ENCODED, "mistaken"))
    assert "mistaken" not in str(caught.value)


def test_a_worker_sees_its_own_trials_at_once_and_others_when_it_looks(params):
    mine, theirs = opened(params), opened(params)
    with quiet():
        trial = mine.ask()
    suggest(trial, params, HEAD)
    trial.report(0.25, 3)
    trial.set_user_attr("a", 1)
    own = mine.get_trials(deepcopy=False)[trial.number]
    assert own.params == trial.params
    assert own.intermediate_values == {3: 0.25}
    assert own.user_attrs == {"a": 1}
    mine.tell(trial, 0.5)
    assert mine.get_trials(deepcopy=False)[trial.number].value == 0.5
    assert theirs.get_trials(deepcopy=False)[trial.number].state == TrialState.WAITING
    theirs._storage.refresh()
    assert theirs.get_trials(deepcopy=False)[trial.number].value == 0.5
    assert (
        theirs.get_trials()[trial.number]
        == optuna.load_study(
            study_name="s", storage=f"sqlite:///{theirs._storage._backend.engine.url.database}"
        ).trials[trial.number]
    )


def test_done_best_and_summaries(params):
    study = opened(params)
    assert best_trial(study) is None
    for value in (0.5, 0.75, 0.75):
        study.add_trial(optuna.create_trial(value=value))
    study.add_trial(optuna.create_trial(state=TrialState.PRUNED))
    study.add_trial(optuna.create_trial(state=TrialState.FAIL))
    study.add_trial(optuna.create_trial(state=TrialState.FAIL, user_attrs={"reason": "val_loss is nan"}))
    assert best_trial(study).number == 2
    assert sum(map(is_done, study.trials)) == 5
    opened(replace(params, objectives=("cross_entropy",)), "t").add_trial(optuna.create_trial(value=0.1))
    found = summaries(params.storage)
    assert [(one.name, one.n_done, one.objective, one.best, one.best_trial) for one in found] == [
        ("s", 5, "f1_macro", 0.75, 2), ("t", 1, "cross_entropy", 0.1, 1),
    ]  # fmt: skip
