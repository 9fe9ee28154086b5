"""Pictures of one run and of all runs: figures in, the same PNG bytes every time out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deepsky.files import whole_file

NAMED_WEIGHTS = ("custom", "random")  # whatever shows a score shows these beside it
DPI = 110
INK, MUTED, LINE = "#1c2430", "#5b6675", "#d7dde5"
_TRAIN, _VALIDATION, _TEST = "#2f6fde", "#d9730d", "#3f8f5b"
SPLIT_COLOURS = {"train": _TRAIN, "val": _VALIDATION, "test": _TEST}
RAMP = "Blues"
DARK_CELL = 0.55  # above this share of the ramp, text on it is white
_LONG_NAME = 10  # letters of a class below a cell
_MEASURES = {"f1_macro": "macro F1", "rmse": "RMSE"}
_NARROW_BAR = 0.03  # share of the longest bar that a number needs


def confusion_figure(confusion: npt.NDArray[np.int64], classes: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix, shaded by the share of each true class.

    Args:
        confusion: (true class, predicted class) counts.
        classes: their names.
        title: the heading.
    """
    n = len(classes)
    figure, axes = new_figure(2.6 + 0.85 * n, 1.6 + 0.7 * n, title)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap=RAMP, vmin=0, vmax=1, aspect="auto")
    for true in range(n):
        for predicted in range(n):
            ink = "white" if share[true, predicted] > DARK_CELL else INK
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
    figure, axes = new_figure(5.2, 1.5 + 0.55 * len(classes), title)
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


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; the bytes depend on nothing but the figure."""
    with whole_file(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, format="png", metadata={"Software": None})


def new_figure(width_inch: float, height_inch: float, title: str) -> tuple[Figure, Axes]:
    """Return a figure of its own: pyplot would keep all of them in a global list."""
    figure = Figure(figsize=(width_inch, height_inch), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left")
    return figure, figure.subplots()


def no_frame(axes: Axes) -> None:
    """Take the lines around a drawing away."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
