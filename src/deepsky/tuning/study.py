"""A study: a search kept in the database, with what its trials mean."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna import Study
from optuna.exceptions import DuplicatedStudyError
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from deepsky.errors import StudyError
from deepsky.networks.registry import SCRATCH
from deepsky.tracking.secrets import masked
from deepsky.training.recipe import Recipe
from deepsky.tuning.database import WorkerStorage, open_database, study_errors
from deepsky.tuning.params import TuneParams
from deepsky.tuning.sampling import make_pruner, make_sampler
from deepsky.tuning.space import describe_space, params_of, replaced_keys

MAXIMIZED = ("f1_macro", "accuracy")
RECIPE = "recipe."  # begins the settings that come from the run's recipe
REASON = "reason"  # user attribute of a failed trial
_ATTRIBUTES = ("settings", "space", "data")
# What may change from one call to the next without changing what a trial means.
_FREE = ("run", "trials", "population", "backend", "storage", "heartbeat_s", "heads", "images")


@dataclass(frozen=True)
class Meaning:
    """What the trials of a study mean; as JSON holds it.

    Attributes:
        settings: the run, and all of section ``tune`` and of the run's recipe that shapes a trial's result.
        space: what is searched.
        data: md5 of each input by its path.
    """

    settings: Mapping[str, Any]
    space: Mapping[str, Any]
    data: Mapping[str, str]


def meaning_of(run: str, params: TuneParams, base: Recipe, data: Mapping[str, str]) -> Meaning:
    """Return what the trials of a search mean.

    Args:
        run: that is searched.
        params: section ``tune``.
        base: the run's recipe.
        data: md5 of each input by its path.
    """
    fixed = {key: value for key, value in asdict(params).items() if key not in _FREE}
    fixed["objectives"] = list(params.objectives)
    chosen = replaced_keys(params, base) | {"origin"}
    settings = base.settings(own_head=base.network in SCRATCH)
    kept = {f"{RECIPE}{key}": value for key, value in settings.items() if key not in chosen}
    return Meaning({"run": run, **fixed, **kept}, describe_space(params, base), data)


def open_study(name: str, params: TuneParams, base: Recipe, meaning: Meaning) -> Study:
    """Open a study to go on with it, or create it; any number of workers may at once.

    Args:
        name: of the study.
        params: section ``tune``.
        base: the run's recipe; becomes the first trial, as near as the space comes to it.
        meaning: what the trials would mean.

    Raises:
        StudyError: the database cannot be used, or the study's trials mean something else.
        ConfigError: the sampler cannot search this space.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise StudyError(f"study {name!r}", "is no name of a study", "use letters, digits, _, . and -")
    sampler = make_sampler(params, base)
    storage = open_database(params.storage, heartbeat_s=params.heartbeat_s, create=True)
    with study_errors(params.storage):
        with suppress(DuplicatedStudyError):
            _create(storage, name, params, base)
        study = optuna.load_study(study_name=name, storage=storage, sampler=sampler, pruner=make_pruner(params))
        if not any(trial.state != TrialState.WAITING for trial in study.get_trials(deepcopy=False)):
            # Whoever comes first; workers that begin together write the same.
            for attribute in set(_ATTRIBUTES) - set(study.user_attrs):
                study.set_user_attr(attribute, dict(getattr(meaning, attribute)))
    _compare(study, meaning)
    return study


def load_study(name: str, storage: str, sampler: BaseSampler | None = None) -> Study:
    """Open a study to read it.

    Args:
        name: of the study.
        storage: URL of the database.
        sampler: of trials to come.

    Raises:
        StudyError: the database cannot be used, or has no such study.
    """
    database = open_database(storage)
    with study_errors(storage):
        names = optuna.get_all_study_names(database)
        if name not in names:
            known = f"it has {', '.join(names)}" if names else "it has none yet: run make tune"
            raise StudyError(f"{masked(storage)}: study {name}", "does not exist", known)
        return optuna.load_study(study_name=name, storage=database, sampler=sampler)


