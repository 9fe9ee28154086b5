"""What draws the next trial, and what ends one early."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from heapq import nsmallest
from typing import Any

import numpy as np
import optuna
from optuna import Study
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from deepsky.errors import ConfigError
from deepsky.training.recipe import Recipe
from deepsky.tuning.database import WorkerStorage, quiet
from deepsky.tuning.params import TuneParams
from deepsky.tuning.space import all_choices

# TPE's time grows with the trials it looks at: 30 ms for 128 of them, a second for 10,000.
SEEN = 128
_BEST = 25  # more than that TPE never takes for good
_REDUCTION = 3  # of Hyperband: one trial in three reaches the next rung
_MAX_GRID = 100_000
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_MANY = 20  # whole numbers
_KEPT_ATTRIBUTES = "cma:"  # what CMA-ES knows stands in its trials


def make_sampler(params: TuneParams, base: Recipe) -> BaseSampler:
    """Return the sampler; each trial it draws follows from params.seed, the trial's turn and the trials before.

    Raises:
        ConfigError: a grid of ranges, or of too many combinations.
    """
    if params.sampler == "grid":
        return GridSampler(params.seed, grid(params, base))
    make: Mapping[str, Callable[[int], BaseSampler]] = {
        "tpe": lambda seed: TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True),
        "random": lambda seed: RandomSampler(seed=seed),
        "cmaes": lambda seed: CmaEsSampler(seed=seed, warn_independent_sampling=False),
    }
    return TurnSampler(params.seed, make[params.sampler], n_seen=0 if params.sampler == "random" else SEEN)


def make_pruner(params: TuneParams) -> BasePruner:
    """Return the pruner; its steps are epochs over all folds and repeats."""
    make: Mapping[str, Callable[[], BasePruner]] = {
        "hyperband": lambda: HyperbandPruner(1, n_steps(params), _REDUCTION),
        "median": MedianPruner,
        "none": NopPruner,
    }
    return make[params.pruner]()


def n_steps(params: TuneParams) -> int:
    """Return the epochs of a trial over all its folds and repeats."""
    return params.epochs * params.folds * params.repeats


def decision_steps(params: TuneParams) -> frozenset[int]:
    """Return the steps at which the pruner may end a trial; the last step is none, for nothing is left to save."""
    steps = range(1, n_steps(params))
    if params.pruner == "none":
        return frozenset()
    if params.pruner == "median":
        return frozenset(steps)
    return frozenset(_REDUCTION**rung for rung in range(len(steps)) if _REDUCTION**rung in steps)


def grid(params: TuneParams, base: Recipe) -> list[dict[str, Any]]:
    """Return every combination of a space of lists.

    Raises:
        ConfigError: a dimension is a range, or there are too many combinations.
    """
    found = []
    for choice in all_choices(params, base):
        found.append(choice)
        if len(found) > _MAX_GRID:
            problem = f"spans more than {_MAX_GRID} combinations"
            raise ConfigError("sampler grid", problem, "shorten the lists, or choose sampler: tpe")
    return found


def turn(study: Study, trial: FrozenTrial) -> int:
    """Return the place of a trial among all that are not repeats of a trial whose worker died, from 0."""
    return trial.number - sum(map(is_repeat, _trials_before(study, trial)))


def _trials_before(study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
    """Return every trial that began before this one; under Hyperband study.get_trials shows a part of them."""
    before = _all_trials(study)[: trial.number]
    if trial.number and [one.number for one in before[-1:]] != [trial.number - 1]:  # other workers have gone on
        assert isinstance(study._storage, WorkerStorage)
        study._storage.refresh()
        before = _all_trials(study)[: trial.number]
    return before


def is_repeat(trial: FrozenTrial) -> bool:
    """Tell whether a trial is the repeat of one whose worker died."""
    return "failed_trial" in trial.system_attrs


def _all_trials(study: Study) -> list[FrozenTrial]:
    """Return all trials, by number."""
    return list(study._storage.get_all_trials(study._study_id, deepcopy=False))


class _IndependentSampler(BaseSampler):
    """A sampler that is asked for one parameter after the other."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing."""
        return {}


