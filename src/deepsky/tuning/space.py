"""The search space: the parameters of a trial <-> those of a fit."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, TypeVar

from optuna.trial import BaseTrial

from deepsky.training.fit import FitParams, TrainParams
from deepsky.tuning.params import Dimension, FloatRange, HeadSpace, IntRange, TuneParams

P = TypeVar("P", bound=FitParams)
Choose = Callable[[str, Dimension], Any]  # name and dimension of a parameter -> its value


def suggest(trial: BaseTrial, params: TuneParams, reference: P) -> P:
    """Let a trial choose a candidate.

    Args:
        trial: chooses.
        params: space, epochs, patience and seed.
        reference: of the candidate's kind; what is not searched comes from it.
    """
    return _candidate(lambda name, dimension: _suggested(trial, name, dimension), params, reference)


def candidate_of(trial_params: Mapping[str, Any], params: TuneParams, reference: P) -> P:
    """Return the candidate that the parameters of a trial stand for."""
    return _candidate(lambda name, _: trial_params[name], params, reference)


def params_of(candidate: FitParams, params: TuneParams) -> dict[str, Any] | None:
    """Return the parameters of the trial that comes nearest to a candidate: numbers outside a range go to its end.

    None where one of its choices is not in the space, or its number of layers.
    """
    known, found = asdict(candidate), dict[str, Any]()
    if isinstance(candidate, TrainParams):
        known["layers"] = len(candidate.hidden_units)
        known |= {_units(number): units for number, units in enumerate(candidate.hidden_units, start=1)}

    def choose(name: str, dimension: Dimension) -> Any:
        value = known[name]
        if isinstance(dimension, tuple):
            found[name] = value if value in dimension else None
        else:
            nearest = min(max(value, dimension.low), dimension.high)
            found[name] = nearest if name != "layers" or nearest == value else None
        return value

    _candidate(choose, params, candidate)
    return None if None in found.values() else found


def all_choices(params: TuneParams, reference: FitParams) -> Iterator[dict[str, Any]]:
    """Yield the parameters of every candidate of a space of lists, each once, always in the same order."""
    waiting: list[dict[str, Any]] = [{}]  # first choices; the rest is yet to choose
    while waiting:
        found, given = dict[str, Any](), waiting.pop()

        def choose(name: str, dimension: Dimension, found: Any = found, given: Any = given) -> Any:
            assert isinstance(dimension, tuple)
            if name not in given:
                waiting.extend(
                    {**found, name: other} for other in dict.fromkeys(dimension[1:]) if other != dimension[0]
                )
            found[name] = given.get(name, dimension[0])
            return found[name]

        _candidate(choose, params, reference)
        yield found


def describe_space(params: TuneParams, reference: FitParams) -> dict[str, Any]:
    """Return the searched space as JSON holds it."""
    described: dict[str, Any] = json.loads(json.dumps(asdict(params.space_of(reference))))
    return described


def _candidate(choose: Choose, params: TuneParams, reference: P) -> P:
    """Return a candidate, choosing only what has an effect: no width of a layer that is not there."""
    space, chosen = params.space_of(reference), dict[str, Any]()
    if isinstance(space, HeadSpace):
        n_layers = choose("layers", space.layers)
        chosen["hidden_units"] = tuple(choose(_units(number), space.units) for number in range(1, n_layers + 1))
        for name in ("activation", "dropout", "batch_norm") if n_layers else ():
            chosen[name] = choose(name, getattr(space, name))
        chosen["l2"] = choose("l2", space.l2)
    for name in ("label_smoothing", "optimizer", "learning_rate", "schedule", "batch_size"):
        chosen[name] = choose(name, getattr(space, name))
    for name, optimizer in (("weight_decay", "adamw"), ("momentum", "sgd")):
        if chosen["optimizer"] == optimizer:
            chosen[name] = choose(name, getattr(space, name))
    return replace(reference, **chosen, epochs=params.epochs, patience=params.patience, seed=params.seed)


def _units(number: int) -> str:
    return f"units_{number}"


def _suggested(trial: BaseTrial, name: str, dimension: Dimension) -> Any:
    if isinstance(dimension, IntRange):
        return trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
    if isinstance(dimension, FloatRange):
        return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
    return trial.suggest_categorical(name, dimension)
