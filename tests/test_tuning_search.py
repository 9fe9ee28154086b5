import re
import signal
import threading
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from deepsky.errors import StudyError
from deepsky.interruption import Terminated
from deepsky.tracking.journal import deliver_waiting
from deepsky.tracking.studies import open_study_run
from deepsky.training.examples import Examples
from deepsky.tuning.database import quiet
from deepsky.tuning.figures import draw_study
from deepsky.tuning.objective import Objective
from deepsky.tuning.search import Worker
from deepsky.tuning.space import suggest
from deepsky.tuning.study import is_done, meaning_of, open_study
from tests.postgresql import closed_port
from tests.trained_folders import _empty_store
from tests.tuning_project import HEAD, RUN, TUNE_PARAMS, FormulaTrainer

TUNE = replace(TUNE_PARAMS, epochs=4)
DRAW = "deepsky.tuning.search.draw_study"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """An MLflow store of this module's own."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    path.write_bytes(_empty_store())
    return f"sqlite:///{path}"


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch, store):
    """The current folder; its searches draw no figures, which takes a second or two."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setattr(DRAW, lambda *arguments: None)
    return tmp_path


def new_worker(experiment, trainer=None, params=TUNE, population=4, name="s"):
    study = open_study(name, params, HEAD, meaning_of(RUN, params, HEAD, {}))
    split = np.array(["train", "val"])
    examples = Examples(np.zeros((2, 4), np.float32), np.arange(2), np.eye(2, dtype=np.float32), split)
    run = open_study_run(experiment, name, {"epochs": params.epochs}, {})
    objective = Objective(params, trainer or FormulaTrainer(), [examples])
    return Worker(study, params, HEAD, objective, run, population=population)


def trials_of(worker):
    worker._storage.refresh()
    return worker._study.trials


def children(experiment):
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], max_results=1000)
    return [run for run in runs if "mlflow.parentRunId" in run.data.tags], [
        run for run in runs if "mlflow.parentRunId" not in run.data.tags
    ]


def outline(worker):
    return [(trial.params, trial.state, trial.values) for trial in trials_of(worker)]


def test_a_search_ends_at_its_trials_and_goes_on_to_more(capsys, monkeypatch):
    worker = new_worker("ends")
    worker.run(10)
    assert len(trials_of(worker)) == 10
    assert all(map(is_done, trials_of(worker)))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4  # three populations, and the end
    assert re.fullmatch(r"10/10 done, best f1_macro .*; deepsky tune adopt \S+ writes it into params.yaml", lines[-1])
    again = new_worker("ends")
    again.run(10)
    assert len(trials_of(again)) == 10
    monkeypatch.setattr(DRAW, draw_study)
    new_worker("ends").run(13)
    assert len(trials_of(again)) == 13
    runs, (parent,) = children("ends")
    assert sorted(int(run.data.tags["deepsky.trial"]) for run in runs) == list(range(13))
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["n_complete"] + parent.data.metrics["n_pruned"] == 13
    files = {file.path for file in MlflowClient().list_artifacts(parent.info.run_id, "figures")}
    assert "figures/trials.csv" in files


def test_what_mlflow_gets_of_a_trial():
    worker = new_worker("record")
    worker.run(8)
    runs, _ = children("record")
    complete = next(trial for trial in trials_of(worker) if trial.state == TrialState.COMPLETE)
    run = next(run for run in runs if run.data.tags["deepsky.trial"] == str(complete.number))
    assert run.data.params["learning_rate"] == str(complete.params["learning_rate"])
    assert run.data.params["epochs"] == "4"
    assert run.data.metrics["f1_macro"] == complete.value
    curve = MlflowClient().get_metric_history(run.info.run_id, "val_f1_macro")
    assert [point.step for point in curve] == [1, 2, 3, 4]
    assert complete.user_attrs["curve"] == [[p.step, {**complete.user_attrs["curve"][p.step - 1][1],
                                             "val_f1_macro": p.value}] for p in curve]  # fmt: skip
    pruned = [run for run in runs if run.info.status == "KILLED"]
    assert len(pruned) == sum(trial.state == TrialState.PRUNED for trial in trials_of(worker))


def test_diverging_trials_fail_with_their_reason_and_the_search_goes_on():
    worker = new_worker("diverging", FormulaTrainer(diverging=1e-3))
    worker.run(12)
    failed = [trial for trial in trials_of(worker) if trial.state == TrialState.FAIL]
    assert 0 < len(failed) < 12
    assert {trial.user_attrs["reason"] for trial in failed} == {"val_loss is nan after epoch 2"}
    runs, _ = children("diverging")
    assert sum(run.info.status == "FAILED" for run in runs) == len(failed)


def test_a_search_in_which_all_diverge_says_so():
    worker = new_worker("all", FormulaTrainer(diverging=0.0), replace(TUNE, pruner="none"))
    with pytest.raises(StudyError, match=r"study s: all 6 trials diverged, the last: val_loss is nan"):
        worker.run(6)
    assert len(trials_of(worker)) == 6


@cache
def undisturbed(params):
    worker = new_worker("undisturbed", params=params, name="once")
    worker.run(12)
    return outline(worker)