class GridSampler(_IndependentSampler):
    """Every combination once, in an order that the seed shuffles."""

    def __init__(self, seed: int, combinations: Sequence[Mapping[str, Any]]) -> None:
        """Shuffle."""
        order = np.random.default_rng(seed).permutation(len(combinations))
        self._combinations = [combinations[place] for place in order]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a value of the combination whose turn it is; two workers' trials never have the same turn."""
        return self._combinations[turn(study, trial) % len(self._combinations)][param_name]


class TurnSampler(_IndependentSampler):
    """Another sampler, made anew for each trial from the seed and the trial's turn.

    So a search that was interrupted draws what it would have drawn, and two workers never draw the same. The other
    sampler works in memory, on a study of the best and the newest trials.
    """

    def __init__(self, seed: int, make: Callable[[int], BaseSampler], n_seen: int) -> None:
        """Draw nothing yet.

        Args:
            seed: of the search.
            make: seed -> the other sampler.
            n_seen: how many finished trials it looks at.
        """
        self._seed, self._make, self._n_seen = seed, make, n_seen
        self._history: tuple[int, Study] | None = None
        self._drawing: tuple[int, Trial] | None = None

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return what the other sampler draws."""
        if self._drawing is None or self._drawing[0] != trial.number:
            self._drawing = trial.number, self._begin(study, trial)
        drawn = self._drawing[1]
        value = _suggested(drawn, param_name, _smooth(param_distribution))
        if isinstance(param_distribution, IntDistribution):
            value = round(value)
        for name, attribute in drawn.storage.get_trial(drawn._trial_id).system_attrs.items():
            if name.startswith(_KEPT_ATTRIBUTES) and name not in trial.system_attrs:
                study._storage.set_trial_system_attr(trial._trial_id, name, attribute)
        return value

    def _begin(self, study: Study, trial: FrozenTrial) -> Trial:
        before = _trials_before(study, trial)
        n_finished = sum(one.state in _FINISHED for one in before)
        if self._history is None or self._history[0] != n_finished:
            self._history = n_finished, self._remember(study, before)
        place = trial.number - sum(map(is_repeat, before))
        seed = int(np.random.SeedSequence([self._seed, place]).generate_state(1)[0])
        with quiet():
            self._history[1].sampler = self._make(seed)
        return self._history[1].ask()

    def _remember(self, study: Study, trials: Sequence[FrozenTrial]) -> Study:
        """Return a study in memory of the trials that the other sampler shall look at."""
        memory = optuna.create_study(directions=study.directions)
        if self._n_seen:
            finished = [one for one in trials if one.state in _FINISHED]
            complete = [one for one in finished if one.state == TrialState.COMPLETE]
            seen = finished[-(self._n_seen - _BEST) :]
            for objective, direction in enumerate(study.directions):
                rank = partial(_rank, objective, -1 if direction == StudyDirection.MAXIMIZE else 1)
                seen += nsmallest(_BEST // len(study.directions), complete, key=rank)
            seen += [one for one in trials if one.state == TrialState.RUNNING and one.params]
            once = {one.number: one for one in seen}
            memory.add_trials([_smoothed(once[number]) for number in sorted(once)])
        return memory


def _rank(objective: int, sign: int, trial: FrozenTrial) -> float:
    return float(sign * trial.values[objective])


def _smooth(distribution: BaseDistribution) -> BaseDistribution:
    """Let many whole numbers be one continuum: TPE takes ten times as long to draw from each of them by itself."""
    if isinstance(distribution, IntDistribution) and distribution.high - distribution.low >= _MANY:
        return FloatDistribution(distribution.low, distribution.high, log=distribution.log)
    return distribution


def _smoothed(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial as the other sampler sees it."""
    smoothed = copy(trial)
    smoothed.distributions = {name: _smooth(distribution) for name, distribution in trial.distributions.items()}
    return smoothed


def _suggested(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
    return trial.suggest_categorical(name, distribution.choices)
