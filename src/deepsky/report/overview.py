"""The report's overview pictures: the matrix of datasets and networks, and rankings of single runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from deepsky.evaluation.figures import (
    DARK_CELL,
    INK,
    LINE,
    MUTED,
    NAMED_WEIGHTS,
    RAMP,
    SPLIT_COLOURS,
    new_figure,
    no_frame,
)

_BAR = SPLIT_COLOURS["train"]


@dataclass(frozen=True)
class Cell:
    """One run in the overview picture.

    Attributes:
        accuracy: on the test split, 0 to 1.
        low: lower end of its 95 % interval.
        high: upper end of it.
        weights: ``imagenet``, ``custom``, ``random`` or ``scratch``.
        remark: what is wrong with its answers, in a word or two.
        tuned: accuracy of each run that a search found from it.
        mark: that stands behind the accuracy.
    """

    accuracy: float
    low: float
    high: float
    weights: str
    remark: str = ""
    tuned: tuple[float, ...] = ()
    mark: str = ""


@dataclass(frozen=True)
class Ranked:
    """One run in a ranking.

    Attributes:
        name: of the run.
        value: its score.
        low: lower end of its 95 % interval.
        high: upper end of it.
        baseline: the score that needs no network.
    """

    name: str
    value: float
    low: float
    high: float
    baseline: float


def results_figure(
    cells: Mapping[tuple[str, str], Cell], baselines: Mapping[str, float], networks: Sequence[str], title: str
) -> Figure:
    """Draw the overview: test accuracy of every dataset x network beside the majority-class baseline.

    Args:
        cells: by (dataset, network); a missing one stays blank.
        baselines: accuracy of always answering the most frequent class, by dataset, in the rows' order.
        networks: columns, in order.
        title: the heading.
    """
    n_rows, n_columns = len(baselines), len(networks) + 1
    row_inch = 0.86 if any(cell.tuned or cell.remark for cell in cells.values()) else 0.72  # a third small line
    figure, axes = new_figure(1.9 + 1.3 * n_columns, 1.15 + row_inch * n_rows, title)
    floor = min([*baselines.values(), *(cell.accuracy for cell in cells.values())])
    ramp, scale = colormaps[RAMP], Normalize(max(0.0, floor - 0.05), 1.0)
    picture = np.full((n_rows, n_columns, 3), 0.955)
    for row, (dataset, baseline) in enumerate(baselines.items()):
        _cell_text(axes, 0, row, f"{baseline:.2f}", "always the same class", MUTED)
        for column, network in enumerate(networks, start=1):
            cell = cells.get((dataset, network))
            if cell is None:
                _cell_text(axes, column, row, "–", "", MUTED)
                continue
            picture[row, column] = ramp(scale(cell.accuracy))[:3]
            ink = "white" if scale(cell.accuracy) > DARK_CELL else INK
            small = [f"{cell.low:.2f} – {cell.high:.2f}"]
            small += [f"weights={cell.weights}"] if cell.weights in NAMED_WEIGHTS else []
            small += [cell.remark] if cell.remark else []
            small += [f"tuned {', '.join(f'{value:.2f}' for value in cell.tuned)}"] if cell.tuned else []
            _cell_text(axes, column, row, f"{cell.accuracy:.2f}{cell.mark}", "\n".join(small), ink)
    axes.imshow(picture, aspect="auto")
    axes.set_xticks(range(n_columns), ["baseline", *networks])
    axes.set_yticks(range(n_rows), list(baselines))
    axes.xaxis.tick_top()
    _white_grid(axes, n_rows, n_columns)
    return figure


def ranking_figure(groups: Mapping[str, Sequence[Ranked]], measure: str, title: str) -> Figure:
    """Draw runs that form no matrix below each other, each with its interval and its dataset's baseline.

    Args:
        groups: dataset -> its runs, in order.
        measure: what is drawn.
        title: the heading.
    """
    n_rows = sum(map(len, groups.values())) + len(groups)
    figure, axes = new_figure(7.6, 1.1 + 0.3 * n_rows, title)
    place, names = 0, {}
    for dataset, runs in groups.items():
        names[place] = dataset
        place += 1
        axes.plot([runs[0].baseline] * 2, [place - 0.5, place + len(runs) - 0.5], color=MUTED, lw=1.2, ls=(0, (4, 2)))
        for run in runs:
            axes.plot([run.low, run.high], [place, place], color=_BAR, lw=2.2, solid_capstyle="butt")
            axes.plot(run.value, place, "o", color=_BAR, ms=6)
            axes.annotate(
                f"{run.value:.3f}", (run.high, place), (6, 0), textcoords="offset points", va="center", fontsize=8
            )
            names[place] = f"{run.name}    "
            place += 1
    axes.set_yticks(list(names), list(names.values()))
    for label, name in zip(axes.get_yticklabels(), names.values(), strict=True):
        label.set_fontweight("bold" if name in groups else "normal")
    axes.set_ylim(place - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.set_xlabel(f"{measure} with its 95 % interval; dashed: the baseline", color=MUTED, fontsize=9)
    no_frame(axes)
    axes.grid(axis="x", color=LINE, lw=0.6)
    axes.set_axisbelow(True)
    return figure


def _white_grid(axes: Axes, n_rows: int, n_columns: int) -> None:
    no_frame(axes)
    axes.set_xticks(np.arange(n_columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n_rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=3)
    axes.tick_params(which="minor", length=0)


def _cell_text(axes: Axes, column: int, row: int, large: str, small: str, ink: str) -> None:
    axes.text(column, row - (0.14 if small else 0), large, ha="center", va="center", color=ink, fontsize=13)
    axes.text(column, row + 0.24, small, ha="center", va="center", color=ink, fontsize=7, linespacing=1.25)
