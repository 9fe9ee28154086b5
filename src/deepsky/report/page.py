"""The report's page: one HTML file that needs no network and nothing beside it but the files it links."""

import json
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from deepsky.report import charts
from deepsky.report.results import Result, tuned_results


@dataclass(frozen=True)
class DatasetPart:
    """What the page says about one dataset.

    Attributes:
        name: of the dataset.
        n_test: test objects.
        baseline: accuracy of always answering ``majority_class``.
        majority_class: the training rows' most frequent class.
        class_counts: split -> class -> objects.
        by_network: its runs, tuned ones too.
        tuned: the tuned run of each network that has one.
    """

    name: str
    n_test: int
    baseline: float
    majority_class: str
    class_counts: dict[str, dict[str, int]]
    by_network: dict[str, Result]
    tuned: dict[str, Result]


def render_page(results: list[Result]) -> str:
    """Return the page's HTML.

    Args:
        results: the runs, sorted; at least one.
    """
    environment = Environment(
        loader=PackageLoader("deepsky.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(charts=charts.training_charts, chart_size=(charts.WIDTH, charts.HEIGHT))
    environment.filters.update(
        score=lambda value: f"{value:.3f}",
        signed=lambda value: f"{value:+.3f}".replace("-", "−"),
        percent=lambda value: f"{value:.0%}",
        short=_short,
        flat=_flat,
    )
    scores = [one.summary["test_accuracy"] for one in results]
    return environment.get_template("page.html.jinja").render(
        results=results,
        datasets=_datasets(results),
        networks=sorted({one.plain_network for one in results}),
        tuned=tuned_results(results),
        best=max(results, key=lambda one: one.summary["test_accuracy"]),
        shade=lambda value: _shade(value, min(scores), max(scores)),
    )


def _datasets(results: list[Result]) -> list[DatasetPart]:
    parts: dict[str, DatasetPart] = {}
    for one in results:
        if one.dataset not in parts:
            summary, details = one.summary, one.details
            parts[one.dataset] = DatasetPart(
                one.dataset,
                summary["n_test"],
                summary["test_baseline"],
                details["majority_class"],
                details["class_counts"],
                {},
                {},
            )
        parts[one.dataset].by_network[one.network] = one
        if one.is_tuned:
            parts[one.dataset].tuned[one.plain_network] = one
    return list(parts.values())


def _shade(value: float, lowest: float, highest: float) -> int:
    """Return how strongly a cell is coloured, 4 to 46 percent: text stays readable on it in both themes."""
    return round(4 + 42 * (value - lowest) / max(highest - lowest, 1e-9))


def _short(value: Any) -> str:
    """Return a parameter's value with the digits that tell something."""
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value).strip('"')


def _flat(params: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested parameters as ``outer.inner`` names."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
