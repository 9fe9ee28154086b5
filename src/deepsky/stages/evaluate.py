"""Stage evaluate: score every trained run, draw it, and complete its MLflow run."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from deepsky import progress
from deepsky.errors import DataError
from deepsky.evaluation import audit
from deepsky.evaluation.album import album_json, make_album
from deepsky.evaluation.classes import evaluate_classes
from deepsky.evaluation.examples import example_groups
from deepsky.evaluation.folders import (
    evaluation_key,
    kept_scores,
    remove_others,
    write_evaluation,
    write_json,
    write_scores,
)
from deepsky.evaluation.fractions import evaluate_fractions
from deepsky.evaluation.head_baselines import KEPT as BASELINES
from deepsky.evaluation.head_baselines import Figures, head_baselines, read_baselines
from deepsky.evaluation.paired import compare
from deepsky.evaluation.params import EvaluateParams
from deepsky.evaluation.pictured import Pictured, open_pictured
from deepsky.evaluation.planned import Places, PlannedRun, in_words, trained_runs
from deepsky.evaluation.restored import restore_run
from deepsky.evaluation.trained import MEASURES, Trained, read_trained
from deepsky.files import whole_folder
from deepsky.intervals import unreliable
from deepsky.parallel import mapped
from deepsky.tracking import runs as store
from deepsky.tracking.journal import deliver_waiting
from deepsky.tracking.store import without_if_away

SUMMARY, PAIRED, ALBUM = "summary.json", "paired.json", "examples.json"
_EVALUATED = f"{store.HIDDEN}evaluated"
FEW = 8  # so many runs are drawn in the time in which processes start


def run(
    runs: Sequence[PlannedRun],
    params: EvaluateParams,
    experiment: str,
    places: Places,
    *,
    metrics: Path,
    plots: Path,
    code: str = "",
) -> None:
    """Score each run of the plan that was trained as planned, a tuned one beside its reference.

    What did not change since ``out`` was written is left alone; the files are the same as if it were made again.

    Args:
        runs: every run of the plan.
        params: section ``evaluate``.
        experiment: MLflow's; a run that is not there (its outputs came from the DVC cache) is made from the files.
        places: what is read; and ``out``, which gets DATASET/LABEL/ of every run, baselines.json, paired.json, and
            summary.json, which also names the runs left out.
        metrics: folder to write: DATASET.json with one figure for each of its runs.
        plots: folder to write: curves/RUN.csv, loss/RUN.csv and confusion/RUN.csv.
        code: fingerprint of the code that evaluates.

    Raises:
        DataError: no run was trained as planned, or a folder does not hold what stage train writes.
        TrackingError: the MLflow store refuses.
    """
    trained, out = places.trained, places.out
    there, left_out = trained_runs(runs, trained)
    if left_out and not there:
        problem = f"holds none of the {len(left_out)} runs of params.yaml as they are planned"
        raise DataError(trained, problem, "run dvc repro to train them")
    (out / SUMMARY).unlink(missing_ok=True)  # it stands only beside the runs that it was made of
    remove_others(out, [out / BASELINES, *audit.audit_paths(there, out), *(one.folder(out) for one in there)])
    baselines, without = head_baselines(there, params, places, code)
    unaudited = audit.audit_datasets(there, params, places, code)
    beside = audit.beside_photometry(baselines, there, out)
    work = _Work({one.name: one for one in there}, beside, experiment, places, code)
    stale = [one for one in there if not work.is_kept(one)]
    locally: Literal["processes", "here"] = "processes" if len(stale) > FEW else "here"
    with closing(mapped(work.write, stale, n_ahead=len(stale), locally=locally)) as written:
        for n_done, _ in enumerate(written, start=1):
            progress.tell(n_done, len(stale))
    scores = {one.name: work.scores(one) for one in there}
    summary = {one.name: work.summary(one, scores[one.name]) | _about(one, trained) for one in there}
    with without_if_away("say deepsky runs --sync when it answers, and MLflow gets the figures"):
        deliver_waiting()
        store.close_dead_runs(experiment)
        for one in there:
            work.track(one, scores[one.name])
    _write_metrics(metrics, summary)
    _write_plots(plots, there, out)
    _write_paired(there, summary, out)
    write_json(out / SUMMARY, {"runs": summary, "left_out": list(map(asdict, left_out))}, sort_keys=True)
    _warn(summary, without, unaudited)
    print(in_words(len(there), left_out))


def log_evaluated(runs: Sequence[PlannedRun], experiment: str, *, trained: Path, out: Path, code: str) -> None:
    """Make the MLflow runs of what was trained and evaluated elsewhere, and came here by ``dvc pull``.

    Args:
        runs: every run of the plan.
        experiment: MLflow experiment.
        trained: folder of the trained networks.
        out: folder of the evaluations.
        code: fingerprint of the code that evaluates.

    Raises:
        TrackingError: the MLflow store cannot be used.
    """
    deliver_waiting()
    there, _ = trained_runs(runs, trained)
    places = Places(packed=Path(), features=Path(), trained=trained, out=out)  # nothing is scored
    beside = audit.beside_photometry(read_baselines(out), there, out)
    work = _Work({one.name: one for one in there}, beside, experiment, places, code)
    for one in there:
        if work.is_kept(one):
            work.track(one, work.scores(one))


@dataclass(frozen=True)
class _Work:
    """What the evaluation of run after run has in common, see ``run``; ``runs`` are those that are evaluated."""

    runs: Mapping[str, PlannedRun]
    baselines: dict[str, Figures]
    experiment: str
    places: Places
    code: str

    def is_kept(self, one: PlannedRun) -> bool:
        """Tell whether the evaluation of one run is there and of what is there to evaluate."""
        return kept_scores(one.folder(self.places.out), self._compared(one)[2]) is not None

    def write(self, one: PlannedRun) -> None:
        """Write the evaluation of one run."""
        reference, _, key = self._compared(one)
        trained = self._read(one)
        evaluate = evaluate_fractions if trained.target == "fractions" else evaluate_classes
        found = evaluate(trained, self._read(reference) if reference else None)
        found = found.with_figures(self.baselines.get(one.name, {}))
        found = found.with_remark(audit.photometric_remark(found.summary))
        with whole_folder(one.folder(self.places.out)) as fresh:
            write_evaluation(fresh, found)
            run = open_pictured(trained, self.places.packed / one.dataset)
            write_json(fresh / ALBUM, album_json(make_album(run, example_groups(run))))
            if not one.is_cell:
                _draw(trained, run, fresh / "pictures")
            write_scores(fresh, found, key)

    def scores(self, one: PlannedRun) -> dict[str, Any]:
        """Return the evaluation of one run, as ``write`` left it."""
        folder = one.folder(self.places.out)
        scores = kept_scores(folder, self._compared(one)[2])
        if scores is None:
            raise DataError(folder, "was changed while all runs were evaluated", "run dvc repro once more")
        return scores

    def summary(self, one: PlannedRun, scores: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entry of one evaluated run in the summary."""
        return dict(scores["summary"]) | ({"reference": one.reference} if one.reference else {})

    def _compared(self, one: PlannedRun) -> tuple[PlannedRun | None, Path | None, str]:
        """Return the run that one is compared with, its folder, and a hash of all that the scores follow from."""
        # A reference that was not trained as planned is named among the runs left out: nothing to compare with.
        reference = self.runs.get(one.reference or "")
        against = reference.folder(self.places.trained) if reference else None
        code = self.code + self._baselines_text(one)
        key = evaluation_key(one.folder(self.places.trained), against, pictures=not one.is_cell, code=code)
        return reference, against, key

    def _baselines_text(self, one: PlannedRun) -> str:
        """Return what tells an evaluation beside its baselines from one beside others or none."""
        own = self.baselines.get(one.name)
        return f" beside {json.dumps(own, sort_keys=True)}" if own else ""

    def track(self, one: PlannedRun, scores: Mapping[str, Any]) -> None:
        """Log the scores into the run that made these files, once; a gain also depends on the reference's files."""
        trained, against = one.folder(self.places.trained), self._compared(one)[1]
        key = store.run_key(trained)
        evaluated = key if against is None else f"{key} against {store.run_key(against)}"
        evaluated += f"{self._baselines_text(one)} as {scores['key']}"
        found = store.find_run(self.experiment, key)
        if found is None:
            found = restore_run(self.experiment, self._read(one))
        elif found.tags().get(_EVALUATED) == evaluated:
            return
        n_groups = scores["summary"]["n_test_groups"]
        figures = {**scores["tracked"], "n_test_groups": n_groups}
        found.log_scores({name: value for name, value in figures.items() if value is not None})
        doubts = f"intervals {unreliable(n_groups)}" if unreliable(n_groups) else ""
        remarks = (scores["summary"].get("remark", ""), doubts)  # of fractions there is none
        found.set_tag("deepsky.remark", "; ".join(filter(None, remarks)))
        found.log_artifact(one.folder(self.places.out), "evaluation")
        found.set_tag(_EVALUATED, evaluated)

    def _read(self, one: PlannedRun) -> Trained:
        return read_trained(one.folder(self.places.trained), one.name)


