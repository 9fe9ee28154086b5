"""Pictures of one run and of all runs: figures in, the same PNG bytes every time out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deepsky.files import whole_file

NAMED_WEIGHTS = ("custom", "random")  # whatever shows a score shows these beside it
DPI = 110
INK, MUTED, LINE = "#1c2430", "#5b6675", "#d7dde5"
_TRAIN, _VALIDATION, _TEST = "#2f6fde", "#d9730d", "#3f8f5b"
SPLIT_COLOURS = {"train": _TRAIN, "val": _VALIDATION, "test": _TEST}
RAMP = "Blues"
_DARK_CELL = 0.55  # above this share of the ramp, text on it is white
_LONG_NAME = 10  # letters of a class below a cell
_MEASURES = {"f1_macro": "macro F1", "rmse": "RMSE"}
_NARROW_BAR = 0.03  # share of the longest bar that a number needs


@dataclass(frozen=True)
class Cell:
    """One run in the overview picture.

    Attributes:
        accuracy: on the test split, 0 to 1.
        low: lower end of its 95 % interval.
        high: upper end of it.
        weights: ``imagenet``, ``custom``, ``random`` or ``scratch``.
        tuned: accuracy of the tuned run of the same network; None where there is none.
    """

    accuracy: float
    low: float
    high: float
    weights: str
    tuned: float | None = None


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


def confusion_figure(confusion: npt.NDArray[np.int64], classes: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix, shaded by the share of each true class.

    Args:
        confusion: (true class, predicted class) counts.
        classes: their names.
        title: the heading.
    """
    n = len(classes)
    figure, axes = _new_figure(2.6 + 0.85 * n, 1.6 + 0.7 * n, title)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap=RAMP, vmin=0, vmax=1, aspect="auto")
    for true in range(n):
        for predicted in range(n):
            ink = "white" if share[true, predicted] > _DARK_CELL else INK
            text = f"{confusion[true, predicted]}\n{share[true, predicted]:.0%}"
            axes.text(predicted, true, text, ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(range(n), classes)
    axes.set_yticks(range(n), classes)
    if max(map(len, classes)) > _LONG_NAME:
        axes.tick_params(axis="x", labelrotation=35)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_xlabel("predicted", color=MUTED)
    axes.set_ylabel("true", color=MUTED)
    no_frame(axes)
    return figure


def curves_figure(history: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Draw accuracy, or RMSE, and loss over the epochs.

    Args:
        history: ``epoch``, ``accuracy`` or ``rmse``, ``loss``, and the same with ``val_``, one value per epoch.
        title: the heading.
    """
    figure = Figure(figsize=(7.2, 2.9), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left")
    for axes, measure in zip(figure.subplots(1, 2), curve_measures(history), strict=True):
        for name, label, colour in ((measure, "training", _TRAIN), (f"val_{measure}", "validation", _VALIDATION)):
            axes.plot(history["epoch"], history[name], color=colour, label=label, marker="o", markersize=3, lw=1.8)
        axes.set_title(_MEASURES.get(measure, measure), fontsize=10, color=INK, loc="left")
        axes.set_xlabel("epoch", color=MUTED, fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color=LINE, lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=MUTED, labelsize=8)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return figure


def curve_measures(history: Mapping[str, Sequence[float | None]]) -> tuple[str, str]:
    """Return what a history tells of each epoch: accuracy, or RMSE where fractions are learned, and the loss."""
    return ("accuracy" if "accuracy" in history else "rmse"), "loss"


def splits_figure(scores: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Draw training, validation and test beside each other.

    Args:
        scores: split -> measure -> value.
        title: the heading.
    """
    measures = list(next(iter(scores.values())))
    figure = Figure(figsize=(2.6 * len(measures) + 0.4, 2.6), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left")
    every = figure.subplots(1, len(measures), squeeze=False, gridspec_kw={"wspace": 0.15})[0]
    for axes, measure in zip(every, measures, strict=True):
        values = [of_split[measure] for of_split in scores.values()]
        bars = axes.bar(list(scores), values, color=[SPLIT_COLOURS[split] for split in scores], width=0.62)
        axes.bar_label(bars, fmt=lambda value: f"{value:.3g}", fontsize=9, color=INK, padding=2)
        axes.set_title(_MEASURES.get(measure, measure), fontsize=10, color=INK, loc="left")
        axes.set_ylim(0, 1.15 * max(values) or 1)
        axes.set_yticks([])
        no_frame(axes)
    return figure


def class_distribution_figure(counts: Mapping[str, Mapping[str, int]], title: str) -> Figure:
    """Draw how many objects of each class stand in each split.

    Args:
        counts: split -> class -> number of objects.
        title: the heading.
    """
    classes = list(next(iter(counts.values())))
    figure, axes = _new_figure(5.2, 1.5 + 0.55 * len(classes), title)
    left = np.zeros(len(classes))
    narrow = _NARROW_BAR * max(sum(of_class[name] for of_class in counts.values()) for name in classes)
    for split, of_class in counts.items():
        values = np.array([of_class[name] for name in classes])
        colour = SPLIT_COLOURS[split]
        bars = axes.barh(classes, values, left=left, color=colour, label=split, height=0.62, edgecolor="white")
        texts = [str(value) if value > narrow else "" for value in values]
        axes.bar_label(bars, texts, label_type="center", color="white", fontsize=8)
        left += values
    axes.invert_yaxis()
    axes.set_xlabel("objects", color=MUTED, fontsize=9)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="center left", bbox_to_anchor=(1.0, 0.5))
    no_frame(axes)
    return figure


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
    row_inch = 0.72 if all(cell.tuned is None for cell in cells.values()) else 0.86  # room for a third small line
    figure, axes = _new_figure(1.9 + 1.3 * n_columns, 1.15 + row_inch * n_rows, title)
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
            ink = "white" if scale(cell.accuracy) > _DARK_CELL else INK
            small = [f"{cell.low:.2f} – {cell.high:.2f}"]
            small += [f"weights={cell.weights}"] if cell.weights in NAMED_WEIGHTS else []
            small += [] if cell.tuned is None else [f"tuned {cell.tuned:.2f}"]
            _cell_text(axes, column, row, f"{cell.accuracy:.2f}", "\n".join(small), ink)
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
    figure, axes = _new_figure(7.6, 1.1 + 0.3 * n_rows, title)
    place, names = 0, {}
    for dataset, runs in groups.items():
        names[place] = dataset
        place += 1
        axes.plot([runs[0].baseline] * 2, [place - 0.5, place + len(runs) - 0.5], color=MUTED, lw=1.2, ls=(0, (4, 2)))
        for run in runs:
            axes.plot([run.low, run.high], [place, place], color=_TRAIN, lw=2.2, solid_capstyle="butt")
            axes.plot(run.value, place, "o", color=_TRAIN, ms=6)
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


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; the bytes depend on nothing but the figure."""
    with whole_file(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, format="png", metadata={"Software": None})


def _new_figure(width_inch: float, height_inch: float, title: str) -> tuple[Figure, Axes]:
    """Return a figure of its own: pyplot would keep all of them in a global list."""
    figure = Figure(figsize=(width_inch, height_inch), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left")
    return figure, figure.subplots()


def no_frame(axes: Axes) -> None:
    """Take the lines around a drawing away."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)


def _white_grid(axes: Axes, n_rows: int, n_columns: int) -> None:
    no_frame(axes)
    axes.set_xticks(np.arange(n_columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n_rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=3)
    axes.tick_params(which="minor", length=0)


def _cell_text(axes: Axes, column: int, row: int, large: str, small: str, ink: str) -> None:
    axes.text(column, row - (0.14 if small else 0), large, ha="center", va="center", color=ink, fontsize=13)
    axes.text(column, row + 0.24, small, ha="center", va="center", color=ink, fontsize=7, linespacing=1.25)
