"""Geometry of the page's line charts; the template draws them, so that they follow the reader's light or dark theme."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from deepsky.evaluation.by_property import WORDS
from deepsky.evaluation.figures import curve_measures
from deepsky.report.results import Result

WIDTH, HEIGHT = 330, 210  # of one chart, in SVG units
N_COLOURS = 8
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 10, 42
_MEASURES = {"accuracy": "Accuracy", "rmse": "RMSE", "loss": "Loss"}
_SHARE = (0.0, 1.0)
_MEAN_POINTS = np.linspace(0, 1, 41)
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One series.

    Attributes:
        name: for the legend.
        style: classes of the style sheet: its colour, and dashes where the colours are used up.
        points: as SVG's polyline wants them.
        dots: (x, y) of each point, where points are few.
    """

    name: str
    style: str
    points: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """Some series over one another.

    Attributes:
        title: what is drawn.
        description: the same in words, for those who cannot see it.
        x_name: what is along the bottom.
        lines: the series.
        x_ticks: (x, text) along the bottom.
        y_ticks: (y, text) along the left.
        frame: x of left and right end, y of upper and lower end of the drawing area.
    """

    title: str
    description: str
    x_name: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    frame: tuple[float, float, float, float] = (_LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM)


def colour(number: int) -> str:
    """Return the style of the series with a number: its colour, and dashes from the ninth on."""
    return f"c{number % N_COLOURS}" + (f" dash{min(number // N_COLOURS, 3)}" if number >= N_COLOURS else "")


def training_charts(history: Mapping[str, Sequence[float | None]]) -> list[Chart]:
    """Return the charts of accuracy, or RMSE, and loss of one run.

    Args:
        history: ``epoch``, ``accuracy`` or ``rmse``, ``loss``, and both with ``val_``: one value per epoch, or None.
    """
    charts = []
    for measure in curve_measures(history):
        series = {
            name: _over_epochs(history, column)
            for name, column in (("training", measure), ("validation", f"val_{measure}"))
        }
        words = [f"{name} from {points[0][1]:.3f} to {points[-1][1]:.3f}" for name, points in series.items() if points]
        title = f"{_MEASURES[measure]} per epoch"
        about = f"{measure} over {len(history['epoch'])} epochs: {'; '.join(words)}"
        charts.append(_chart(title, about, "epoch", series))
    return charts


def compared_charts(runs: Sequence[Result]) -> list[Chart]:
    """Return what the runs of one dataset are compared by: validation curves and, of classes, ROC and precision-recall.

    Args:
        runs: of one dataset; the place of a run is the number of its colour.
    """
    charts = []
    for measure in curve_measures(runs[0].details["history"]):
        series = {one.label: _over_epochs(one.details["history"], f"val_{measure}") for one in runs}
        words = [f"{name} ends at {points[-1][1]:.3f}" for name, points in series.items() if points]
        title = f"{_MEASURES[measure]} of the validation objects"
        charts.append(_chart(title, f"{title}: {'; '.join(words)}", "epoch", series))
    with_curves = [one for one in runs if one.details.get("curves")]
    if with_curves:
        areas = [f"{one.label} {one.summary['test_auc_macro']:.3f}" for one in with_curves]
        roc, recall = ({one.label: _mean(one, of) for one in runs} for of in ("roc", "precision_recall"))
        charts.append(_shares("ROC, mean of classes", "false positive rate", roc, f"area {'; '.join(areas)}"))
        charts.append(_shares("Precision over recall, mean", "recall", recall, "; ".join(recall)))
    return charts


def property_charts(runs: Sequence[Result]) -> list[Chart]:
    """Return the accuracy of the runs of one dataset over every property that is known of its objects.

    Args:
        runs: of one dataset; the place of a run is the number of its colour.
    """
    charts = []
    for name, words in WORDS.items():
        is_log = name == "snr"
        series = {one.label: _over_property(one, name, is_log=is_log) for one in runs}
        places = [x for points in series.values() for x, _ in points]
        if places:
            ends = [f"{label} {points[0][1]:.3f} to {points[-1][1]:.3f}" for label, points in series.items() if points]
            x_name = f"log10 of the {words}" if is_log else words
            title = f"Accuracy over {words}"
            charts.append(_chart(title, f"{title}: {'; '.join(ends)}", x_name, series, _wide(places), _SHARE))
    return charts