@pytest.mark.parametrize(("at", "number"), [(3, signal.SIGTERM), (30, signal.SIGINT)])
def test_a_stopped_search_goes_on_as_if_nothing_had_been(capsys, at, number, project):
    params, handler = replace(TUNE, pruner="none"), signal.getsignal(number)
    stopped = new_worker("stopped", FormulaTrainer(interrupt_at=at, number=number), params)
    with pytest.raises(Terminated if number == signal.SIGTERM else KeyboardInterrupt):
        stopped.run(12)
    n_done = at // 16 * 4
    assert f"{n_done}/12 done; the same command goes on from there" in capsys.readouterr().out
    states = [trial.state for trial in trials_of(stopped)]
    assert states == [TrialState.COMPLETE] * n_done + [TrialState.WAITING] * 4
    assert children("stopped")[1][0].info.status == "KILLED"
    assert signal.getsignal(number) == handler
    new_worker("stopped", params=params).run(12)
    assert outline(stopped) == undisturbed(params)


def test_one_seed_one_worker_one_search():
    first = new_worker("one", name="a")
    second = new_worker("two", params=replace(TUNE, storage="sqlite:///other.db"), name="a")
    first.run(20)
    second.run(20)
    assert outline(first) == outline(second)
    assert any(trial.state == TrialState.PRUNED for trial in trials_of(first))


def test_an_error_gives_the_trials_back():
    class Broken(FormulaTrainer):
        def train(self, candidates, examples, on_epoch):
            if self.fitted:
                raise OSError("disk full")
            return super().train(candidates, examples, on_epoch)

    worker = new_worker("broken", Broken())
    with pytest.raises(OSError, match="disk full"):
        worker.run(12)
    assert [trial.state for trial in trials_of(worker)[4:]] == [TrialState.WAITING] * 4
    new_worker("broken").run(12)
    assert len(trials_of(worker)) == 12


def test_a_dead_workers_trials_are_tried_again(monkeypatch):
    monkeypatch.setattr("deepsky.tuning.database._GRACE", 1)
    monkeypatch.setattr("deepsky.tuning.search._WAIT_S", 0.5)
    dead = new_worker("dead")
    with quiet():
        for number in range(3):
            trial = dead._study.ask()
            suggest(trial, TUNE, HEAD)
            if number:  # the first died before its first sign of life
                dead._storage.record_heartbeat(trial._trial_id)
    lost = [trial.params for trial in trials_of(dead)]
    worker = new_worker("dead")
    worker.run(6)
    done = [trial for trial in trials_of(worker) if is_done(trial)]
    assert len(done) == 6
    assert all(params in [trial.params for trial in done] for params in lost)
    assert sum(trial.state == TrialState.FAIL for trial in trials_of(worker)) == 3
    assert {int(run.data.tags["deepsky.trial"]) for run in children("dead")[0]} == {trial.number for trial in done}


def test_a_trial_that_another_worker_took_is_left_to_it(capsys):
    class Slow(FormulaTrainer):
        def train(self, candidates, examples, on_epoch):
            if not self.fitted:
                worker._storage._backend.set_trial_state_values(trials_of(worker)[1]._trial_id, TrialState.FAIL)
            return super().train(candidates, examples, on_epoch)

    worker = new_worker("taken", Slow(), replace(TUNE, pruner="none"))
    worker.run(4)
    assert "trial 1: this worker was silent for so long that another one took it" in capsys.readouterr().out
    assert sum(map(is_done, trials_of(worker))) == 4


# Filters are not the threads' own: what one of them sets, another takes back.
@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_workers_share_a_study_without_one_trial_too_many():
    """Threads stand for processes: each has its own connection and cache."""
    errors = []

    def work(number):
        try:
            new_worker("shared", population=3).run(20)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    trials = trials_of(new_worker("shared"))
    assert sum(map(is_done, trials)) == 20
    assert all(trial.state == TrialState.WAITING or is_done(trial) for trial in trials)
    assert len({str(trial.params) for trial in trials if is_done(trial)}) == 20
    assert len(children("shared")[0]) == 20


def test_trials_that_mlflow_never_heard_of_are_handed_in():
    worker = new_worker("late")
    worker._run.log_trials = lambda records: None  # a worker killed between telling Optuna and telling MLflow
    worker.run(4)
    assert children("late")[0] == []
    new_worker("late").run(4)
    assert len(children("late")[0]) == 4


def test_a_search_needs_no_server(monkeypatch, store, capsys):
    monkeypatch.setattr(DRAW, draw_study)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
    new_worker("away").run(6)
    new_worker("away").run(8)
    assert capsys.readouterr().err.count("deepsky runs --sync") == 2
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert deliver_waiting() == 2
    runs, (parent,) = children("away")
    assert sorted(int(run.data.tags["deepsky.trial"]) for run in runs) == list(range(8))
    assert (parent.info.status, parent.data.params["epochs"]) == ("FINISHED", str(TUNE.epochs))
    assert parent.data.metrics["n_complete"] + parent.data.metrics["n_pruned"] == 8
    assert MlflowClient().list_artifacts(parent.info.run_id, "figures")


def test_two_objectives(monkeypatch):
    monkeypatch.setattr(DRAW, draw_study)
    params = replace(TUNE, objectives=("f1_macro", "parameters"), pruner="none")
    worker = new_worker("two_objectives", params=params)
    worker.run(8)
    assert all(len(trial.values) == 2 for trial in trials_of(worker))
    assert {"f1_macro", "parameters"} <= set(children("two_objectives")[0][0].data.metrics)
