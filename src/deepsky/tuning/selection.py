"""The trial of a study to adopt, and the run that it becomes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from deepsky.config import build
from deepsky.errors import StudyError
from deepsky.networks.registry import SCRATCH
from deepsky.training.recipe import Origin, Recipe
from deepsky.tuning.params import TuneParams
from deepsky.tuning.space import candidate_of, changed_keys
from deepsky.tuning.study import RECIPE, best_trial, settings_of


@dataclass(frozen=True)
class Selected:
    """A trial to adopt.

    Attributes:
        origin: where it comes from.
        settings: what the study remembers.
        params: what the trial drew.
        values: of the objectives, by name.
    """

    origin: Origin
    settings: Mapping[str, Any]
    params: Mapping[str, Any]
    values: Mapping[str, float]


def select_trial(study: Study, number: int | None) -> Selected:
    """Return a complete trial of a study: the one with the best first objective, or the one named.

    Args:
        study: the search.
        number: of the trial; None takes the best.

    Raises:
        StudyError: no such trial, it is not complete, or deepsky did not make the study.
    """
    settings = settings_of(study, "name another study")
    trial = _complete_trial(study, number)
    origin = Origin(study=study.study_name, trial=trial.number, run=settings["run"])
    return Selected(origin, settings, trial.params, dict(zip(settings["objectives"], trial.values, strict=True)))


def tuned_name(run: str) -> str:
    """Return the name of the run that a trial of a search of ``run`` becomes."""
    return f"{run.replace('-', '_')}_tuned"


def entry_of(selected: Selected, base: Recipe, own: Mapping[str, Any], tune: TuneParams) -> dict[str, Any]:
    """Return the entry below ``runs`` that trains what a trial trained.

    Args:
        selected: the trial.
        base: recipe of the run that was searched, as params.yaml has it now.
        own: keys of that run's own entry.
        tune: section ``tune``; what the study was begun with counts more.

    Returns:
        Dataset, network, the run's own keys, what was searched, what the run had otherwise when the study began, and
        the origin, as YAML holds them.

    Raises:
        StudyError: the run learns something else now than when the study began.
    """
    own_head = base.network in SCRATCH
    now = base.settings(own_head=own_head)
    then = {key.removeprefix(RECIPE): value for key, value in selected.settings.items() if key.startswith(RECIPE)}
    where = f"study {selected.origin.study}"
    change = next((key for key in ("dataset", "network", "start") if then[key] != now[key]), None)
    if change:
        problem = f"began with {change} {then[change]} of run {selected.origin.run}, now it is {now[change]}"
        raise StudyError(where, problem, "restore that in params.yaml")
    # The space only said what may be drawn; with sampler grid it would have to be a grid today, too.
    begun = {key: selected.settings[key] for key in ("epochs", "patience", "seed")} | {"sampler": "random"}
    try:
        candidate = candidate_of(selected.params, replace(tune, **begun), build(now | then, Recipe, where))
    except KeyError as error:
        problem = f"has no {error.args[0]}, which run {selected.origin.run} now would be searched by"
        raise StudyError(where, problem, "restore the run in params.yaml") from error
    changed = {key for key, value in then.items() if value != now.get(key)}
    changed |= {"epochs", "patience", "seed", *changed_keys(selected.params)}
    trained = candidate.settings(own_head=own_head)
    entry = {"dataset": base.dataset, "network": base.network, **own}
    entry |= {key: value for key, value in trained.items() if key in changed}
    plain: dict[str, Any] = json.loads(json.dumps(entry | {"origin": asdict(selected.origin)}))
    return plain


def _complete_trial(study: Study, number: int | None) -> FrozenTrial:
    where = f"study {study.study_name}"
    if number is None:
        best = best_trial(study)
        if best is None:
            raise StudyError(where, "has no complete trial", "go on with it by make tune")
        return best
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    if number not in trials:
        raise StudyError(where, f"has no trial {number}", f"it has {len(trials)}, counted from 0")
    if trials[number].state != TrialState.COMPLETE:
        state = trials[number].state.name.lower()
        raise StudyError(f"{where}, trial {number}", f"is not complete ({state})", "name another, or none for the best")
    return trials[number]
