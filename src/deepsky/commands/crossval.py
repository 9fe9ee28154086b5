"""Train and test a run in grouped folds of its whole dataset: how good it is, and how much of that is luck."""

import hashlib
import json
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.commands.jobs import MakeJob, job_maker, packed_of, split_of, weights_of
from deepsky.datasets.packed import Packed, open_packed
from deepsky.datasets.splits import cross_validation
from deepsky.errors import ConfigError, DataError, TrackingError, about
from deepsky.evaluation.classes import figures_of
from deepsky.experiment.experiment import read_experiment
from deepsky.experiment.fingerprint import Code
from deepsky.experiment.runs import Run
from deepsky.files import whole_file
from deepsky.interruption import interruptible, status_of, uninterrupted
from deepsky.metrics import score, score_fractions
from deepsky.networks.params import BatchSize
from deepsky.networks.registry import place_of
from deepsky.networks.views import images_at_once
from deepsky.networks.weights_card import read_weights_card
from deepsky.tracking.origin import PARENT_TAG
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import training_run
from deepsky.tracking.studies import StudyRun, open_study_run
from deepsky.tracking.training import LogEpochs
from deepsky.training.job import Job
from deepsky.training.predict import predict_batches
from deepsky.training.record import write_csv

FOLDER = Path("evaluation/crossval")
# What the figures follow from, with the module of the network.
CODE = ("deepsky.training.build", "deepsky.training.view_features", "deepsky.metrics")
_ABOUT_FOLD = ("n_train", "n_test", "seconds")
_Figures = dict[str, float]
MEASURES = {"accuracy": "accuracy", "f1_macro": "macro F1", "rmse": "RMSE"}  # and what they are called in print


@dataclass(frozen=True)
class _Plan:
    """What is to be done.

    Attributes:
        run: what is trained.
        packed: its dataset.
        groups: what of the split's groups each row belongs to.
        splits: ``train``, ``val`` or ``test`` of each row, of each fold.
        digest: of everything that the figures follow from.
        tracking: of its MLflow runs.
        batch_size: images per step where a frozen network sees them.
    """

    run: Run
    packed: Packed
    groups: npt.NDArray[np.str_]
    splits: list[npt.NDArray[np.str_]]
    digest: str
    tracking: TrackingParams
    batch_size: BatchSize

    @property
    def path(self) -> Path:
        """The table of finished folds."""
        return FOLDER / f"{self.run.name}.csv"

    @property
    def measures(self) -> list[str]:
        """Names of the figures."""
        return [name for name in MEASURES if (name == "rmse") == (self.packed.card.target == "fractions")]

    def show(self, number: int, figures: pd.Series, note: str = "") -> None:
        """Print a fold's line."""
        text = ", ".join(f"{MEASURES[name]} {figures[name]:.4f}" for name in self.measures)
        print(f"fold {number} of {len(self.splits)}: {text}, {figures['seconds']:.0f} s{note}", flush=True)


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
        TrackingError: the MLflow store cannot be used.
    """
    plan = _plan(name, n_folds, seed)
    recipe, settings = plan.run.recipe, {**plan.run.settings, "folds": n_folds, "folds_seed": seed}
    tags = {"run": name, "dataset": recipe.dataset, "network": recipe.network}
    parent: StudyRun | None = None
    try:
        with uninterrupted():  # nobody could close a run that is open but not known yet
            parent = open_study_run(plan.tracking.experiment, f"{name}-{plan.digest[:12]}", settings, tags)
        done = _train_missing(plan, parent.run_id)
        summary, text = _summary(plan, done)
        with uninterrupted():
            parent.finish(None, summary)
    except BaseException as error:
        if parent is not None:
            with uninterrupted(), suppress(TrackingError):  # the error itself must stay the one that is reported
                parent.finish(None, {}, status_of(error))
        raise
    print(f"{name}: {text} (mean and standard deviation of {n_folds} folds), {summary['minutes']:.1f} minutes in all")


def _summary(plan: _Plan, done: pd.DataFrame) -> tuple[dict[str, float], str]:
    """Return mean and spread of the folds' figures, by name and in words."""
    figures = done[[*plan.measures, "seconds"]].agg(["mean", "std"])
    named = {f"{name}_{kind}": float(figures.loc[kind, name]) for name in plan.measures for kind in ("mean", "std")}
    words = [f"{MEASURES[name]} {named[f'{name}_mean']:.4f} +- {named[f'{name}_std']:.4f}" for name in plan.measures]
    return {**named, "minutes": done["seconds"].sum() / 60}, ", ".join(words)


