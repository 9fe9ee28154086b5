"""Train and test a run in grouped folds of its whole dataset: how good it is, and how much of that is luck."""

from pathlib import Path

import pandas as pd

from deepsky.commands.jobs import packed_of
from deepsky.commands.trainings import MEASURES, Trainings, digests_of, grouped_rows, train_all
from deepsky.datasets.packed import open_packed
from deepsky.datasets.splits import cross_validation
from deepsky.errors import ConfigError, about
from deepsky.experiment.experiment import read_experiment
from deepsky.interruption import interruptible
from deepsky.lean_keras import compute_deterministically

FOLDER = Path("evaluation/crossval")


@interruptible()
def run(name: str, n_folds: int, seed: int) -> None:
    """Train on all folds but one and test on that one, for every fold; print each fold's figures, mean and spread.

    The held fold chooses nothing: where the run keeps the best weights or stops by patience, val rows are taken
    from the other folds, else all rows of these are trained on. A finished fold stands in evaluation/crossval/RUN.csv
    and is not trained again as long as its settings, data and folds stay what they were.

    Args:
        name: of the run.
        n_folds: at least 2.
        seed: of the assignment of groups to folds.

    Raises:
        ConfigError: an argument, or a value of params.yaml, is wrong or does not fit the dataset.
        DataError: the dataset is not there, has one class only, or a class lies in too few groups.
        WeightsError: the backbone's weights are missing or do not fit.
        TrackingError: the MLflow store refuses.
    """
    plan = _plan(name, n_folds, seed)
    settings = {**plan.run.settings, "folds": n_folds, "folds_seed": seed}
    done = train_all(plan, f"{name}-{plan.digests[1][:12]}", settings, lambda folds: _summary(plan, folds)[0])
    summary, text = _summary(plan, done)
    print(f"{name}: {text} (mean and standard deviation of {n_folds} folds), {summary['minutes']:.1f} minutes in all")


def _summary(plan: Trainings, done: pd.DataFrame) -> tuple[dict[str, float], str]:
    """Return mean and spread of the folds' figures, by name and in words."""
    figures = done[[*plan.measures, "seconds"]].agg(["mean", "std"])
    named = {f"{name}_{kind}": float(figures.loc[kind, name]) for name in plan.measures for kind in ("mean", "std")}
    words = [f"{MEASURES[name]} {named[f'{name}_mean']:.4f} +- {named[f'{name}_std']:.4f}" for name in plan.measures]
    return {**named, "minutes": done["seconds"].sum() / 60}, ", ".join(words)


def _plan(name: str, n_folds: int, seed: int) -> Trainings:
    if n_folds < 2:
        raise ConfigError(f"--folds {n_folds}", "leaves nothing to train or to test on", "give 2 or more")
    if not 0 <= seed < 2**32:
        raise ConfigError(f"--seed {seed}", "is out of range", f"give 0 to {2**32 - 1}")
    whole = read_experiment()
    compute_deterministically(whole.deterministic)
    run = whole.find(name)
    folder, packed = packed_of(run.recipe), open_packed(packed_of(run.recipe))
    rows, fractions = grouped_rows(run, packed), whole.split
    val_fraction = fractions.val_fraction / (1 - fractions.test_fraction) if run.recipe.chooses else 0.0
    with about(folder):
        splits = cross_validation(rows, n_folds, seed, val_fraction)
    folds = range(1, n_folds + 1)
    return Trainings(
        run=run,
        packed=packed,
        groups=rows["group"].to_numpy(str),
        column="fold",
        words=f"fold {{}} of {n_folds}",
        wanted=folds,
        splits=dict(zip(folds, splits, strict=True)),
        digests=digests_of(run, dict.fromkeys(folds, splits)),
        path=FOLDER / f"{name}.csv",
        tracking=whole.tracking.beside("crossval"),
        batch_size=whole.features.batch_size,
    )
