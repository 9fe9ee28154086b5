"""Several trainings of one run, each on a split of its own: those that are finished stand in a table and are kept."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.commands.jobs import MakeJob, job_maker, packed_of, split_of, weights_of
from deepsky.datasets.packed import Packed
from deepsky.errors import DataError, TrackingError
from deepsky.evaluation.classes import figures_of
from deepsky.experiment.fingerprint import Code
from deepsky.experiment.runs import Run
from deepsky.files import whole_file
from deepsky.interruption import status_of, uninterrupted
from deepsky.metrics import score, score_fractions
from deepsky.networks.params import BatchSize
from deepsky.networks.registry import place_of
from deepsky.networks.views import images_at_once
from deepsky.networks.weights_card import read_weights_card
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import training_run
from deepsky.tracking.studies import StudyRun, open_study_run
from deepsky.tracking.training import LogEpochs
from deepsky.training.job import Job
from deepsky.training.predict import predict_batches
from deepsky.training.record import write_csv

# What the figures follow from, with the module of the network.
CODE = ("deepsky.training.build", "deepsky.training.view_features", "deepsky.metrics")
MEASURES = {"accuracy": "accuracy", "f1_macro": "macro F1", "rmse": "RMSE"}  # and what they are called in print
_WHOLE = ("n_train", "n_test", "n_test_groups")
_COUNTED = (*_WHOLE, "seconds")
_Figures = dict[str, float]


@dataclass(frozen=True)
class Trainings:
    """What is to be done.

    Attributes:
        run: what is trained.
        packed: its dataset.
        groups: what of the split's groups each row belongs to.
        column: what the numbers of the trainings are called in the table and in MLflow: ``fold``, ``n_objects``.
        words: what one is called in print, with its number for {}.
        wanted: the numbers of those that are to be there.
        splits: ``train``, ``val`` or ``test`` of each row, or nothing of one that is left out, by number: of those that
            are wanted, and of more that the table may hold.
        digests: of everything that the figures follow from, by number.
        path: the table of finished ones.
        tracking: of their MLflow runs.
        batch_size: images per step where a frozen network sees them.
    """

    run: Run
    packed: Packed
    groups: npt.NDArray[np.str_]
    column: str
    words: str
    wanted: Sequence[int]
    splits: Mapping[int, npt.NDArray[np.str_]]
    digests: Mapping[int, str]
    path: Path
    tracking: TrackingParams
    batch_size: BatchSize

    @property
    def measures(self) -> list[str]:
        """Names of the figures."""
        return [name for name in MEASURES if (name == "rmse") == (self.packed.card.target == "fractions")]

    @property
    def interval(self) -> list[str]:
        """Names of the ends of the first figure's interval."""
        return [f"{self.measures[0]}_low", f"{self.measures[0]}_high"]

    def show(self, number: int, figures: pd.Series, note: str = "") -> None:
        """Print the line of one training."""
        text = ", ".join(f"{MEASURES[name]} {figures[name]:.4f}" for name in self.measures)
        print(f"{self.words.format(number)}: {text}, {figures['seconds']:.0f} s{note}", flush=True)


def train_all(
    plan: Trainings,
    name: str,
    settings: Mapping[str, object],
    summarize: Callable[[pd.DataFrame], Mapping[str, float]],
    draw: Callable[[pd.DataFrame], Path | None] = lambda done: None,
) -> pd.DataFrame:
    """Train what is not finished, each as an MLflow run below one of all.

    Args:
        plan: what is to be done.
        name: of the MLflow run of all.
        settings: its parameters.
        summarize: makes its metrics of the table.
        draw: writes a folder of pictures of the table for it; None where there are none.

    Returns:
        The figures of all that are finished, a row each, by number.

    Raises:
        ConfigError: the recipe does not fit the dataset or the network.
        DataError: the table is none.
        WeightsError: the backbone's weights are missing or do not fit.
        TrackingError: the MLflow store refuses.
    """
    recipe = plan.run.recipe
    tags = {"run": plan.run.name, "dataset": recipe.dataset, "network": recipe.network}
    parent: StudyRun | None = None
    try:
        with uninterrupted():  # nobody could close a run that is open but not known yet
            parent = open_study_run(plan.tracking.experiment, name, settings, tags)
        done = _train_missing(plan, parent)
        with uninterrupted():
            parent.finish(draw(done), dict(summarize(done)))
    except BaseException as error:
        if parent is not None:
            with uninterrupted(), suppress(TrackingError):  # the error itself must stay the one that is reported
                parent.finish(None, {}, status_of(error))
        raise
    return done


def grouped_rows(run: Run, packed: Packed) -> pd.DataFrame:
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


def digests_of(run: Run, splits: Mapping[int, Sequence[npt.NDArray[np.str_]]]) -> dict[int, str]:
    """Return hashes of all that figures follow from: settings, weights, code, data and splits.

    Args:
        run: what is trained.
        splits: those that count, by the number of the training.
    """
    settings = {key: value for key, value in run.settings.items() if key != "origin"}
    code = Code().fingerprint(*CODE, place_of(run.recipe.network))
    common = hashlib.sha256(json.dumps([settings, code], sort_keys=True).encode())
    if run.recipe.start == "pretrained":
        common.update(read_weights_card(weights_of(run.recipe)).sha256.encode())
    packed = packed_of(run.recipe)
    for path in [*sorted(packed.glob("*.npy")), packed / "rows.csv", packed / "dataset.json"]:
        with path.open("rb") as file:
            common.update(hashlib.file_digest(file, "sha256").digest())
    digests = {}
    for number, own in splits.items():
        digest = common.copy()
        for split in own:
            digest.update("".join(f"{part[:2]:2}" for part in split).encode())
        digests[number] = digest.hexdigest()
    return digests