def _warn(summary: Mapping[str, Mapping[str, Any]], without: Mapping[str, str], unaudited: Mapping[str, str]) -> None:
    """Say what must be known before the figures are believed, and which baselines and audits there are none of."""
    for name, entry in summary.items():
        if entry.get("remark"):
            print(f"WARNING: {name} {entry['remark']}", file=sys.stderr)
    for dataset, n_groups in {one["dataset"]: one["n_test_groups"] for one in summary.values()}.items():
        if told := unreliable(n_groups):
            print(f"WARNING: intervals of {dataset} are {told} of test objects", file=sys.stderr)
    for name, problem in without.items():
        print(f"WARNING: {name} has no classical baselines: {problem}", file=sys.stderr)
    for name, problem in unaudited.items():
        print(f"WARNING: {name} has no audit: {problem}", file=sys.stderr)


def _about(one: PlannedRun, trained: Path) -> dict[str, Any]:
    """Return what the summary says of a run beside its scores; by ``key`` MLflow knows what was trained."""
    return {
        "label": one.label,
        "is_cell": one.is_cell,
        "is_simulated": one.is_simulated,
        "key": store.run_key(one.folder(trained)),
    }


def _draw(one: Trained, run: Pictured, out: Path) -> None:
    from deepsky.evaluation.galleries import draw_pictures  # Keras takes seconds to import

    draw_pictures(one, run, out)


