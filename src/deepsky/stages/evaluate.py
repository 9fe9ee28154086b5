"""Stage evaluate: score every trained network, draw it, and complete its MLflow run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd

from deepsky.evaluation.classes import evaluate_classes
from deepsky.evaluation.figures import save_png
from deepsky.evaluation.findings import Evaluation
from deepsky.evaluation.fractions import evaluate_fractions
from deepsky.evaluation.trained import Trained, read_trained
from deepsky.files import whole_file, whole_folder
from deepsky.tracking import runs
from deepsky.tracking.origin import origin_tags
from deepsky.tuning.adopted import Adopted

_DIGITS = 6


def run(
    datasets: Sequence[str],
    networks: Sequence[str],
    adopted: Sequence[Adopted],
    recipes: Sequence[tuple[str, str]],
    experiment: str,
    *,
    trained: Path,
    out: Path,
    metrics: Path,
) -> None:
    """Score each dataset x network and each recipe on its splits, and each tuned network beside its reference.

    Args:
        datasets: names of the datasets.
        networks: names of the networks.
        adopted: what searches found; trained beside the references.
        recipes: dataset and key of every recipe, whatever its way.
        experiment: MLflow experiment whose runs get the scores; a run that is not there (its outputs came from the
            DVC cache) is made from the files.
        trained: folder of DATASET/NETWORK folders (for recipes DATASET/KEY) as the train stages write them.
        out: folder to write: DATASET/NETWORK/ with metrics.json, tables and pictures.
        metrics: JSON file to write: dataset -> network -> the main figures.

    Raises:
        DataError: a folder is missing or does not hold what a train stage writes.
        TrackingError: the MLflow store cannot be used.
    """
    names = [(dataset, network) for dataset in datasets for network in networks] + list(recipes)
    names += [(one.dataset, one.label) for one in adopted]
    every = {name: read_trained(trained / name[0] / name[1]) for name in names}
    runs.close_dead_runs(experiment)
    summary: dict[str, dict[str, Any]] = {}
    with whole_folder(out) as fresh:
        for (dataset, network), one in every.items():
            reference = every[dataset, one.origin["network"]] if one.origin else None
            found = evaluate_fractions(one) if one.target == "fractions" else evaluate_classes(one, reference)
            _write(fresh / dataset / network, found)
            _track(experiment, one, reference, found.tracked, fresh / dataset / network)
            summary.setdefault(dataset, {})[network] = found.headline
    _write_json(metrics, summary, sort_keys=True)


def _write(folder: Path, found: Evaluation) -> None:
    """Write the tables and pictures of one run."""
    folder.mkdir(parents=True)
    _write_json(folder / "metrics.json", found.details)
    for name, table in found.tables.items():
        table.round(_DIGITS).to_csv(folder / name, index=False, lineterminator="\n")
    for name, figure in found.figures.items():
        save_png(figure, folder / name)


def _track(
    experiment: str, one: Trained, reference: Trained | None, metrics: Mapping[str, float], folder: Path
) -> None:
    """Log the scores into the run that made these files, once; a gain also depends on the reference's files."""
    key = runs.run_key(one.folder)
    evaluated = key if reference is None else f"{key} against {runs.run_key(reference.folder)}"
    found = runs.find_run(experiment, key)
    if found is None:
        found = runs.restored_run(
            experiment=experiment, trained=one.folder, facts=one.facts, history=list(_epochs(one.history))
        )
        if one.origin:
            for name, value in origin_tags(experiment, one.origin["study"], one.origin["trial"]).items():
                found.set_tag(name, value)
    elif found.tags().get("deepsky.evaluated") == evaluated:
        return
    found.log_metrics(metrics)
    found.log_artifact(folder, "evaluation")
    found.set_tag("deepsky.evaluated", evaluated)


def _epochs(history: pd.DataFrame) -> Iterator[tuple[int, dict[str, float]]]:
    for row in history.to_dict("records"):
        yield int(row.pop("epoch")), {str(k): float(v) for k, v in row.items() if isfinite(v)}


def _write_json(path: Path, value: object, *, sort_keys: bool = False) -> None:
    with whole_file(path) as temporary:
        text = json.dumps(_rounded(value), indent=2, sort_keys=sort_keys, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Round every float: the last digits differ between machines and tell nothing. JSON has no NaN: None."""
    if isinstance(value, float):
        return round(value, _DIGITS) if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
