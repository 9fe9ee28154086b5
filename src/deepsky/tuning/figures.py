"""What came of a study, as pictures.

Drawn here and not by ``optuna.visualization``: its matplotlib figures put sixteen slices into one row, let the axes of
a space of sixteen parameters run into each other, and change the style of every later plot.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from optuna.trial import TrialState

from deepsky.tuning.analysis import (
    MOST_TRIALS,
    Floats,
    Importance,
    Objective,
    Parameter,
    Results,
    by_importance,
    evenly,
    importance_of,
    results_of,
    write_importances,
    write_trials,
)

_DPI = 110
_INK, _MUTED, _LINE = "#1c2430", "#5b6675", "#d7dde5"
_TRIAL, _BEST, _ENDED = "#2f6fde", "#d9730d", "#9aa5b4"
_BARS = (_TRIAL, "#3f8f5b")
_LINES = 500  # more lines on parallel axes are a grey wall
_SLICE_COLUMNS = 4
_UNUSED = -0.1  # height on parallel axes of a parameter that a trial does not have
_LEAST_TRIALS = 10  # fewer say nothing of what mattered


def draw_study(study: optuna.Study, folder: Path, objectives: Sequence[str]) -> None:
    """Write the study's pictures and tables.

    Always ``trials.csv``; as PNG the history, the parallel coordinates, the slices of each objective and, for two
    objectives, the Pareto front; the importances as table and PNG. What needs more complete trials than there are is
    named in ``figures.txt``.

    Args:
        study: in any state.
        folder: gets the files; created where missing.
        objectives: names of the study's values, in its order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = results_of(study, objectives)
    write_trials(results, folder / "trials.csv")
    n, figures = len(results.numbers), dict[str, Figure]()
    if n >= 2:
        figures |= {"history": _history(results), "parallel": _parallel(results)}
        slices = ["slices", *(f"slices_{name}" for name in objectives[1:])]
        figures |= {name: _slices(results, one) for name, one in zip(slices, results.objectives, strict=True)}
    if n >= 2 and len(objectives) == 2:
        figures["pareto"] = _pareto(results)
    if n >= _LEAST_TRIALS:
        importances = {objective.name: importance_of(objective, results) for objective in results.objectives}
        write_importances(results, importances, folder / "importances.csv")
        figures["importances"] = _importance_bars(results, importances)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png")
    (folder / "figures.txt").unlink(missing_ok=True)  # of an earlier state of the study
    if n < _LEAST_TRIALS:
        needs = f"importances need {_LEAST_TRIALS} complete trials, the other figures 2; there are {n}"
        (folder / "figures.txt").write_text(f"{needs}\n")


