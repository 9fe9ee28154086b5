"""The classical baselines of the runs of which a head learns: once for all heads on the same features and rows."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepsky.catalogue.tables import read_table
from deepsky.datasets.packed import open_packed
from deepsky.errors import DataError
from deepsky.evaluation.folders import kept_entries, write_json
from deepsky.evaluation.params import EvaluateParams
from deepsky.evaluation.planned import Places, PlannedRun
from deepsky.parallel import mapped

KEPT = "baselines.json"
Figures = dict[str, float]  # test_svm_accuracy, with _low and _high, test_svm_f1_macro, ...


def head_baselines(
    runs: Sequence[PlannedRun], params: EvaluateParams, places: Places, code: str
) -> tuple[dict[str, Figures], dict[str, str]]:
    """Score the classical baselines of every run that has features, and write KEPT; what did not change stays.

    Args:
        runs: those that were trained; the rows of their predictions are learned from and scored.
        params: which baselines.
        places: what is read, and where it is written.
        code: fingerprint of the code that evaluates.

    Returns:
        By the name of a run: its figures, and why it has none.

    Raises:
        DataError: a file cannot be read.
    """
    work = {
        one.name: _Work(places.features / one.features, places.packed / one.dataset, one.folder(places.trained), params)
        for one in runs
        if one.features and params.baselines
    }
    out = places.out
    if not work:
        (out / KEPT).unlink(missing_ok=True)
        return {}, {}
    keys = {name: one.key(code) for name, one in work.items()}
    found = {entry["key"]: entry for entry in kept_entries(out / KEPT).values() if entry["figures"]}
    new = {key: work[name] for name, key in keys.items() if key not in found}
    with closing(mapped(_scored, list(new.values()), n_ahead=len(new), locally="processes")) as scored:
        found |= {key: {"key": key, **entry} for key, entry in zip(new, scored, strict=True)}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / KEPT, {name: found[key] for name, key in keys.items()})
    return read_baselines(out), {name: found[key]["problem"] for name, key in keys.items() if found[key]["problem"]}


def read_baselines(out: Path) -> dict[str, Figures]:
    """Return the figures that ``head_baselines`` wrote, by the name of a run; none where there is no such file."""
    return {name: entry["figures"] for name, entry in kept_entries(out / KEPT).items() if entry["figures"]}


@dataclass(frozen=True)
class _Work:
    """The files that the baselines of a run follow from, and which are wanted."""

    features: Path
    packed: Path
    trained: Path
    params: EvaluateParams

    def key(self, code: str) -> str:
        """Return a hash of all that the figures follow from; runs on the same features and rows share it."""
        files = (self.features / "key.txt", self.packed / "rows.csv")  # what the features follow from, and who has them
        digest = hashlib.sha256(json.dumps([code, asdict(self.params)], sort_keys=True).encode())
        digest.update(self.rows().to_csv(index=False).encode())
        for file in files:
            digest.update(file.read_bytes() if file.exists() else b"")
        return digest.hexdigest()

    def rows(self) -> pd.DataFrame:
        """Return id, split, group and label of every object, as the run was trained."""
        columns = ["id", "split", "group", "label"]
        return read_table(self.trained / "predictions.csv", required=tuple(columns))[columns]


def _scored(work: _Work) -> dict[str, Any]:
    """Return the figures of a run's baselines, or the problem that leaves it without."""
    from deepsky.evaluation.baselines import score_baselines  # scikit-learn's methods are slow to import

    try:
        rows, dataset = work.rows(), open_packed(work.packed)
        image = rows["id"].map(dataset.rows.set_index("id")["image"])
        seen = np.load(work.features / "sides.npy", mmap_mode="r", allow_pickle=False)
        if image.isna().any() or seen.shape[1] != len(dataset.images):
            raise DataError(work.features, "are not features of what was trained", "run dvc repro")
        known = (rows[name].to_numpy(str) for name in ("label", "split", "group"))
        plain = seen[0][image.to_numpy(np.int64)]
        scores = score_baselines(work.params.baselines, plain, *known, seed=work.params.seed)
    except (OSError, ValueError) as error:  # NumPy's, of a damaged file
        reason = getattr(error, "strerror", None) or error
        return {"figures": {}, "problem": f"{work.features}: cannot be read ({reason}); run dvc repro"}
    except DataError as error:
        return {"figures": {}, "problem": str(error)}
    figures = {f"test_{name}_{figure}": v for name, one in scores.items() for figure, v in asdict(one).items()}
    return {"figures": figures, "problem": ""}
