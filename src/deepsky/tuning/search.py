"""One worker of a search: ask for trials, train them together, tell what came of them, until the study is done."""

import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna import Study, Trial
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from deepsky.errors import StudyError, TrackingError
from deepsky.interruption import Terminated, interruptible, status_of, uninterrupted
from deepsky.networks.registry import SCRATCH
from deepsky.tracking.studies import StudyRun, TrialRecord
from deepsky.training.recipe import Recipe
from deepsky.tuning.database import WorkerStorage, quiet, study_errors
from deepsky.tuning.figures import draw_study
from deepsky.tuning.objective import Objective, Result
from deepsky.tuning.params import TuneParams
from deepsky.tuning.sampling import decision_steps
from deepsky.tuning.space import candidate_of, suggest
from deepsky.tuning.study import REASON, best_trial, is_done
from deepsky.tuning.worker import Heart

CURVE = "curve"  # user attribute of a trial: the figures of every epoch
_WAIT_S = 1.0


class Worker:
    """A worker of a study; any number of them may work on one study at once."""

    def __init__(
        self, study: Study, params: TuneParams, base: Recipe, objective: Objective, run: StudyRun, *, population: int
    ) -> None:
        """Begin nothing yet.

        Args:
            study: opened by ``deepsky.tuning.study.open_study``.
            params: section ``tune``.
            base: recipe of the run that is searched; what is not searched comes from it.
            objective: judges the candidates.
            run: the study's MLflow run.
            population: trials trained together.
        """
        self._study, self._params, self._base = study, params, base
        self._objective, self._run, self._population = objective, run, population
        assert isinstance(study._storage, WorkerStorage)
        self._storage = study._storage
        self._heart = Heart(self._storage, params.heartbeat_s)
        self._steps = decision_steps(params)
        self._own = dict[int, Trial]()  # those that are running here, by number
        self._told = set[int]()
        self._granted = set[int]()
        self._n_target, self._started, self._n_before = params.trials, 0.0, 0

    def run(self, n_trials: int) -> None:
        """Work until so many trials are done in the study, here or elsewhere.

        Ctrl-C, SIGTERM and errors give the trials that are running here back to the study: whoever works on it next
        begins with them.

        Raises:
            StudyError: every trial diverged.
            KeyboardInterrupt: Ctrl-C came.
            Terminated: SIGTERM came.
        """
        self._n_target, self._started = n_trials, time.perf_counter()
        with study_errors(self._params.storage), interruptible(), self._heart:
            try:
                self._look()
                self._n_before = self._n_done()
                if self._n_before:
                    print(f"{self._progress()} done before", flush=True)
                self._log_missing()
                while trials := self._ask():
                    self._train(trials)
                    self._report()
                self._finish()
            except BaseException as error:
                with uninterrupted():
                    self._close(status_of(error))
                    if isinstance(error, KeyboardInterrupt | Terminated):
                        print(f"{self._progress()} done; the same command goes on from there", flush=True)
                raise

    # ---- asking ----

    def _ask(self) -> list[Trial]:
        """Return the next population, empty when the study is done; wait while only others have something to do."""
        waited_s = 0.0
        while True:
            with quiet():
                self._look()
                fail_stale_trials(self._study)
            trials = self._look()
            running = [trial for trial in trials if trial.state == TrialState.RUNNING]
            n_free = self._n_target - len(self._done(trials)) - len(running)
            if n_free > 0 and (asked := self._claim(min(self._population, n_free))):
                return asked
            if not running and n_free <= 0:
                return []
            if not waited_s:
                print(f"waiting for {len(running)} trials of other workers", flush=True)
            if waited_s > 3 * self._params.heartbeat_s:
                self._grant_a_heartbeat(running)
            time.sleep(_WAIT_S)
            waited_s += _WAIT_S

    def _claim(self, n_trials: int) -> list[Trial]:
        """Begin trials, and give back those for which other workers were faster."""
        with uninterrupted(), quiet():
            for _ in range(n_trials):
                trial = self._study.ask()
                self._own[trial.number] = trial
                self._heart.keep(trial._trial_id)
            trials = self._look()
            n_done = len(self._done(trials))
            running = sorted(trial.number for trial in trials if trial.state == TrialState.RUNNING)
            for number in running[max(0, self._n_target - n_done) :]:
                if number in self._own:
                    self._return(self._own.pop(number))
        return list(self._own.values())

    def _grant_a_heartbeat(self, running: Sequence[FrozenTrial]) -> None:
        """Give each trial of others one sign of life: one whose worker died before its first would stay for ever."""
        for trial in running:
            if trial.number not in self._granted:
                self._granted.add(trial.number)
                self._storage.record_heartbeat(trial._trial_id)

    # ---- training ----

    def _train(self, trials: Sequence[Trial]) -> None:
        candidates = [suggest(trial, self._params, self._base) for trial in trials]
        self._storage.write_params()
        known = [set(self._storage.get_trial(trial._trial_id).intermediate_values) for trial in trials]

        def on_step(index: int, step: int, value: float) -> bool:
            trial = trials[index]
            if trial.number not in self._own or step not in self._steps:
                return trial.number in self._own
            try:
                if step not in known[index]:  # by a worker that was stopped
                    trial.report(value, step)
                return not trial.should_prune()
            except UpdateFinishedTrialError:
                self._forget(trial)
                return False

        before = set(self._told)
        self._objective.judge(candidates, on_step, lambda index, result: self._tell(trials[index], result))
        self._log(self._told - before)

    def _tell(self, trial: Trial, result: Result) -> None:
        if trial.number not in self._own:
            return
        with uninterrupted():
            try:
                trial.set_user_attr(CURVE, [[epoch, dict(figures)] for epoch, figures in result.curve])
                if result.reason:
                    trial.set_user_attr(REASON, result.reason)
                self._study.tell(trial, result.values or None, state=TrialState[result.state])
                self._told.add(trial.number)
            except UpdateFinishedTrialError:
                print(f"trial {trial.number}: this worker was silent for so long that another one took it", flush=True)
            self._forget(trial)

    def _forget(self, trial: Trial) -> None:
        self._heart.leave(trial._trial_id)
        self._own.pop(trial.number, None)

    def _return(self, trial: Trial) -> None:
        """Let a trial wait for the next worker, as it is."""
        self._heart.leave(trial._trial_id)
        self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def _close(self, status: str) -> None:
        """Leave the study to others; what fails here is not what is to be reported, and heartbeats end anyway."""
        with suppress(OptunaError, SQLAlchemyError):
            for trial in self._own.values():
                self._return(trial)
        self._own.clear()
        with suppress(TrackingError):
            self._run.finish(None, {}, status)

    # ---- saying what came of it ----

    def _look(self) -> list[FrozenTrial]:
        """Return all trials as they are now."""
        self._storage.refresh()
        return self._study.get_trials(deepcopy=False)

    def _done(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        return [trial for trial in trials if is_done(trial)]

    def _log_missing(self) -> None:
        """Give MLflow the trials of workers that died before they could; one that still runs may be about to."""
        trials = self._look()
        if not any(trial.state == TrialState.RUNNING for trial in trials):
            self._log({trial.number for trial in self._done(trials)} - self._run.logged_trials())

    def _log(self, numbers: set[int]) -> None:
        trials = [trial for trial in self._study.get_trials(deepcopy=False) if trial.number in numbers]
        self._run.log_trials([self._record(trial) for trial in trials])

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None
        values = trial.values if trial.state == TrialState.COMPLETE else []
        return TrialRecord(
            trial.number,
            trial.state.name,
            int(trial.datetime_start.timestamp() * 1000),
            int(trial.datetime_complete.timestamp() * 1000),
            candidate_of(trial.params, self._params, self._base).settings(own_head=self._base.network in SCRATCH),
            [(epoch, figures) for epoch, figures in trial.user_attrs.get(CURVE, [])],
            dict(zip(self._params.objectives, values, strict=False)),
            trial.user_attrs.get(REASON, ""),
        )

    def _report(self) -> None:
        n_done = len(self._done(self._look()))  # other workers' trials too
        per_s = (n_done - self._n_before) / (time.perf_counter() - self._started)
        left_s = (self._n_target - n_done) / per_s if per_s > 0 else float("inf")
        print(f"{self._progress()} done, {self._best()}, {per_s:.2f} trials/s, {left_s:.0f} s left", flush=True)

    def _best(self) -> str:
        best, name = best_trial(self._study), self._params.objectives[0]
        return f"best {name} {best.values[0]:.4f} (trial {best.number})" if best else "none complete yet"

    def _progress(self) -> str:
        return f"{self._n_done()}/{self._n_target}"

    def _n_done(self) -> int:
        return len(self._done(self._study.get_trials(deepcopy=False)))

    def _finish(self) -> None:
        """Close the MLflow run; of the workers that end together, the one with the last trial draws the figures."""
        self._log_missing()
        trials = self._look()
        done, best = self._done(trials), best_trial(self._study)
        if done and all(trial.state == TrialState.FAIL for trial in done):
            raise StudyError(
                f"study {self._study.study_name}",
                f"all {len(done)} trials diverged, the last: {done[-1].user_attrs[REASON]}",
                "lower the learning rates of the space in params.yaml and give --study another name",
            )
        adopt = f"deepsky tune adopt {self._study.study_name} writes it into params.yaml"
        print(f"{self._progress()} done, {self._best()}; {adopt}", flush=True)
        last = max(done, key=lambda trial: (trial.datetime_complete, trial.number), default=None)
        if last is None or (self._told and last.number not in self._told):
            self._run.finish(None, {}, "RUNNING")
            return
        with tempfile.TemporaryDirectory() as folder:
            draw_study(self._study, Path(folder), self._params.objectives)
            self._run.finish(Path(folder), self._summary(done, best))

    def _summary(self, done: Sequence[FrozenTrial], best: FrozenTrial | None) -> dict[str, Any]:
        counts = {
            f"n_{state.name.lower()}": sum(trial.state == state for trial in done)
            for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        }
        if best is None:
            return counts
        named = zip(self._params.objectives, best.values, strict=True)
        return {**counts, "best_trial": best.number, **{f"best_{name}": value for name, value in named}}
