"""Stage report: the page a newcomer opens first, the table behind it, and the overview picture."""

from pathlib import Path

from matplotlib.figure import Figure

from deepsky.files import whole_folder
from deepsky.report.figures import Cell, results_figure, save_png
from deepsky.report.page import render_page
from deepsky.report.results import Result, read_results, results_table


def run(*, evaluation: Path, metrics: Path, out: Path) -> None:
    """Write index.html, results.csv and results.png.

    Args:
        evaluation: folder of DATASET/NETWORK/metrics.json, as stage evaluate writes it.
        metrics: the summary JSON of stage evaluate.
        out: folder to write.

    Raises:
        DataError: a file is missing, malformed or lacks a key.
    """
    results = read_results(evaluation, metrics)
    with whole_folder(out) as folder:
        (folder / "index.html").write_text(render_page(results), encoding="utf-8")
        results_table(results).to_csv(folder / "results.csv", index=False, lineterminator="\n")
        save_png(_overview(results), folder / "results.png")


def _overview(results: list[Result]) -> Figure:
    cells: dict[tuple[str, str], Cell] = {}
    baselines: dict[str, float] = {}
    tuned = {(one.dataset, one.plain_network): one.summary["test_accuracy"] for one in results if one.is_tuned}
    for one in (one for one in results if not one.is_tuned):
        accuracy, low, high = (one.summary[f"test_accuracy{end}"] for end in ("", "_low", "_high"))
        name = one.dataset, one.network
        cells[name] = Cell(accuracy, low, high, one.summary["weights"], tuned.get(name))
        baselines.setdefault(one.dataset, one.summary["test_baseline"])
    title = "Test accuracy with its 95 % interval, beside the majority-class baseline"
    return results_figure(cells, baselines, sorted({network for _, network in cells}), title)
