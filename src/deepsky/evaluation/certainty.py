"""What the probabilities of one run are worth: whether they are calibrated, and the sets of classes they give."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from deepsky.calibration import Bin, at_temperature, brier_score, calibration_error, fit_temperature, reliability
from deepsky.evaluation.figures import INK, LINE, MUTED, SPLIT_COLOURS, new_figure
from deepsky.evaluation.prediction_sets import LEVEL, coverage, prediction_sets, threshold
from deepsky.evaluation.trained import Trained


@dataclass(frozen=True)
class Certainty:
    """What is found about the probabilities of one run.

    Attributes:
        figures: for summary and MLflow.
        details: for metrics.json: ``calibration`` and ``sets``.
        tables: by file name.
        bins: by what they are of, for the figure: as answered, and scaled.
    """

    figures: dict[str, float]
    details: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    bins: dict[str, list[Bin]] = field(default_factory=dict)


def certainty(one: Trained) -> Certainty:
    """Judge the probabilities of the test objects; what takes val objects is left out where there are none besides.

    Args:
        one: a run that tells classes.
    """
    test, truth, groups = _answers(one, "test")
    bins = {"as answered": reliability(test, truth)}
    figures = {"test_ece": calibration_error(bins["as answered"]), "test_brier": brier_score(test, truth)}
    val, val_truth, _ = _answers(one, "val")
    sets: dict[str, Any] | None = None
    tables: dict[str, pd.DataFrame] = {}
    if len(val) and one.facts["tested_on"] == "test":
        figures["temperature_left"] = fit_temperature(val, val_truth)
        scaled = at_temperature(test, figures["temperature_left"])
        bins["scaled"] = reliability(scaled, truth)
        figures |= {
            "test_ece_scaled": calibration_error(bins["scaled"]),
            "test_brier_scaled": brier_score(scaled, truth),
        }
        least = threshold(val, val_truth)
        held = prediction_sets(test, least)
        whole = coverage(held, truth, groups)
        assert whole is not None  # read_trained refuses a run without test rows
        of_classes = {name: coverage(held, truth, groups, code) for code, name in enumerate(one.facts["classes"])}
        per_class = {name: asdict(of) for name, of in of_classes.items() if of is not None}
        figures |= {
            "test_set_coverage": whole.coverage,
            "test_set_coverage_low": whole.coverage_low,
            "test_set_coverage_high": whole.coverage_high,
            "test_set_size": whole.size,
        }
        sets = {"level": LEVEL, "threshold": least, "overall": asdict(whole), "per_class": per_class}
        rows = {"": asdict(whole)} | per_class
        tables["prediction_sets.csv"] = pd.DataFrame([{"class": name} | of for name, of in rows.items()])
    tables["calibration.csv"] = pd.DataFrame([{"of": name} | asdict(bin) for name, of in bins.items() for bin in of])
    calibration = {name: [asdict(bin) for bin in of] for name, of in bins.items()}
    return Certainty(figures, {"calibration": calibration, "sets": sets}, tables, bins)


def reliability_figure(bins: dict[str, list[Bin]], title: str) -> Figure:
    """Draw how often answers are right over how sure they are; on the diagonal they are as right as they say.

    Args:
        bins: by what they are of.
        title: the heading.
    """
    figure, axes = new_figure(4.4, 4.0, title)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (4, 2)))
    for (name, of), colour in zip(bins.items(), (SPLIT_COLOURS["train"], SPLIT_COLOURS["val"]), strict=False):
        points = [bin.confidence for bin in of], [bin.accuracy for bin in of]
        axes.plot(*points, color=colour, marker="o", ms=4, lw=1.6, label=name)
    axes.set_xlabel("mean probability of the answer", color=MUTED, fontsize=9)
    axes.set_ylabel("share of right answers", color=MUTED, fontsize=9)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.grid(color=LINE, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="upper left")
    return figure


def _answers(one: Trained, split: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.str_]]:
    """Return probabilities, class index and group of each row of a split."""
    rows, classes = one.rows(split), one.facts["classes"]
    truth = pd.Index(classes).get_indexer(rows["label"])
    return rows[[f"p_{name}" for name in classes]].to_numpy(), truth, rows["group"].to_numpy(str)