def _train_missing(plan: Trainings, parent: StudyRun) -> pd.DataFrame:
    """Return the figures of all that are finished, one row each, in their order."""
    done = finished(plan)
    for number in plan.wanted:
        if number in done.index:
            plan.show(number, done.loc[number], " (done before)")
    todo = [number for number in plan.wanted if number not in done.index]
    if todo:
        with job_maker(plan.run, plan.packed, np.arange(len(plan.packed.images)), plan.batch_size) as make_job:
            for number in todo:
                figures = _run_one(plan, number, make_job, parent.name)
                with uninterrupted():
                    done.loc[number] = figures
                    _write_finished(done, plan)
                plan.show(number, figures)
    return done.sort_index()


def _run_one(plan: Trainings, number: int, make_job: MakeJob, study: str) -> pd.Series:
    """Train and test on one split as a run of its own."""
    keras.utils.clear_session()  # the networks of those before
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of networks that are built again and again
    run, started = plan.run, time.perf_counter()
    with uninterrupted():
        job = make_job(plan.splits[number])
    with training_run(
        tracking=plan.tracking,
        name=f"{run.name}-{plan.column}{number}",
        dataset=run.recipe.dataset,
        network=run.recipe.network,
        params={**run.settings, plan.column: number},
        tags={"run": run.name, "weights": job.weights, plan.column: str(number)},
        study=study,
    ) as tracked:
        job.fit([LogEpochs(tracked)])
        job.calibrate()
        figures, more = _test(job, plan, plan.splits[number])
        figures["seconds"] = time.perf_counter() - started
        more |= _views_gain(job, plan, plan.splits[number], figures)
        scores = {f"test_{name}": value for name, value in (figures | more).items() if name not in _COUNTED}
        tracked.log_metrics(scores | {name: figures[name] for name in _COUNTED})
    return pd.Series(figures)


def _test(job: Job, plan: Trainings, split: npt.NDArray[np.str_]) -> tuple[_Figures, _Figures]:
    """Score the network, as it would be saved, on the held rows; return the table's figures, and more for the run."""
    network, (images, place) = job.whole, _held_images(plan, split)
    n_at_once = images_at_once(network, plan.run.recipe.batch_size)
    answers = predict_batches(network, plan.packed.images, n_at_once, chosen=images)
    figures, more = _score(plan, split, answers[place])
    return {"n_train": int((split == "train").sum()), "n_test": len(place), **figures}, more


def _views_gain(job: Job, plan: Trainings, split: npt.NDArray[np.str_], figures: _Figures) -> _Figures:
    """Return the first measure of the plain view alone, and how much the mean of the views is better; or nothing."""
    images, place = _held_images(plan, split)
    answers = job.plain_answers(images)
    if answers is None:
        return {}
    (plain, _), name = _score(plan, split, answers[place]), plan.measures[0]
    gain = figures[name] - plain[name]
    return {f"plain_{name}": plain[name], "views_gain": -gain if name == "rmse" else gain}


def _held_images(plan: Trainings, split: npt.NDArray[np.str_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the distinct images of the held rows, and which of them each row shows."""
    return np.unique(plan.packed.rows["image"].to_numpy(np.int64)[split == "test"], return_inverse=True)


def _score(plan: Trainings, split: npt.NDArray[np.str_], answers: npt.NDArray[np.float32]) -> tuple[_Figures, _Figures]:
    """Score answers about the held rows: what the table holds, and the measures of each part."""
    packed, held, trained = plan.packed, split == "test", split == "train"
    groups = plan.groups[held]
    if packed.fractions is not None:
        mean = packed.fractions[trained].mean(axis=0)
        errors = score_fractions(packed.fractions[held], answers, mean, groups=groups, where=plan.path)
        figures = {"rmse": errors.rmse, "rmse_low": errors.rmse_low, "rmse_high": errors.rmse_high}
        figures["n_test_groups"] = errors.n_groups
        return figures, {f"rmse_q{number}": error for number, error in errors.per_question.items()}
    labels = packed.rows["label"]
    majority = str(labels[trained].mode()[0])
    told = {"groups": groups, "majority_class": majority, "where": plan.path}
    scores = score(labels.to_numpy()[held], answers, packed.card.classes, **told)
    names = ("accuracy", "accuracy_low", "accuracy_high", "f1_macro")
    figures = {name: getattr(scores, name) for name in names} | {"n_test_groups": scores.n_groups}
    return figures, figures_of(scores)


def finished(plan: Trainings) -> pd.DataFrame:
    """Return the figures of those that were done before, by number; of other parameters or data none counts.

    Raises:
        DataError: the table is none.
    """
    columns = [*_WHOLE, *plan.measures, *plan.interval, "seconds"]
    none = pd.DataFrame(columns=columns, dtype=float)
    try:
        table = pd.read_csv(plan.path, dtype={"digest": str})
        same = table[table["digest"] == table[plan.column].map(plan.digests)].set_index(plan.column)
        return same[columns].astype(float) if len(same) else none
    except FileNotFoundError:
        return none
    except (ValueError, KeyError) as error:
        raise DataError(plan.path, f"is no table of trainings ({error})", "delete it to train all again") from error


def _write_finished(done: pd.DataFrame, plan: Trainings) -> None:
    """Write the table of finished ones."""
    table = done.sort_index().rename_axis(plan.column).reset_index()
    table["digest"] = table[plan.column].map(plan.digests)
    with whole_file(plan.path) as path:
        write_csv(table.astype(dict.fromkeys((plan.column, *_WHOLE), int)), path)
