"""Pictures of predicted vote fractions: errors by answer, true against predicted, and what the dataset holds."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from deepsky.catalogue.decision_tree import COLUMNS, QUESTIONS, places
from deepsky.evaluation.figures import (
    DPI,
    INK,
    LINE,
    MUTED,
    RAMP,
    SPLIT_COLOURS,
    no_frame,
)

_ANSWERS = [
    f"{column.removeprefix('Class')}  {question.text + ': ' if answer in ('yes', 'no') else ''}{answer}"
    for question in QUESTIONS
    for column, answer in zip(question.columns, question.answers, strict=True)
]
_GRID_COLUMNS = 8
_BINS = 20


def rmse_figure(per_answer: Mapping[str, float], baseline: Mapping[str, float], title: str) -> Figure:
    """Draw the RMSE of every answer beside that of always answering the training mean.

    Args:
        per_answer: column -> RMSE.
        baseline: column -> RMSE of the baseline.
        title: the heading.
    """
    figure = _tall_figure(title)
    axes = figure.subplots()
    heights = _bar_places()
    axes.barh(heights, [per_answer[c] for c in COLUMNS], height=0.72, color=SPLIT_COLOURS["test"], label="this network")
    axes.plot([baseline[c] for c in COLUMNS], heights, "|", color=INK, ms=9, mew=1.8, label="always the training mean")
    _name_answers(axes)
    axes.set_xlabel("RMSE of the test objects", color=MUTED, fontsize=9)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower right")
    return figure


def distribution_figure(fractions: Mapping[str, npt.NDArray[np.float64]], title: str) -> Figure:
    """Draw the mean true fraction of every answer in every split.

    Args:
        fractions: split -> (row, 37).
        title: the heading.
    """
    figure = _tall_figure(title)
    axes = figure.subplots()
    for shift, (split, values) in zip((-0.22, 0.0, 0.22), fractions.items(), strict=False):
        axes.plot(
            values.mean(axis=0), _bar_places() + shift, "o", ms=4, color=SPLIT_COLOURS[split],
            label=f"{split}, {len(values)} objects",
        )  # fmt: skip
    _name_answers(axes)
    axes.set_xlabel("mean vote fraction", color=MUTED, fontsize=9)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower right")
    return figure


def scatter_figure(truth: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64], title: str) -> Figure:
    """Draw how many objects have which true (across) and predicted (up) fraction, one small square per answer.

    Args:
        truth: (row, 37).
        predicted: the same of the answers.
        title: the heading.
    """
    n_rows = -(-len(COLUMNS) // _GRID_COLUMNS)
    figure = Figure(figsize=(1.35 * _GRID_COLUMNS, 1.5 * n_rows + 0.4), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left")
    every = figure.subplots(n_rows, _GRID_COLUMNS).ravel()
    for column, axes in enumerate(every):
        if column >= len(COLUMNS):
            axes.set_axis_off()
            continue
        ends = [[0, 1], [0, 1]]
        counts = np.histogram2d(truth[:, column], predicted[:, column], bins=_BINS, range=ends)[0]
        axes.imshow(
            np.ma.masked_equal(counts.T, 0), origin="lower", extent=(0, 1, 0, 1), cmap=RAMP,
            norm=LogNorm(0.5, max(2, len(truth))),
        )  # fmt: skip
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.6)
        axes.set_title(_ANSWERS[column], fontsize=7, color=INK, pad=3)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_color(LINE)
    return figure


def _tall_figure(title: str) -> Figure:
    figure = Figure(figsize=(6.4, 8.6), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left")
    return figure


def _bar_places() -> npt.NDArray[np.float64]:
    """Return the height of each answer's bar, with a gap between questions."""
    gaps = np.repeat(np.arange(len(QUESTIONS)), [len(question.answers) for question in QUESTIONS])
    heights: npt.NDArray[np.float64] = np.arange(len(COLUMNS)) + 0.7 * gaps
    return heights


def _name_answers(axes: Axes) -> None:
    heights = _bar_places()
    axes.set_yticks(heights, _ANSWERS)
    axes.set_ylim(heights[-1] + 0.8, -0.8)
    no_frame(axes)
    axes.tick_params(axis="y", labelsize=7.5)
    axes.tick_params(axis="x", labelsize=8, labelcolor=MUTED)
    axes.grid(axis="x", color=LINE, lw=0.6)
    axes.set_axisbelow(True)
    right = 1.2 * axes.get_xlim()[1]  # room for the questions
    axes.set_xlim(right=right)
    for question in QUESTIONS:
        at = heights[places(question)]
        axes.axhspan(at[0] - 0.5, at[-1] + 0.5, color=LINE, alpha=0.25, lw=0, zorder=0)
        axes.text(right, at[0] - 0.1, f"{question.number} {question.text}", ha="right", fontsize=7, color=MUTED)
