"""The picture of a learning curve."""

import pandas as pd
from matplotlib.figure import Figure

from deepsky.evaluation.figures import DPI, INK, LINE, MUTED, SPLIT_COLOURS
from deepsky.intervals import unreliable


def learning_figure(table: pd.DataFrame, measure: str, words: str, title: str) -> Figure:
    """Draw a figure with its 95 % interval over the number of train objects.

    Args:
        table: by the number of objects, ascending; columns MEASURE, MEASURE_low, MEASURE_high and n_test_groups.
        measure: which figure.
        words: what it is called.
        title: the heading.
    """
    figure = Figure(figsize=(7.2, 3.4), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left")
    axes = figure.subplots()
    colour, low, high = SPLIT_COLOURS["train"], table[f"{measure}_low"], table[f"{measure}_high"]
    doubt = unreliable(table["n_test_groups"].min())
    label = f"95 % interval, {doubt}" if doubt else "95 % interval"
    axes.fill_between(table.index, low, high, color=colour, alpha=0.15, lw=0, label=label)
    axes.vlines(table.index, low, high, color=colour, lw=0.8, alpha=0.6)
    axes.plot(table.index, table[measure], "o-", color=colour, lw=1.8, label=f"{words} on the test objects")
    axes.set_xscale("log")
    axes.set_xticks(table.index, [f"{n:,}" for n in table.index])
    axes.minorticks_off()
    axes.set_xlabel("train objects", color=MUTED, fontsize=9)
    axes.set_ylabel(words, color=MUTED, fontsize=9)
    axes.grid(color=LINE, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="best")
    return figure
