"""Stage report: the page a newcomer opens first, the table behind it, and the overview pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from deepsky.evaluation.figures import NAMED_WEIGHTS, save_png
from deepsky.files import whole_folder
from deepsky.report.overview import Cell, Ranked, ranking_figure, results_figure
from deepsky.report.page import render_page
from deepsky.report.paper import read_study
from deepsky.report.results import Result, read_results, results_table
from deepsky.tracking.provenance import Provenance, provenances
from deepsky.tracking.store import without_if_away


def run(experiment: str, *, evaluation: Path, out: Path, paper: Mapping[str, Any] | None = None) -> None:
    """Write index.html and results.csv, and what there is of results.png, runs.png and fractions.png.

    Args:
        experiment: MLflow's, which knows how long training took, and from which commit, data and packages.
        evaluation: folder of summary.json and of DATASET/LABEL/, as stage evaluate writes it.
        out: folder to write.
        paper: what the study that params.yaml follows printed and asked; None: it follows none.

    Raises:
        DataError: a file is missing, malformed or lacks a key.
        TrackingError: the MLflow store refuses.
    """
    results = read_results(evaluation)
    origins: dict[str, Provenance] = {}
    with without_if_away("the page does not say where runs came from; dvc repro --force report makes it again"):
        origins = provenances(experiment, [one.summary["key"] for one in results.runs])
    of_classes = [one for one in results.runs if one.target == "class"]
    fractions = [one for one in results.runs if one.target == "fractions"]
    singles = [one for one in of_classes if not one.is_cell and not one.is_tuned]
    study = read_study(paper, results) if paper else None
    with whole_folder(out) as folder:
        (folder / "index.html").write_text(render_page(results, origins, study), encoding="utf-8")
        results_table(results).to_csv(folder / "results.csv", index=False, lineterminator="\n")
        if any(one.is_cell for one in of_classes):
            save_png(_overview(of_classes), folder / "results.png")
        if singles:
            save_png(_ranking(singles, "test accuracy", "Single runs"), folder / "runs.png")
        if fractions:
            save_png(_ranking(fractions, "test RMSE (less is better)", "Vote fractions"), folder / "fractions.png")


def _overview(results: list[Result]) -> Figure:
    cells: dict[tuple[str, str], Cell] = {}
    baselines: dict[str, float] = {}
    for one in (one for one in results if one.is_cell):
        tuned = tuple(other.score[0] for other in results if other.reference == one.name)
        row = f"{one.dataset}\n{one.unreliable}" if one.unreliable else one.dataset
        mark = "†" if one.of_photometry else ""
        cells[row, one.network] = Cell(*one.score, one.summary["weights"], one.short_defect, tuned, mark)
        baselines.setdefault(row, one.summary["test_baseline"])
    title = "Test accuracy with its 95 % interval, beside the majority-class baseline"
    title += "\n†: not above photometry" if any(cell.mark for cell in cells.values()) else ""
    return results_figure(cells, baselines, sorted({network for _, network in cells}), title)


def _ranking(results: list[Result], measure: str, title: str) -> Figure:
    """Rank the runs of each dataset, the best first."""
    groups: dict[str, list[Ranked]] = {}
    for one in sorted(results, key=lambda one: one.score[0], reverse=results[0].target == "class"):
        weights = one.summary["weights"]
        name = f"{one.label} (weights={weights})" if weights in NAMED_WEIGHTS else one.label
        heading = f"{one.dataset} (intervals {one.unreliable})" if one.unreliable else one.dataset
        groups.setdefault(heading, []).append(Ranked(name, *one.score, one.summary["test_baseline"]))
    return ranking_figure(dict(sorted(groups.items())), measure, title)
