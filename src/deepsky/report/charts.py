"""Geometry of the page's line charts; the template draws them, so that they follow the reader's light or dark theme."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from deepsky.evaluation.figures import curve_measures

WIDTH, HEIGHT = 330, 190  # of one chart, in SVG units
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 10, 30


@dataclass(frozen=True)
class Line:
    """One series: ``name`` for the legend and the style, ``points`` as SVG's polyline wants them."""

    name: str
    points: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """One measure over the epochs.

    Attributes:
        measure: what is drawn.
        description: the same in words, for those who cannot see it.
        lines: training and validation.
        x_ticks: (x, text) along the epochs.
        y_ticks: (y, text) along the measure.
        frame: x of left and right end, y of upper and lower end of the drawing area.
    """

    measure: str
    description: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    frame: tuple[float, float, float, float] = (_LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM)


def training_charts(history: Mapping[str, Sequence[float | None]]) -> list[Chart]:
    """Return the charts of accuracy, or RMSE, and loss.

    Args:
        history: ``epoch``, ``accuracy`` or ``rmse``, ``loss``, and both with ``val_``: one value per epoch, or None.
    """
    return [_chart(measure, history) for measure in curve_measures(history)]


def _chart(measure: str, history: Mapping[str, Sequence[float | None]]) -> Chart:
    epochs = [int(epoch) for epoch in history["epoch"] if epoch is not None]
    series = {"training": history[measure], "validation": history[f"val_{measure}"]}
    values = [v for column in series.values() for v in column if v is not None] or [0.0]
    x_low, x_high = (epochs[0], epochs[-1]) if len(epochs) > 1 else (epochs[0] - 1, epochs[0] + 1)
    y_ticks = MaxNLocator(nbins=4, min_n_ticks=3, steps=[1, 2, 2.5, 5, 10]).tick_values(min(values), max(values))
    x_ticks = [t for t in MaxNLocator(nbins=6, integer=True).tick_values(x_low, x_high) if x_low <= t <= x_high]

    def x(epoch: float) -> float:
        return round(_LEFT + (epoch - x_low) / (x_high - x_low) * (WIDTH - _RIGHT - _LEFT), 1)

    def y(value: float) -> float:
        span = y_ticks[-1] - y_ticks[0]
        return round(float(HEIGHT - _BOTTOM - (value - y_ticks[0]) / span * (HEIGHT - _BOTTOM - _TOP)), 1)

    lines, words = [], []
    for name, column in series.items():
        known = [(epoch, value) for epoch, value in zip(epochs, column, strict=True) if value is not None]
        dots = tuple((x(epoch), y(value)) for epoch, value in known)
        lines.append(Line(name, " ".join(f"{a},{b}" for a, b in dots), dots))
        if known:
            words.append(f"{name} from {known[0][1]:.3f} to {known[-1][1]:.3f}")
    return Chart(
        measure,
        f"{measure} over {len(epochs)} epochs: {'; '.join(words)}",
        tuple(lines),
        tuple((x(t), f"{t:g}") for t in x_ticks),
        tuple((y(t), f"{t:.3g}") for t in y_ticks),
    )
