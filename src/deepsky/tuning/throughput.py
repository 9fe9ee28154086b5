"""How many trials are best trained together: time it."""

import time
from dataclasses import replace

import optuna
from optuna import Study
from optuna.samplers import RandomSampler

from deepsky.training.examples import Examples
from deepsky.training.recipe import Recipe
from deepsky.training.trials import Trainer
from deepsky.tuning.params import TuneParams
from deepsky.tuning.space import suggest

SIZES = (1, 4, 16, 64, 256)
_EPOCHS = 2
_WORSE = 0.8  # of the best rate: larger ones will not be better
_ATTRIBUTE = "population"


def population_of(study: Study, params: TuneParams, base: Recipe, trainer: Trainer, examples: Examples) -> int:
    """Return the population of a study: the one it began with, so that its trials stay what they would have been.

    Args:
        study: keeps it.
        params: the number, or ``auto``.
        base: recipe of the run that is searched.
        trainer: trains.
        examples: of one fold.
    """
    if _ATTRIBUTE not in study.user_attrs:
        fastest = fastest_population(params, base, trainer, examples) if params.population == "auto" else None
        if _ATTRIBUTE not in study.user_attrs:  # another worker may have set it meanwhile
            study.set_user_attr(_ATTRIBUTE, fastest or params.population)
    return int(study.user_attrs[_ATTRIBUTE])


def fastest_population(params: TuneParams, base: Recipe, trainer: Trainer, examples: Examples) -> int:
    """Return the size at which the most trials a second are trained, compiling not counted."""
    drawing = optuna.create_study(sampler=RandomSampler(seed=params.seed))
    candidates: list[Recipe] = []
    rates: dict[int, float] = {}
    for size in (size for size in SIZES if size == 1 or size <= params.trials):
        while len(candidates) < size:
            drawn = suggest(drawing.ask(), params, base)
            candidates.append(replace(drawn, epochs=min(_EPOCHS, params.epochs)))
        trainer.train(candidates[:size], examples, lambda index, score: True)
        started = time.perf_counter()
        trainer.train(candidates[:size], examples, lambda index, score: True)
        rates[size] = size / (time.perf_counter() - started)
        if rates[size] < _WORSE * max(rates.values()):
            break
    return max(rates, key=lambda size: rates[size])
