"""The audit of a dataset: what gradient boosting makes of shortcuts and of photometry, on the rows of the networks."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from deepsky.catalogue.tables import read_table
from deepsky.datasets.packed import open_packed
from deepsky.errors import DataError
from deepsky.evaluation.folders import kept_entries, write_json
from deepsky.evaluation.params import Baseline, EvaluateParams
from deepsky.evaluation.planned import Places, PlannedRun
from deepsky.evaluation.trained import read_facts
from deepsky.parallel import mapped

KEPT = "audit.json"  # of a dataset, beside the folders of its runs
_PACKED = ("images.npy", "rows.csv", "dataset.json")
Figures = dict[str, float]  # accuracy, accuracy_low, accuracy_high, f1_macro


@dataclass(frozen=True)
class Audit:
    """What can be reached on a dataset without looking at its pictures as a network does.

    Attributes:
        shortcuts: by what stands beside the picture.
        photometry: by the bands that are used, all of them first; empty where no object is in the middle of a picture.
    """

    shortcuts: dict[str, Figures]
    photometry: dict[str, Figures]


def audit_datasets(runs: Sequence[PlannedRun], params: EvaluateParams, places: Places, code: str) -> dict[str, str]:
    """Write DATASET/audit.json of every dataset whose classes are learned; what did not change stays.

    Args:
        runs: those that were trained; the first of each dataset says which rows are learned from and scored.
        params: whether there is an audit, and its seed.
        places: what is read, and where it is written.
        code: fingerprint of the code that evaluates.

    Returns:
        By dataset why it has none.

    Raises:
        DataError: a file cannot be read.
    """
    first = {one.dataset: one for one in reversed(runs)} if params.audit else {}
    work = {
        dataset: _Work(places.packed / dataset, one.folder(places.trained), params.seed)
        for dataset, one in sorted(first.items())
        if read_facts(one.folder(places.trained), one.name)["target"] == "class"
    }
    for path in audit_paths(runs, places.out) - {places.out / dataset / KEPT for dataset in work}:
        path.unlink(missing_ok=True)
    keys = {dataset: one.key(code) for dataset, one in work.items()}
    new = [dataset for dataset, key in keys.items() if kept_entries(places.out / dataset / KEPT).get("key") != key]
    locally: Literal["processes", "here"] = "processes" if len(new) > 1 else "here"
    with closing(mapped(_audited, [work[dataset] for dataset in new], n_ahead=len(new), locally=locally)) as found:
        for dataset, entry in zip(new, found, strict=True):
            (places.out / dataset).mkdir(parents=True, exist_ok=True)
            write_json(places.out / dataset / KEPT, {"key": keys[dataset], **entry})
    problems = {dataset: str(kept_entries(places.out / dataset / KEPT)["problem"]) for dataset in work}
    return {dataset: problem for dataset, problem in problems.items() if problem}


def audit_paths(runs: Iterable[PlannedRun], out: Path) -> set[Path]:
    """Return where the audits of the datasets of some runs stand."""
    return {out / one.dataset / KEPT for one in runs}


def read_audit(folder: Path) -> Audit | None:
    """Return the audit of a dataset by the folder of its runs; None where it has none."""
    entry = kept_entries(folder / KEPT)
    return Audit(entry["shortcuts"], entry["photometry"]) if entry.get("shortcuts") else None


def beside_photometry(
    figures: Mapping[str, Figures], runs: Sequence[PlannedRun], out: Path
) -> dict[str, dict[str, float]]:
    """Add ``photometric_accuracy``, of all bands, to the figures that stand beside each run's own.

    Args:
        figures: of other baselines, by the name of a run.
        runs: those that were trained.
        out: folder of the evaluations.
    """
    audits = {dataset: read_audit(out / dataset) for dataset in {one.dataset for one in runs}}
    found = {name: dict(own) for name, own in figures.items()}
    for one in runs:
        audit = audits[one.dataset]
        if audit and audit.photometry:
            accuracy = next(iter(audit.photometry.values()))["accuracy"]
            found.setdefault(one.name, {})["photometric_accuracy"] = accuracy
    return found


def photometric_remark(summary: Mapping[str, Any]) -> str:
    """Say that a run is not better than photometry, by the whole of its interval; else nothing.

    Args:
        summary: the run's entry of the summary, with ``photometric_accuracy`` where its dataset has one.
    """
    photometric = summary.get("photometric_accuracy")
    if photometric is None or summary["test_accuracy_low"] > photometric:
        return ""
    return f"not above photometry: {summary['test_accuracy']:.3f} against {photometric:.3f}"


@dataclass(frozen=True)
class _Work:
    """The files that the audit of a dataset follows from."""

    packed: Path
    trained: Path
    seed: int

    def key(self, code: str) -> str:
        """Return a hash of all that the figures follow from."""
        digest = hashlib.sha256(json.dumps([code, self.seed]).encode())
        digest.update(self.rows().to_csv(index=False).encode())
        for name in _PACKED:
            try:
                with (self.packed / name).open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                problem = f"cannot be read ({error.strerror})"
                raise DataError(self.packed / name, problem, "run dvc repro to write it again") from error
        return digest.hexdigest()

    def rows(self) -> pd.DataFrame:
        """Return id, split, group and label of every object, as the run was trained."""
        columns = ["id", "split", "group", "label"]
        return read_table(self.trained / "predictions.csv", required=tuple(columns))[columns]


def _audited(work: _Work) -> dict[str, Any]:
    """Return the figures of a dataset, or the problem that leaves it without."""
    from deepsky.evaluation.baselines import score_baselines  # scikit-learn's methods are slow to import
    from deepsky.evaluation.shortcuts import circle_levels, photometry, shortcuts

    rows, packed = work.rows(), open_packed(work.packed)
    place = rows["id"].map(pd.Series(packed.rows.index, index=packed.rows["id"]))
    if place.isna().any():
        return _entry(f"{work.packed} lacks object {rows['id'][place.isna()].iloc[0]}; run dvc repro")
    known, own = [rows[name].to_numpy(str) for name in ("label", "split", "group")], place.to_numpy(np.int64)

    def scored(tables: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, Figures]:
        method: tuple[Baseline, ...] = ("gradient_boosting",)
        found = {name: score_baselines(method, table[own], *known, seed=work.seed) for name, table in tables.items()}
        return {name: asdict(one) for name, of_methods in found.items() for one in of_methods.values()}

    try:
        with threadpool_limits(1):  # sums of another order would be other numbers
            levels = circle_levels(packed.images)
        return _entry("", scored(shortcuts(packed, levels)), scored(photometry(packed, levels)))
    except DataError as error:
        return _entry(error.problem)


def _entry(
    problem: str, shortcuts: Mapping[str, Figures] | None = None, photometry: Mapping[str, Figures] | None = None
) -> dict[str, Any]:
    return {"problem": problem, "shortcuts": shortcuts or {}, "photometry": photometry or {}}
