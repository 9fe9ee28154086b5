"""Accuracy over what is known of the objects: how faint, how clear and how large they are."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from deepsky.datasets.packed import PROPERTIES
from deepsky.evaluation.figures import DPI, INK, LINE, MUTED, SPLIT_COLOURS
from deepsky.intervals import FEW_GROUPS, Resampling, share_interval, unreliable

WORDS: Mapping[str, str] = {
    "r_mag": "r magnitude", "snr": "signal-to-noise ratio", "half_light_arcsec": "half-light radius (arcsec)",
}  # fmt: skip
_MOST_BINS, _LEAST_OBJECTS = 6, 10
COLUMNS = ("property", "low", "high", "middle", "n", "n_groups", "accuracy", "accuracy_low", "accuracy_high")


def by_property(rows: pd.DataFrame, is_right: npt.NDArray[np.bool_]) -> pd.DataFrame:
    """Return the accuracy in bins of equally many objects, of every property that is known of enough of them.

    Args:
        rows: the test objects: group, and those of PROPERTIES that are known.
        is_right: whether each was answered rightly.

    Returns:
        COLUMNS: low, middle (median) and high of a bin, its objects and groups, and the accuracy with its 95 %
        interval, see ``intervals``.
    """
    found = []
    for name in (one for one in PROPERTIES if one in rows):
        values = rows[name].to_numpy(np.float64)
        order = np.argsort(values, kind="stable")[: int(np.isfinite(values).sum())]  # NaN stands last
        n_bins = min(_MOST_BINS, len(order) // _LEAST_OBJECTS)
        for part in np.array_split(order, n_bins) if n_bins > 1 else []:
            groups = Resampling(rows["group"].to_numpy(str)[part])
            ends = values[part].min(), values[part].max(), np.median(values[part])
            known = groups.n, groups.n_groups, is_right[part].mean(), *share_interval(is_right[part], groups)
            found.append((name, *ends, *known))
    return pd.DataFrame(found, columns=list(COLUMNS))


def property_figure(table: pd.DataFrame, title: str) -> Figure:
    """Draw the accuracy over each property.

    Args:
        table: as ``by_property`` makes it, at least one row.
        title: the heading.
    """
    names, is_doubtful = list(table["property"].unique()), table["n_groups"].map(unreliable) != ""
    figure = Figure(figsize=(0.4 + 3.2 * len(names), 3.0), dpi=DPI, layout="constrained")
    doubt = f"\nhollow: interval unreliable, from fewer than {FEW_GROUPS} groups" if is_doubtful.any() else ""
    figure.suptitle(f"{title}{doubt}", fontsize=11, color=INK, x=0.01, ha="left")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False, sharey=True)[0], names, strict=True):
        bins = table[table["property"] == name]
        ends = bins["accuracy"] - bins["accuracy_low"], bins["accuracy_high"] - bins["accuracy"]
        axes.errorbar(
            bins["middle"], bins["accuracy"], yerr=np.clip(ends, 0, None), color=SPLIT_COLOURS["train"], marker="o",
            ms=4, lw=1.6, elinewidth=1, capsize=2,
        )  # fmt: skip
        hollow = bins[is_doubtful[bins.index]]
        axes.plot(hollow["middle"], hollow["accuracy"], "o", ms=4, mfc="white", color=SPLIT_COLOURS["train"], zorder=3)
        if name == "snr" and (bins["middle"] > 0).all():
            axes.set_xscale("log")
        axes.set_xlabel(WORDS[name], color=MUTED, fontsize=9)
        axes.set_ylim(0, 1.03)
        axes.grid(color=LINE, lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=MUTED, labelsize=8)
    return figure
