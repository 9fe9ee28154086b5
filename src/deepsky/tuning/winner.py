"""The trial of a study to adopt, as the fit that it stands for."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from deepsky.config import PARAMS, read_entries, read_section
from deepsky.errors import ConfigError, StudyError
from deepsky.training.fit import FitParams, ScratchParams, TrainParams
from deepsky.tuning.adopted import Adopted
from deepsky.tuning.params import TuneParams
from deepsky.tuning.space import candidate_of
from deepsky.tuning.study import best_trial


@dataclass(frozen=True)
class Winner:
    """A trial to adopt.

    Attributes:
        adopted: where it comes from.
        fit: what was fitted; TrainParams for a head.
        values: of the objectives, by name.
    """

    adopted: Adopted
    fit: FitParams
    values: Mapping[str, float]


def winner_of(study: Study, number: int | None, tune: TuneParams) -> Winner:
    """Return a complete trial of a study: the one with the best first objective, or the one named.

    Args:
        study: the search.
        number: of the trial; None takes the best.
        tune: section ``tune``; what the study was begun with counts more.

    Raises:
        StudyError: no such trial, it is not complete, or deepsky did not make the study.
        ConfigError: params.yaml has the study's dataset or network no longer.
    """
    settings = study.user_attrs.get("settings")
    if settings is None:
        raise StudyError(f"study {study.study_name}", "has no settings: deepsky did not make it", "name another study")
    trial, dataset, network = _complete_trial(study, number), settings["dataset"], settings["network"]
    if dataset not in read_entries("datasets"):
        raise ConfigError(f"{PARAMS}: datasets", f"has no {dataset!r}, which the study is about", "put it back")
    # The space only said what may be drawn; with sampler grid it would have to be a grid today, too.
    begun = {key: settings[key] for key in ("epochs", "patience", "seed")} | {"sampler": "random"}
    reference = replace(_reference(network), **_own_settings(settings))
    adopted = Adopted(dataset=dataset, network=network, study=study.study_name, trial=trial.number)
    fit = candidate_of(trial.params, replace(tune, **begun), reference)
    return Winner(adopted, fit, dict(zip(settings["objectives"], trial.values, strict=True)))


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


def _reference(network: str) -> FitParams:
    if network in read_entries("backbones"):
        return read_section("train", TrainParams)
    if network in read_entries("scratch"):
        return read_section(f"scratch.{network}", ScratchParams)
    raise ConfigError(f"{PARAMS}: backbones", f"has no {network!r}, which the study is about", "put it back")


def _own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the trials took from the reference of their time."""
    names = ((key.partition("reference."), value) for key, value in settings.items())
    return {name: value for (_, found, name), value in names if found}