def _plan(name: str, n_folds: int, seed: int) -> _Plan:
    if n_folds < 2:
        raise ConfigError(f"--folds {n_folds}", "leaves nothing to train or to test on", "give 2 or more")
    if not 0 <= seed < 2**32:
        raise ConfigError(f"--seed {seed}", "is out of range", f"give 0 to {2**32 - 1}")
    whole = read_experiment()
    run = whole.find(name)
    folder, packed = packed_of(run.recipe), open_packed(packed_of(run.recipe))
    rows, fractions = _grouped_rows(run, packed), whole.split
    val_fraction = fractions.val_fraction / (1 - fractions.test_fraction) if run.recipe.chooses else 0.0
    with about(folder):
        splits = cross_validation(rows, n_folds, seed, val_fraction)
    tracking = whole.tracking.beside("crossval")
    return _Plan(
        run, packed, rows["group"].to_numpy(str), splits, _digest(run, splits), tracking, whole.features.batch_size
    )


def _grouped_rows(run: Run, packed: Packed) -> pd.DataFrame:
    """Return id, label and group of every row."""
    if packed.card.target == "class" and packed.rows["label"].nunique() < 2:
        name, remedy = packed.rows["label"].iloc[0], "add objects of another class"
        raise DataError(packed_of(run.recipe), f"holds one class only, {name}", remedy)
    file, remedy = split_of(run.recipe), f"run dvc repro split@{run.recipe.dataset}"
    try:
        group = pd.read_csv(file, dtype=str, keep_default_na=False).set_index("id")["group"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(file, f"holds no groups ({error})", remedy) from error
    rows = packed.rows[["id", "label"]].assign(group=packed.rows["id"].map(group))
    if rows["group"].isna().any():
        absent = rows.loc[rows["group"].isna(), "id"].iloc[0]
        raise DataError(file, f"lacks object {absent}", remedy)
    return rows


def _train_missing(plan: _Plan, parent_id: str) -> pd.DataFrame:
    """Return the figures of all folds, one row each, in their order."""
    done = _finished(plan)
    for number, figures in done.iterrows():
        plan.show(number, figures, " (done before)")
    todo = [number for number in range(1, len(plan.splits) + 1) if number not in done.index]
    if todo:
        with job_maker(plan.run, plan.packed, np.arange(len(plan.packed.images)), plan.batch_size) as make_job:
            for number in todo:
                figures = _run_fold(plan, number, make_job, parent_id)
                with uninterrupted():
                    done.loc[number] = figures
                    _write_finished(done, plan)
                plan.show(number, figures)
    return done.sort_index()


def _run_fold(plan: _Plan, number: int, make_job: MakeJob, parent_id: str) -> pd.Series:
    """Train and test one fold as a run of its own."""
    keras.utils.clear_session()  # the networks of the folds before
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of networks that are built again and again
    run, started = plan.run, time.perf_counter()
    with uninterrupted():
        job = make_job(plan.splits[number - 1])
    with training_run(
        tracking=plan.tracking,
        name=f"{run.name}-fold{number}",
        dataset=run.recipe.dataset,
        network=run.recipe.network,
        params={**run.settings, "fold": number},
        tags={"run": run.name, "weights": job.weights, "fold": str(number), PARENT_TAG: parent_id},
    ) as tracked:
        job.fit([LogEpochs(tracked)])
        job.calibrate()
        figures, more = _test(job, plan, plan.splits[number - 1])
        figures["seconds"] = time.perf_counter() - started
        more |= _views_gain(job, plan, plan.splits[number - 1], figures)
        scores = {f"test_{name}": value for name, value in (figures | more).items() if name not in _ABOUT_FOLD}
        tracked.log_metrics(scores | {name: figures[name] for name in _ABOUT_FOLD})
    return pd.Series(figures)


def _test(job: Job, plan: _Plan, split: npt.NDArray[np.str_]) -> tuple[_Figures, _Figures]:
    """Score the network, as it would be saved, on the held fold; return the table's figures, and more for the run."""
    network, (images, place) = job.whole, _held_images(plan, split)
    n_at_once = images_at_once(network, plan.run.recipe.batch_size)
    answers = predict_batches(network, plan.packed.images, n_at_once, chosen=images)
    figures, more = _score(plan, split, answers[place])
    return {"n_train": int((split == "train").sum()), "n_test": len(place), **figures}, more


def _views_gain(job: Job, plan: _Plan, split: npt.NDArray[np.str_], figures: _Figures) -> _Figures:
    """Return the first measure of the plain view alone, and how much the mean of the views is better; or nothing."""
    images, place = _held_images(plan, split)
    answers = job.plain_answers(images)
    if answers is None:
        return {}
    (plain, _), name = _score(plan, split, answers[place]), plan.measures[0]
    gain = figures[name] - plain[name]
    return {f"plain_{name}": plain[name], "views_gain": -gain if name == "rmse" else gain}


def _held_images(plan: _Plan, split: npt.NDArray[np.str_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the distinct images of the held rows, and which of them each row shows."""
    return np.unique(plan.packed.rows["image"].to_numpy(np.int64)[split == "test"], return_inverse=True)


def _score(plan: _Plan, split: npt.NDArray[np.str_], answers: npt.NDArray[np.float32]) -> tuple[_Figures, _Figures]:
    """Score answers about the held fold's rows: the plan's measures, and those of each part."""
    packed, held, trained = plan.packed, split == "test", split == "train"
    groups = plan.groups[held]
    if packed.fractions is not None:
        mean = packed.fractions[trained].mean(axis=0)
        errors = score_fractions(packed.fractions[held], answers, mean, groups=groups, where=plan.path)
        return {"rmse": errors.rmse}, {f"rmse_q{number}": error for number, error in errors.per_question.items()}
    labels = packed.rows["label"]
    majority = str(labels[trained].mode()[0])
    told = {"groups": groups, "majority_class": majority, "where": plan.path}
    scores = score(labels.to_numpy()[held], answers, packed.card.classes, **told)
    return {"accuracy": scores.accuracy, "f1_macro": scores.f1_macro}, figures_of(scores)


def _finished(plan: _Plan) -> pd.DataFrame:
    """Return the figures of the folds that were done before, by number; of other parameters or data none counts."""
    columns = ["n_train", "n_test", *plan.measures, "seconds"]
    none = pd.DataFrame(columns=columns, dtype=float)
    try:
        table = pd.read_csv(plan.path, dtype={"digest": str})
        same = table[table["digest"] == plan.digest].set_index("fold")
        return same[columns].astype(float) if len(same) else none
    except FileNotFoundError:
        return none
    except (ValueError, KeyError) as error:
        raise DataError(plan.path, f"is no table of folds ({error})", "delete it to train all folds again") from error


def _write_finished(done: pd.DataFrame, plan: _Plan) -> None:
    """Write the table of finished folds."""
    table = done.sort_index().rename_axis("fold").reset_index().assign(digest=plan.digest)
    with whole_file(plan.path) as path:
        write_csv(table.astype({"fold": int, "n_train": int, "n_test": int}), path)


def _digest(run: Run, splits: list[npt.NDArray[np.str_]]) -> str:
    """Return a hash of all that the figures follow from: settings, folds, weights, code and data."""
    settings = {key: value for key, value in run.settings.items() if key != "origin"}
    code = Code().fingerprint(*CODE, place_of(run.recipe.network))
    digest = hashlib.sha256(json.dumps([settings, code], sort_keys=True).encode())
    for split in splits:
        digest.update("".join(part[:2] for part in split).encode())
    if run.recipe.start == "pretrained":
        digest.update(read_weights_card(weights_of(run.recipe)).sha256.encode())
    packed = packed_of(run.recipe)
    for path in [*sorted(packed.glob("*.npy")), packed / "rows.csv", packed / "dataset.json"]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
