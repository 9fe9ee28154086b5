"""Untuned head, tuned head and logistic regression on real MobileNet features, by nested grouped cross-validation.

    python benchmarks/tuned_heads.py WORKSPACE [--trials 64]

WORKSPACE is what `make real` keeps with --workspace: a project with features of galaxy_zoo1 and kaggle_galaxy_zoo. Each
of five outer folds is held out once; the search sees the others only and judges by the cross-entropy of three inner
folds. All three are fitted on all rows of the other folds: the untuned head for its ten epochs, the tuned head for as
many as its inner folds kept on average. What is printed is accuracy on the held-out folds.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import optuna
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from deepsky.datasets.packed import open_packed
from deepsky.datasets.splits import fold_splits
from deepsky.experiment.experiment import read_experiment
from deepsky.training.batches import TrainBatches
from deepsky.training.examples import Examples, examples_of
from deepsky.training.fit import Phase, fit_phases
from deepsky.training.population import HeadTrainer
from deepsky.training.recipe import Recipe
from deepsky.training.trials import head_of
from deepsky.training.view_features import read_views
from deepsky.tuning.objective import Objective, Result
from deepsky.tuning.params import TuneParams
from deepsky.tuning.sampling import decision_steps, make_pruner, make_sampler
from deepsky.tuning.space import candidate_of, params_of, suggest

OUTER, INNER = 5, 3
DATASETS = ("galaxy_zoo1", "kaggle_galaxy_zoo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--trials", type=int, default=64)
    options = parser.parse_args()
    experiment = read_experiment()
    base = experiment.run("sdss_cutouts-mobilenet")  # for its numbers, which all heads on features begin with
    params = replace(experiment.tune, trials=options.trials, folds=INNER, repeats=1, objectives=("cross_entropy",))
    trainer = HeadTrainer()
    print(f"{'dataset':20}{'logistic regression':>22}{'untuned head':>22}{'tuned head':>22}{'search':>10}")
    for dataset in DATASETS:
        examples, groups = read(options.workspace, dataset, base)
        figures, seconds = [], 0.0
        outer = StratifiedGroupKFold(OUTER, shuffle=True, random_state=params.seed)
        for rest, held in outer.split(examples.labels, examples.labels, groups):
            started = time.perf_counter()
            best = search(examples, groups, rest, params, base, trainer)
            seconds += time.perf_counter() - started
            figures.append(
                [
                    regression_accuracy(examples, rest, held),
                    head_accuracy(base, examples, rest, held),
                    head_accuracy(best, examples, rest, held),
                ]
            )
        middle, spread = np.mean(figures, axis=0), np.std(figures, axis=0, ddof=1)
        cells = "".join(f"{f'{a:.3f} +- {b:.3f}':>22}" for a, b in zip(middle, spread, strict=True))
        print(f"{dataset:20}{cells}{seconds / OUTER:>8.0f} s", flush=True)
        print("    per fold: " + "; ".join(" ".join(f"{value:.3f}" for value in row) for row in figures), flush=True)


def read(workspace: Path, dataset: str, base: Recipe) -> tuple[Examples, np.ndarray]:
    packed = open_packed(workspace / "data/packed" / dataset)
    views = read_views(workspace / "data/features" / dataset / "mobilenet" / base.views.name, len(packed.images))
    table = pd.read_csv(workspace / "data/splits" / f"{dataset}.csv", dtype=str).set_index("id")
    groups = packed.rows["id"].map(table["group"]).to_numpy(str)
    return examples_of(packed, np.full(len(groups), "test"), views.plain), groups


def splits_of(examples: Examples, groups: np.ndarray, rest: np.ndarray, n_folds: int, seed: int) -> list[Examples]:
    """Return the examples with train and val among ``rest`` only, once per fold."""
    split = np.where(np.isin(np.arange(len(examples.labels)), rest), "train", "test")
    return [replace(examples, split=one) for one in fold_splits(split, examples.labels, groups, n_folds, seed)]


def search(
    examples: Examples, groups: np.ndarray, rest: np.ndarray, params: TuneParams, base: Recipe,
    trainer: HeadTrainer,
) -> Recipe:  # fmt: skip
    """Search as `deepsky tune run` does, without a database."""
    folds = splits_of(examples, groups, rest, INNER, params.seed)
    objective = Objective(params, trainer, folds)
    study = optuna.create_study(direction="minimize", sampler=make_sampler(params, base), pruner=make_pruner(params))
    if first := params_of(base, params):
        study.enqueue_trial(first)
    steps = decision_steps(params)
    while len(study.trials) < params.trials:
        size = min(16, params.trials - len(study.trials))
        trials: Sequence[optuna.Trial] = [study.ask() for _ in range(size)]
        candidates = [suggest(trial, params, base) for trial in trials]

        def on_step(index: int, step: int, value: float, trials: Sequence[optuna.Trial] = trials) -> bool:
            if step not in steps:
                return True
            trials[index].report(value, step)
            return not trials[index].should_prune()

        results = dict[int, Result]()
        objective.judge(candidates, on_step, results.__setitem__)
        for index, trial in enumerate(trials):
            study.tell(trial, results[index].values or None, state=optuna.trial.TrialState[results[index].state])
    best = candidate_of(study.best_trial.params, params, base)
    outcomes = [trainer.train([best], fold, lambda number, score: True)[0] for fold in folds]
    return replace(best, epochs=round(mean(outcome.kept(best).epoch for outcome in outcomes)))


def head_accuracy(recipe: Recipe, examples: Examples, rest: np.ndarray, held: np.ndarray) -> float:
    """Fit on the other folds and answer on the held-out one, whose rows are watched but change nothing."""
    fitted = replace(examples, split=np.where(np.isin(np.arange(len(examples.labels)), rest), "train", "val"))
    head = head_of(recipe, examples.inputs.shape[1], examples.targets.shape[1])
    phase = Phase(replace(recipe, keep="last", patience=None))
    fit_phases(head, head, fitted, [phase], lambda one, first: TrainBatches(fitted, one, first))
    answers = head.predict(examples.inputs_of(held), verbose=0).argmax(axis=1)
    return float((answers == examples.labels[held]).mean())


def regression_accuracy(examples: Examples, rest: np.ndarray, held: np.ndarray) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    model.fit(examples.inputs_of(rest), examples.labels[rest])
    return float((model.predict(examples.inputs_of(held)) == examples.labels[held]).mean())


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    main()