def _write_metrics(folder: Path, summary: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what ``dvc metrics show`` lays out as a table: a file per dataset, in it a figure per run."""
    of_datasets: dict[str, dict[str, float]] = {}
    for one in summary.values():
        measure = MEASURES[one["target"]]
        name = one["label"] if measure == "accuracy" else f"{one['label']}_{measure}"
        of_datasets.setdefault(one["dataset"], {})[name] = one[f"test_{measure}"]
    with whole_folder(folder) as fresh:
        for dataset, figures in of_datasets.items():
            write_json(fresh / f"{dataset}.json", figures, sort_keys=True)


def _write_paired(runs: Sequence[PlannedRun], summary: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """Compare the runs of each dataset with each other."""
    tables: dict[str, dict[str, pd.DataFrame]] = {}
    for one in runs:
        table = pd.read_csv(one.folder(out) / "groups.csv", dtype={"group": str}, keep_default_na=False)
        tables.setdefault(one.dataset, {})[one.name] = table
    measures = {one["dataset"]: MEASURES[one["target"]] for one in summary.values()}
    compared = {dataset: compare(of, measures[dataset]) for dataset, of in tables.items()}
    write_json(out / PAIRED, {dataset: asdict(found) for dataset, found in compared.items() if found}, sort_keys=True)


def _write_plots(folder: Path, runs: Sequence[PlannedRun], out: Path) -> None:
    """Lay the curves of every run beside each other, and so the others: ``dvc plots`` wants one kind per folder."""
    with whole_folder(folder) as fresh:
        for one in runs:
            for table in (one.folder(out) / "plots").iterdir():
                (fresh / table.stem).mkdir(exist_ok=True)
                shutil.copyfile(table, fresh / table.stem / f"{one.name}.csv")
