"""A study's values and parameters as columns, how much each parameter mattered, and both as tables."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import KFold

Floats = npt.NDArray[np.float64]
MOST_TRIALS = 1000  # more cost importances a minute and change nothing
_SHUFFLES = 5
_MANY = 30.0  # largest to smallest value of an objective that is drawn on a log axis


@dataclass(frozen=True)
class Objective:
    """One objective: its name, whether less is better, and its value in each complete trial."""

    name: str
    less: bool
    values: Floats

    @property
    def log(self) -> bool:
        """Whether the values span orders of magnitude, as parameter counts do."""
        return bool(self.values.min() > 0 and self.values.max() > _MANY * self.values.min())

    @property
    def loss(self) -> Floats:
        """The values, less being better."""
        return self.values if self.less else -self.values


@dataclass(frozen=True)
class Parameter:
    """One parameter over the complete trials; NaN where a trial has it not, a choice counts as its index.

    ``low`` and ``high`` are the ends of the space, not of what was tried.
    """

    name: str
    values: Floats
    low: float
    high: float
    choices: tuple[str, ...] = ()
    log: bool = False

    @property
    def heading(self) -> str:
        """The name, and in how many trials it is where it is not in all."""
        return self.name if self.used == len(self.values) else f"{self.name} ({self.used} of {len(self.values)})"

    @property
    def used(self) -> int:
        """In how many trials it is."""
        return int(np.isfinite(self.values).sum())


@dataclass(frozen=True)
class Results:
    """What came of a study.

    Attributes:
        name: of the study.
        numbers: of the complete trials, those that have finite values.
        objectives: in the study's order, with the values of these trials.
        parameters: with theirs, in the order of the space.
        trials: all, in any state.
    """

    name: str
    numbers: Floats
    objectives: tuple[Objective, ...]
    parameters: tuple[Parameter, ...]
    trials: tuple[FrozenTrial, ...]


@dataclass(frozen=True)
class Importance:
    """How much each parameter mattered to one objective, and how much of it all parameters explain."""

    shares: dict[str, float]
    explained: float


def results_of(study: optuna.Study, objectives: Sequence[str]) -> Results:
    """Collect what came of a study.

    Args:
        study: in any state.
        objectives: names of its values, in its order.
    """
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if _is_finite(trial)]
    values = np.array([trial.values for trial in complete], dtype=np.float64).reshape(len(complete), len(objectives))
    return Results(
        study.study_name,
        np.array([trial.number for trial in complete], dtype=np.float64),
        tuple(
            Objective(name, direction == StudyDirection.MINIMIZE, values[:, index])
            for index, (name, direction) in enumerate(zip(objectives, study.directions, strict=True))
        ),
        tuple(_parameter(name, complete) for name in _names(complete)),
        tuple(trials),
    )


def importance_of(objective: Objective, results: Results) -> Importance:
    """Return how much worse a random forest ranks trials that it was not fitted to when one parameter is shuffled.

    Optuna's own evaluators leave conditional parameters out (fANOVA), or give noise the first place among 60 trials of
    our space (PED-ANOVA). Ranks, since one diverging trial would outweigh all others.

    Source:
        Breiman 2001, Machine Learning 45, 5 (permutation importance).
    """
    some, rng = evenly(len(results.numbers), MOST_TRIALS), np.random.default_rng(0)
    inputs = np.column_stack([_filled(parameter.values[some], rng) for parameter in results.parameters])
    ranks = rankdata(objective.values[some]) / len(some)
    worse, errors = np.zeros(inputs.shape[1]), np.zeros(len(some))
    for fitted, left_out in KFold(5, shuffle=True, random_state=0).split(inputs):
        forest = RandomForestRegressor(50, min_samples_leaf=2, random_state=0).fit(inputs[fitted], ranks[fitted])
        shuffled = np.tile(inputs[left_out], (len(worse), _SHUFFLES, 1, 1))
        for column in range(len(worse)):
            shuffled[column, :, :, column] = rng.permuted(shuffled[column, :, :, column], axis=1)
        predicted = forest.predict(shuffled.reshape(-1, len(worse))).reshape(shuffled.shape[:3])
        errors[left_out] = (forest.predict(inputs[left_out]) - ranks[left_out]) ** 2
        worse += ((predicted - ranks[left_out]) ** 2 - errors[left_out]).sum(axis=(1, 2))
    worse, variance = worse.clip(0), ranks.var()
    explained = max(1 - errors.mean() / variance, 0.0) if variance else 0.0
    shares = worse / worse.sum() if worse.any() else worse
    names = [parameter.name for parameter in results.parameters]
    return Importance(dict(zip(names, shares.tolist(), strict=True)), float(explained))


def write_trials(results: Results, path: Path) -> None:
    """Write one CSV row per trial, whatever became of it."""
    names, objectives = _names(results.trials), [objective.name for objective in results.objectives]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["number", "state", *objectives, *names, "seconds", "reason"])
        for trial in results.trials:
            table.writerow([
                trial.number,
                trial.state.name,
                *(trial.values or [""] * len(objectives)),
                *(trial.params.get(name, "") for name in names),
                f"{trial.duration.total_seconds():.3f}" if trial.duration else "",
                trial.user_attrs.get("reason", ""),
            ])  # fmt: skip


def write_importances(results: Results, importances: Mapping[str, Importance], path: Path) -> None:
    """Write one CSV row per parameter, what mattered most to the first objective first."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["parameter", "trials", *importances])
        for parameter in by_importance(results, importances):
            shares = [f"{importance.shares[parameter.name]:.4f}" for importance in importances.values()]
            table.writerow([parameter.name, parameter.used, *shares])


def evenly(n: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most so many indices of n, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def by_importance(results: Results, importances: Mapping[str, Importance]) -> list[Parameter]:
    """Return the parameters, what mattered most to the first objective first."""
    shares = importances[results.objectives[0].name].shares
    return sorted(results.parameters, key=lambda parameter: -shares[parameter.name])


def _filled(values: Floats, rng: np.random.Generator) -> Floats:
    """Let other trials' values stand in where a trial has no such parameter.

    What it means not to have it is then told by the parameter that decides so: ``layers``, not ``units_1``.
    """
    missing, filled = np.isnan(values), values.copy()
    filled[missing] = rng.choice(values[~missing], missing.sum()) if not missing.all() else 0.0
    return filled


def _is_finite(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.COMPLETE and bool(np.isfinite(trial.values).all())


def _names(trials: Sequence[FrozenTrial]) -> list[str]:
    """Return all parameters in the order of the space: as the trials that have most of them tell it."""
    known: list[str] = []
    for names in sorted({tuple(trial.params) for trial in trials}, key=lambda names: (-len(names), names)):
        for index, name in enumerate(names):
            if name not in known:
                known.insert(known.index(names[index - 1]) + 1 if index else 0, name)
    return known


def _parameter(name: str, trials: Sequence[FrozenTrial]) -> Parameter:
    distribution = next(trial.distributions[name] for trial in trials if name in trial.distributions)
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        indices = [choices.index(trial.params[name]) if name in trial.params else np.nan for trial in trials]
        return Parameter(name, np.array(indices, dtype=np.float64), 0, len(choices) - 1, tuple(map(str, choices)))
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    values = np.array([trial.params.get(name, np.nan) for trial in trials], dtype=np.float64)
    return Parameter(name, values, distribution.low, distribution.high, log=distribution.log)
