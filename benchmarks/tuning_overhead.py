"""What Optuna and MLflow cost per trial, as a share of what training it costs, and asking in a large study.

    python benchmarks/tuning_overhead.py

A study in SQLite and its MLflow run are filled with 1,000 and then 10,000 trials; populations of 16 are then asked,
reported, told and logged without being trained. Training is timed on 640 rows of 1024 drawn features: the median of
populations whose programs are compiled.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import optuna
from population import draw, make_examples

from deepsky.experiment.experiment import read_experiment
from deepsky.tracking.studies import TrialRecord, open_study_run
from deepsky.training.population import HeadTrainer
from deepsky.training.recipe import Recipe
from deepsky.tuning.database import quiet
from deepsky.tuning.params import TuneParams
from deepsky.tuning.sampling import decision_steps
from deepsky.tuning.space import suggest
from deepsky.tuning.study import meaning_of, open_study

POPULATION, N_ROUNDS = 16, 3
RUN = "sdss_cutouts-mobilenet"


def main() -> None:
    experiment = read_experiment()
    params, base = experiment.tune, experiment.run(RUN)
    training_s = trial_s(replace(params, epochs=10))
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        root, before = Path(name), Path.cwd()
        (root / "dvc.yaml").write_text("stages: {}\n")
        os.chdir(root)
        study = open_study("overhead", params, base, meaning_of(RUN, params, base, {}))
        tracked = open_study_run("overhead", "overhead", {}, {})
        for n_stored in (1000, 10_000):
            fill(study, n_stored - len(study.trials), params, base, rng)
            ask_s, rest_s = one_population(study, tracked, params, base, rng)
            overhead = (ask_s + rest_s) / (ask_s + rest_s + training_s)
            print(f"{n_stored} stored trials: ask {1000 * ask_s:.0f} ms, report, tell and log {1000 * rest_s:.0f} ms")
            print(f"{n_stored} stored trials: {overhead:.1%} of the search (target < 10 % at 1,000), training takes "
                  f"{1000 * training_s:.0f} ms a trial; ask target < 50 ms at 10,000", flush=True)  # fmt: skip
        os.chdir(before)


def trial_s(params: TuneParams) -> float:
    trainer, examples, times_s = HeadTrainer(), make_examples(), []
    for heads in draw(POPULATION, N_ROUNDS):
        trainer.train(heads, examples, lambda number, score: True)  # compiles
        started = time.perf_counter()
        trainer.train(heads, examples, lambda number, score: True)
        times_s.append((time.perf_counter() - started) / POPULATION)
    return median(times_s)


def fill(study: optuna.Study, n_trials: int, params: TuneParams, base: Recipe, rng: np.random.Generator) -> None:
    """Add finished trials at once, half of them pruned."""
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=n_trials), direction="maximize")
    for _ in range(n_trials):
        trial = drawn.ask()
        suggest(trial, params, base)
        if rng.random() < 0.5:
            trial.report(rng.random(), 1)
            drawn.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            drawn.tell(trial, rng.random())
    study.add_trials(drawn.trials)


def one_population(
    study: optuna.Study, tracked: object, params: TuneParams, base: Recipe, rng: np.random.Generator
) -> tuple[float, float]:
    """Return seconds per trial of asking, and of all that follows."""
    asked_s, rest_s = [], []
    for _ in range(N_ROUNDS):
        study._storage.refresh()
        study.get_trials(deepcopy=False)  # a worker looks once per population
        started = time.perf_counter()
        with quiet():
            trials = [study.ask() for _ in range(POPULATION)]
            candidates = [suggest(trial, params, base) for trial in trials]
        asked_s.append((time.perf_counter() - started) / POPULATION)
        started = time.perf_counter()
        records = [finish(study, *pair, params, rng) for pair in zip(trials, candidates, strict=True)]
        tracked.log_trials(records)  # type: ignore[attr-defined]
        rest_s.append((time.perf_counter() - started) / POPULATION)
    return median(asked_s), median(rest_s)


def finish(
    study: optuna.Study, trial: optuna.Trial, candidate: Recipe, params: TuneParams, rng: np.random.Generator
) -> TrialRecord:
    state = optuna.trial.TrialState.COMPLETE
    for step in sorted(decision_steps(params)):
        trial.report(rng.random(), step)
        if trial.should_prune():
            state = optuna.trial.TrialState.PRUNED
            break
    curve = [(epoch, {"val_loss": 0.1, "val_accuracy": 0.2, "val_f1_macro": 0.3}) for epoch in range(1, 11)]
    trial.set_user_attr("curve", curve)
    study.tell(trial, None if state.name == "PRUNED" else rng.random(), state=state)
    now_ms = int(1000 * time.time())
    return TrialRecord(
        trial.number, state.name, now_ms, now_ms, candidate.settings(own_head=False), curve, {"f1_macro": 0.5}
    )


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    main()
