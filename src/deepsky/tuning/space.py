"""The search space: the parameters of a trial <-> a recipe."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from optuna.trial import BaseTrial

from deepsky.training.recipe import Recipe
from deepsky.tuning.params import Dimension, FloatRange, HeadSpace, ImageSpace, IntRange, TuneParams, searched_keys

Choose = Callable[[str, Dimension], Any]  # name and dimension of a parameter -> its value


def suggest(trial: BaseTrial, params: TuneParams, base: Recipe) -> Recipe:
    """Let a trial choose a candidate.

    Args:
        trial: chooses.
        params: space, epochs, patience and seed.
        base: recipe of the run that is searched; what is not searched comes from it.
    """
    return _candidate(lambda name, dimension: _suggested(trial, name, dimension), params, base)


def candidate_of(trial_params: Mapping[str, Any], params: TuneParams, base: Recipe) -> Recipe:
    """Return the candidate that the parameters of a trial stand for."""
    return _candidate(lambda name, _: trial_params[name], params, base)


def params_of(base: Recipe, params: TuneParams) -> dict[str, Any] | None:
    """Return the parameters of the trial that comes nearest to a run: numbers outside a range go to its end.

    None where one of its choices is not in the space, or its number of layers.
    """
    known, found = asdict(base) | {"augment_strength": 1.0}, dict[str, Any]()
    known["layers"] = len(base.hidden_units)
    known |= {_units(number): units for number, units in enumerate(base.hidden_units, start=1)}

    def choose(name: str, dimension: Dimension) -> Any:
        value = known[name]
        if isinstance(dimension, tuple):
            found[name] = value if value in dimension else None
        else:
            nearest = min(max(value, dimension.low), dimension.high)
            found[name] = nearest if name != "layers" or nearest == value else None
        return value

    _candidate(choose, params, base)
    return None if None in found.values() else found


def replaced_keys(params: TuneParams, base: Recipe) -> set[str]:
    """Return the keys of a recipe that some candidate may have from the search and not from the run."""
    names = {
        "epochs",
        "patience",
        *([] if _keeps_seed(base) else ["seed"]),
        *(["hidden_units"] if base.of_head else []),
    }
    return names | set(searched_keys(params.space_of(base), base))  # the strength only multiplies the run's own augment


def changed_keys(trial_params: Mapping[str, Any]) -> set[str]:
    """Return the keys of a recipe that a trial has chosen."""
    keys = {"hidden_units" if name == "layers" or name.startswith(_units("")) else name for name in trial_params}
    return {"augment" if name == "augment_strength" else name for name in keys}


def all_choices(params: TuneParams, base: Recipe) -> Iterator[dict[str, Any]]:
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

        _candidate(choose, params, base)
        yield found


def describe_space(params: TuneParams, base: Recipe) -> dict[str, Any]:
    """Return the searched space as JSON holds it."""
    space = params.space_of(base)
    described, searched = json.loads(json.dumps(asdict(space))), searched_keys(space, base)
    return {name: described[name] for name in searched}


def _candidate(choose: Choose, params: TuneParams, base: Recipe) -> Recipe:
    """Return a candidate, choosing only what has an effect: no width of a layer that is not there."""
    space, chosen = params.space_of(base), dict[str, Any]()
    searched = searched_keys(space, base)
    if isinstance(space, HeadSpace):
        n_layers = choose("layers", space.layers)
        chosen["hidden_units"] = tuple(choose(_units(number), space.units) for number in range(1, n_layers + 1))
        for name in ("activation", "dropout", "batch_norm") if n_layers else ():
            chosen[name] = choose(name, getattr(space, name))
        chosen["l2"] = choose("l2", space.l2)
    for name in ("label_smoothing", "optimizer", "learning_rate", "schedule", "batch_size", "learn"):
        if name in searched:
            chosen[name] = choose(name, getattr(space, name))
    for name, optimizer in (("weight_decay", "adamw"), ("momentum", "sgd")):
        if chosen["optimizer"] == optimizer:
            chosen[name] = choose(name, getattr(space, name))
    if isinstance(space, ImageSpace) and "augment_strength" in searched:
        chosen["augment"] = base.augment.times(choose("augment_strength", space.augment_strength))
    seed = base.seed if _keeps_seed(base) else params.seed
    return replace(base, **chosen, epochs=params.epochs, patience=params.patience, seed=seed, origin=None)


def _keeps_seed(base: Recipe) -> bool:
    """Tell whether the candidates are fitted with the run's seed: the one that drew the views they learn from."""
    return base.of_head and base.n_views > 0


def _units(number: int | str) -> str:
    return f"units_{number}"


def _suggested(trial: BaseTrial, name: str, dimension: Dimension) -> Any:
    if isinstance(dimension, IntRange):
        return trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
    if isinstance(dimension, FloatRange):
        return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
    return trial.suggest_categorical(name, dimension)