def is_done(trial: FrozenTrial) -> bool:
    """Tell whether a trial counts: complete, pruned or diverged; not one whose worker died."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or (
        trial.state == TrialState.FAIL and REASON in trial.user_attrs
    )


def best_trial(study: Study) -> FrozenTrial | None:
    """Return the complete trial with the best first objective, the earliest of equals; None where none is complete."""
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1
    return min(complete, key=lambda trial: (sign * trial.values[0], trial.number), default=None)


def settings_of(study: Study, remedy: str) -> dict[str, Any]:
    """Return the settings that a study remembers.

    Args:
        study: of the database.
        remedy: what to do about one that cannot be used.

    Raises:
        StudyError: deepsky did not make it, or one that knew no runs.
    """
    settings: dict[str, Any] | None = study.user_attrs.get("settings")
    if settings is None:
        raise StudyError(f"study {study.study_name}", "has no settings: deepsky did not make it", remedy)
    if "run" not in settings:
        raise StudyError(f"study {study.study_name}", "was made by an older deepsky, which knew no runs", remedy)
    return settings


@dataclass(frozen=True)
class Summary:
    """A line about a study.

    Attributes:
        name: of the study.
        n_done: trials that are complete, pruned or diverged.
        objective: name of the first objective.
        best: its best value; None where no trial is complete.
        best_trial: number of that trial.
    """

    name: str
    n_done: int
    objective: str
    best: float | None
    best_trial: int | None


def summaries(storage: str) -> list[Summary]:
    """Return a line about each study of a database.

    Raises:
        StudyError: the database cannot be used.
    """
    database, found = open_database(storage), []
    with study_errors(storage):
        for name in optuna.get_all_study_names(database):
            study = optuna.load_study(study_name=name, storage=database)
            best, n_done = best_trial(study), sum(map(is_done, study.get_trials(deepcopy=False)))
            objective = study.user_attrs.get("settings", {}).get("objectives", ["value"])[0]
            found.append(Summary(name, n_done, objective, best and best.values[0], best and best.number))
        database.close()
    return found


def serve_dashboard(storage: str, host: str, port: int) -> None:
    """Serve optuna-dashboard until Ctrl-C.

    Raises:
        StudyError: the database cannot be used, or the port is taken.
    """
    from optuna_dashboard import run_server  # type: ignore[import-untyped]  # slow to import

    database = open_database(storage)
    print(f"open http://{host}:{port}/dashboard/   (Ctrl-C stops)", flush=True)
    run_server(database._backend, host=host, port=port)  # which always reads what is there now


def _create(storage: WorkerStorage, name: str, params: TuneParams, base: Recipe) -> None:
    directions = ["maximize" if objective in MAXIMIZED else "minimize" for objective in params.objectives]
    study = optuna.create_study(study_name=name, storage=storage, directions=directions)
    first = params_of(base, params)
    if first is not None and params.sampler != "grid":  # the grid holds it anyway
        study.enqueue_trial(first)


def _compare(study: Study, meaning: Meaning) -> None:
    where, remedy = f"study {study.study_name}", "give --study another name"
    settings_of(study, remedy)
    for attribute in _ATTRIBUTES:
        then, now = study.user_attrs.get(attribute), getattr(meaning, attribute)
        if then is None:
            raise StudyError(where, f"has no {attribute}: deepsky did not make it", remedy)
        key = next((key for key in [*then, *now] if then.get(key) != now.get(key)), None)
        if key is None:
            continue
        change = f"began with {key} {json.dumps(then.get(key))}, now it is {json.dumps(now.get(key))}"
        if attribute == "data":
            raise StudyError(where, change, "run dvc pull or dvc repro to get its data, or give --study another name")
        raise StudyError(where, change, "restore that in params.yaml, or give --study another name")
