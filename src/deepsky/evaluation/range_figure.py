"""The picture of a learning-rate range test."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepsky.evaluation.figures import DPI, INK, LINE, MUTED, SPLIT_COLOURS


def range_figure(table: pd.DataFrame, suggested: float | None, own: float, title: str) -> Figure:
    """Draw the loss over the learning rate.

    Args:
        table: of ``training.range_test.raise_rate``.
        suggested: where the loss falls fastest; None marks nothing.
        own: the rate that the recipe has.
        title: the heading.
    """
    figure = Figure(figsize=(7.2, 3.4), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left")
    axes = figure.subplots()
    axes.plot(table["learning_rate"], table["loss"], color=MUTED, lw=0.8, alpha=0.6, label="loss of each step")
    axes.plot(table["learning_rate"], table["smoothed"], color=SPLIT_COLOURS["train"], lw=1.8, label="smoothed")
    if suggested is not None:
        height = np.interp(suggested, table["learning_rate"], table["smoothed"])
        axes.plot([suggested], [height], "o", color=SPLIT_COLOURS["val"], label=f"falls fastest: {suggested:.1e}")
    axes.axvline(own, color=INK, lw=1.0, ls="--", label=f"the recipe's: {own:.1e}")
    axes.set_xscale("log")
    low, high = table["smoothed"].min(), max(table["smoothed"].iloc[0], table["loss"].head(10).max())
    axes.set_ylim(low - 0.4 * (high - low), high + 0.5 * (high - low))  # a diverging end would flatten all else
    axes.set_xlabel("learning rate", color=MUTED, fontsize=9)
    axes.set_ylabel("loss", color=MUTED, fontsize=9)
    axes.grid(color=LINE, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower left")
    return figure