def class_charts(curves: Mapping[str, Any]) -> list[Chart]:
    """Return ROC and precision-recall of every class of one run.

    Args:
        curves: by class, as ``evaluation.threshold_curves`` makes them; nothing for a class without.
    """
    if not curves:
        return []
    roc, recall = ({name: one[of] for name, one in curves.items()} for of in ("roc", "precision_recall"))
    areas, precisions = (
        "; ".join(f"{name} {one[of]:.3f}" for name, one in curves.items()) for of in ("auc", "average_precision")
    )
    return [
        _shares("ROC of each class", "false positive rate", roc, f"area {areas}"),
        _shares("Precision over recall of each class", "recall", recall, f"average precision {precisions}"),
    ]


def reliability_chart(calibration: Mapping[str, Sequence[Mapping[str, float]]]) -> Chart:
    """Return how often answers are right over how sure they are, beside the diagonal, where they are as right as sure.

    Args:
        calibration: bins by what they are of, as ``evaluation.certainty`` makes them.
    """
    series: dict[str, Points] = {
        name: [(one["confidence"], one["accuracy"]) for one in bins] for name, bins in calibration.items()
    }
    words = "; ".join(f"{name} {len(points)} bins" for name, points in series.items())
    diagonal: Points = [(0.0, 0.0), (1.0, 1.0)]
    return _shares("Share of right answers", "how sure they are", {**series, "as right as sure": diagonal}, words)


def _mean(one: Result, of: str) -> Points:
    """Return the mean of the classes' curves at equal steps."""
    curves = [np.array(curve[of]) for curve in one.details["curves"].values()]
    if not curves:
        return ()
    means = np.mean([np.interp(_MEAN_POINTS, *curve.T) for curve in curves], axis=0)
    start = [(0.0, 0.0)] if of == "roc" else []
    return start + [(float(x), float(y)) for x, y in zip(_MEAN_POINTS, means, strict=True)]


def _over_property(one: Result, name: str, *, is_log: bool) -> Points:
    bins = [one for one in one.details["by_property"] if one["property"] == name and (one["middle"] > 0 or not is_log)]
    return [(log10(bin["middle"]) if is_log else bin["middle"], bin["accuracy"]) for bin in bins]


def _over_epochs(history: Mapping[str, Sequence[float | None]], column: str) -> Points:
    pairs = zip(history["epoch"], history[column], strict=True)
    return [(int(epoch), value) for epoch, value in pairs if epoch is not None and value is not None]


def _shares(title: str, x_name: str, series: Mapping[str, Points], words: str) -> Chart:
    return _chart(title, f"{title}: {words}", x_name, series, _SHARE, _SHARE)


def _chart(
    title: str,
    description: str,
    x_name: str,
    series: Mapping[str, Points],
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> Chart:
    """Lay series out; ranges that are not given come from the points, and then x counts epochs."""
    every = [point for points in series.values() for point in points] or [(1.0, 0.0)]
    is_few = x_range is None
    x_low, x_high = x_range or _wide([x for x, _ in every])
    y_low, y_high = y_range or (min(y for _, y in every), max(y for _, y in every))
    y_ticks = _ticks(y_low, y_high)
    y_low, y_high = min(y_low, y_ticks[0]), max(y_high, y_ticks[-1])
    x_ticks = MaxNLocator(nbins=6, integer=is_few).tick_values(x_low, x_high)

    def placed(point: tuple[float, float]) -> tuple[float, float]:
        x, y = ((point[0] - x_low) / (x_high - x_low), (point[1] - y_low) / (y_high - y_low))
        height = HEIGHT - _BOTTOM - _TOP
        return round(float(_LEFT + x * (WIDTH - _RIGHT - _LEFT)), 1), round(float(HEIGHT - _BOTTOM - y * height), 1)

    return Chart(
        title,
        description,
        x_name,
        tuple(_lines(series, placed, with_dots=is_few)),
        tuple((placed((x, y_low))[0], f"{x:g}") for x in x_ticks if x_low <= x <= x_high),
        tuple((placed((x_low, y))[1], f"{y:.3g}") for y in y_ticks),
    )


def _lines(series: Mapping[str, Points], placed: Any, *, with_dots: bool) -> Iterable[Line]:
    for number, (name, points) in enumerate(series.items()):
        dots = tuple(placed(point) for point in points)
        yield Line(name, colour(number), " ".join(f"{x:g},{y:g}" for x, y in dots), dots if with_dots else ())


def _wide(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 1, high + 1)


def _ticks(low: float, high: float) -> list[float]:
    ticks = MaxNLocator(nbins=4, min_n_ticks=3, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks]