def _history(results: Results) -> Figure:
    n = len(results.objectives)
    figure = _figure(9.0, 0.6 + 3.2 * n, f"{results.name}: history", "")
    for axes, objective in zip(_panels(figure, n, 1), results.objectives, strict=True):
        best = np.minimum.accumulate(objective.loss) * (1 if objective.less else -1)
        axes.plot(results.numbers, objective.values, "o", ms=4, color=_TRIAL, alpha=0.7, mew=0, label="complete")
        axes.step(results.numbers, best, where="post", color=_BEST, lw=1.8, label="best so far")
        if n == 1:
            _ended_early(axes, results)
        _scale_objective(axes, objective)
        axes.set_xlabel("trial")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.legend(frameon=False, fontsize=8, labelcolor=_INK, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _ended_early(axes: Axes, results: Results) -> None:
    """Mark the trials without a value: the pruned at their last report, the failed below."""
    pruned = [
        (trial.number, trial.intermediate_values[max(trial.intermediate_values)])
        for trial in results.trials
        if trial.state == TrialState.PRUNED and trial.intermediate_values
    ]
    failed = [trial.number for trial in results.trials if trial.state == TrialState.FAIL]
    if pruned:
        axes.plot(*zip(*pruned, strict=True), "x", ms=4, color=_ENDED, label="pruned, last report", zorder=1)
    if failed:
        axes.plot(
            failed, [0.0] * len(failed), "|", ms=9, color=_INK, label="failed", transform=axes.get_xaxis_transform()
        )


def _importance_bars(results: Results, importances: Mapping[str, Importance]) -> Figure:
    parameters, n = by_importance(results, importances), len(results.numbers)
    some = f"{n} complete trials" if n <= MOST_TRIALS else f"{MOST_TRIALS} of {n} complete trials"
    explained = ", ".join(f"{value.explained:.0%} of {name}" for name, value in importances.items())
    note = f"{some}; all parameters together explain {explained}\n(n of {n}): trials with that parameter"
    figure = _figure(9.0, 1.5 + 0.3 * len(parameters), f"{results.name}: what mattered", note)
    (axes,) = _panels(figure, 1, 1)
    height = 0.8 / len(importances)
    for index, (name, importance) in enumerate(importances.items()):
        y = np.arange(len(parameters)) + (index - (len(importances) - 1) / 2) * height
        widths = [importance.shares[parameter.name] for parameter in parameters]
        bars = axes.barh(y, widths, height * 0.9, color=_BARS[index], label=name)
        axes.bar_label(bars, [f"{width:.0%}" for width in widths], padding=3, fontsize=7, color=_MUTED)
    axes.set_yticks(range(len(parameters)), [parameter.heading for parameter in parameters])
    axes.invert_yaxis()
    axes.set_xlabel("share of the loss of rank when the parameter is shuffled")
    axes.margins(x=0.08)
    axes.grid(visible=False, axis="y")
    axes.legend(frameon=False, fontsize=8, labelcolor=_INK, loc="lower right")
    return figure


def _parallel(results: Results) -> Figure:
    first, n = results.objectives[0], len(results.numbers)
    order = np.argsort(-first.loss, kind="stable")  # the best are drawn last, on top
    drawn = order[evenly(n, _LINES)]
    some = f"{len(drawn)} of {n} complete trials, evenly by rank" if len(drawn) < n else f"{n} complete trials"
    ends = [(float(objective.values.min()), float(objective.values.max())) for objective in results.objectives]
    columns = [Parameter(o.name, o.values, *end, log=o.log) for o, end in zip(results.objectives, ends, strict=True)]
    columns += results.parameters
    note = f"{some}; at the very bottom: the trial has no such parameter"
    figure = _figure(2.0 + 1.05 * len(columns), 5.6, f"{results.name}: parallel coordinates", note)
    (axes,) = _panels(figure, 1, 1)
    heights = np.column_stack([_height(column, column.values[drawn]) for column in columns])
    lines = LineCollection(
        [np.column_stack([np.arange(len(columns)), row]) for row in heights], cmap="viridis_r", lw=1.1
    )
    lines.set_array(np.linspace(0, 1, len(drawn)))
    lines.set_alpha(0.75)
    axes.add_collection(lines)
    for index, column in enumerate(columns):
        axes.axvline(index, color=_MUTED, lw=0.8)
        for height, text in _marks(column):
            box = {"facecolor": "white", "alpha": 0.75, "pad": 0.6, "edgecolor": "none"}
            axes.text(index + 0.04, height, text, fontsize=7, color=_INK, va="center", bbox=box)
    axes.set_xlim(-0.1, len(columns) - 0.45)
    axes.set_ylim(_UNUSED - 0.05, 1.05)
    axes.set_xticks(range(len(columns)), [column.name for column in columns], rotation=30, ha="right")
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    bar = figure.colorbar(lines, ax=axes, ticks=[0, 1], pad=0.01, fraction=0.03)
    bar.ax.set_yticklabels(["worst", "best"], fontsize=8)
    bar.set_label(f"rank by {first.name}", fontsize=8, color=_MUTED, labelpad=-12)
    return figure


def _slices(results: Results, objective: Objective) -> Figure:
    n = len(results.parameters)
    rows = -(-n // _SLICE_COLUMNS)
    note = f"darker: later trials; (n of {len(results.numbers)}): trials with that parameter"
    figure = _figure(12.0, 0.8 + 2.4 * rows, f"{results.name}: slices of {objective.name}", note)
    panels = _panels(figure, rows, _SLICE_COLUMNS)
    size = 14 if len(results.numbers) < 1000 else 4
    shades = Normalize(-0.5 * results.numbers.max(), results.numbers.max())  # the first ones too can be seen
    for axes, parameter in zip(panels, results.parameters, strict=False):
        shift = np.random.default_rng(0).uniform(-0.25, 0.25, len(results.numbers)) if parameter.choices else 0.0
        x = parameter.values + shift
        axes.scatter(x, objective.values, size, results.numbers, cmap="Blues", norm=shades, alpha=0.8, linewidths=0)
        axes.set_xlabel(parameter.heading)
        if parameter.choices:
            axes.set_xticks(range(len(parameter.choices)), parameter.choices)
            axes.set_xlim(-0.5, len(parameter.choices) - 0.5)
        elif parameter.log:
            axes.set_xlim(parameter.low * 0.8, parameter.high * 1.25)
            _log_axis(axes, "x")
        else:
            margin = 0.05 * (parameter.high - parameter.low) or 0.5
            axes.set_xlim(parameter.low - margin, parameter.high + margin)
        _scale_objective(axes, objective)
        axes.set_ylabel("")
    for axes in panels[n:]:
        axes.remove()
    return figure


def _pareto(results: Results) -> Figure:
    first, second = results.objectives
    order = np.lexsort((second.loss, first.loss))
    best_before = np.minimum.accumulate(np.concatenate([[np.inf], second.loss[order][:-1]]))
    front = order[second.loss[order] < best_before]
    note = f"{len(front)} of {len(results.numbers)} complete trials: no other is better in both; numbers are trials"
    figure = _figure(8.0, 5.2, f"{results.name}: Pareto front", note)
    (axes,) = _panels(figure, 1, 1)
    axes.plot(second.values, first.values, "o", ms=4, color=_ENDED, alpha=0.6, mew=0)
    axes.plot(second.values[front], first.values[front], "o-", ms=6, lw=1.2, color=_BEST)
    _scale_objective(axes, first)
    axes.set_xlabel(second.name)
    if second.log:
        _log_axis(axes, "x")
    places = axes.transData.transform(np.column_stack([second.values[front], first.values[front]]))
    labelled: list[Floats] = []
    for index, place in zip(front, places, strict=True):
        if all((np.abs(place - other) > (35, 12)).any() for other in labelled):  # pixels that a number takes
            labelled.append(place)
            at, text = (second.values[index], first.values[index]), f"{results.numbers[index]:.0f}"
            axes.annotate(text, at, (4, -10), textcoords="offset points", fontsize=7, color=_INK)
    return figure


# ---- parts of pictures ----


def _figure(width: float, height: float, title: str, note: str) -> Figure:
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    figure.suptitle(f"{title}\n{note}" if note else title, fontsize=11, color=_INK, x=0.01, ha="left")
    return figure


def _panels(figure: Figure, rows: int, columns: int) -> list[Axes]:
    panels = list(np.atleast_1d(figure.subplots(rows, columns, sharey=columns > 1)).flat)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_MUTED, labelsize=8)
        axes.xaxis.label.set(color=_MUTED, fontsize=9)
        axes.yaxis.label.set(color=_MUTED, fontsize=9)
        axes.grid(color=_LINE, lw=0.6)
        axes.set_axisbelow(True)
    return panels


def _scale_objective(axes: Axes, objective: Objective) -> None:
    axes.set_ylabel(objective.name)
    if objective.log:
        _log_axis(axes, "y")


def _log_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with labels that do not run into each other."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 300 * low else (1.0, 3.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _height(column: Parameter, values: Floats) -> Floats:
    """Return where values stand on an axis of length 1."""
    scale = np.log if column.log else np.asarray
    low, high, used = scale(column.low), scale(column.high), scale(values)
    share = (used - low) / (high - low) if high > low else np.where(np.isnan(used), np.nan, 0.5)
    return np.where(np.isnan(share), _UNUSED, share)


def _marks(column: Parameter) -> list[tuple[float, str]]:
    """Return the heights and texts along an axis."""
    if column.choices:
        places = np.arange(len(column.choices), dtype=np.float64)
        return list(zip(_height(column, places).tolist(), column.choices, strict=True))
    spread = np.geomspace if column.log else np.linspace
    places = np.unique(spread(column.low, column.high, 5))
    whole = bool((column.values[np.isfinite(column.values)] % 1 == 0).all())
    places = np.unique(np.round(places)) if whole else places
    texts = [f"{place:.0f}" if whole else f"{place:.2g}" for place in places]
    return list(zip(_height(column, places).tolist(), texts, strict=True))
