"""The report's page: one HTML file that needs no network and nothing beside it but the files it links."""

import json
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from deepsky.catalogue.decision_tree import QUESTIONS
from deepsky.report import charts
from deepsky.report.results import Result, tuned_results


@dataclass(frozen=True)
class DatasetPart:
    """What the page says about one dataset.

    Attributes:
        name: of the dataset.
        target: ``class`` or ``fractions``.
        n_test: test objects.
        baseline: accuracy of always answering ``majority_class``, or RMSE of always answering the mean fractions.
        majority_class: the training rows' most frequent class; empty for fractions.
        class_counts: split -> class -> objects.
        by_network: its runs, tuned ones and recipes too.
        tuned: the tuned run of each network that has one.
    """

    name: str
    target: str
    n_test: int
    baseline: float
    majority_class: str
    class_counts: dict[str, dict[str, int]]
    by_network: dict[str, Result]
    tuned: dict[str, Result]

    @property
    def in_matrix(self) -> bool:
        """Whether networks of the matrix learned from it."""
        return any(not one.is_recipe for one in self.by_network.values())

    @property
    def recipes(self) -> list[Result]:
        """Return the runs of its recipes, the best first."""
        runs = [one for one in self.by_network.values() if one.is_recipe]
        return sorted(runs, key=lambda one: one.score[0], reverse=self.target == "class")


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
        fine=lambda value: f"{value:.4f}",
        signed=_signed,
        percent=lambda value: f"{value:.0%}",
        short=_short,
        flat=_flat,
    )
    parts, of_classes = _datasets(results), [one for one in results if one.target == "class"]
    in_front = [one for one in of_classes if not one.is_recipe] or of_classes  # warm-ups would win
    networks = sorted({one.plain_network for one in results if not one.is_recipe})
    scores = [one.score[0] for one in of_classes]
    return environment.get_template("page.html.jinja").render(
        results=results,
        contents=_contents(results, parts, networks),
        datasets=parts,
        matrix=[part for part in parts if part.in_matrix],
        networks=networks,
        of_recipes=[part for part in parts if part.target == "class" and part.recipes],
        of_fractions=[part for part in parts if part.target == "fractions"],
        tuned=tuned_results(results),
        questions={question.number: question for question in QUESTIONS},
        best=max(in_front, key=lambda one: one.score[0], default=None),
        shade=lambda value: _shade(value, min(scores), max(scores)),
    )


def _contents(results: list[Result], parts: list[DatasetPart], networks: list[str]) -> str:
    """Say what the page is about."""
    n_matrix = sum(part.in_matrix for part in parts)
    n_recipes, n_tuned = sum(one.is_recipe for one in results), sum(one.is_tuned for one in results)
    texts = [f"{_count(n_matrix, 'dataset')} × {_count(len(networks), 'network')}"] if networks else []
    texts += [_count(n_recipes, "recipe")] if n_recipes else []
    texts += [f"{n_tuned} tuned by a search"] if n_tuned else []
    listed = ", ".join([*texts[:-1], f"and {texts[-1]}"]) if len(texts) > 1 else texts[0]
    return f"{_count(len(results), 'trained network')}: {listed}."


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' if n > 1 else ''}"


def _datasets(results: list[Result]) -> list[DatasetPart]:
    parts: dict[str, DatasetPart] = {}
    for one in results:
        if one.dataset not in parts:
            summary, details = one.summary, one.details
            parts[one.dataset] = DatasetPart(
                one.dataset,
                one.target,
                summary["n_test"],
                summary["test_baseline"],
                details.get("majority_class", ""),
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


def _signed(value: float, digits: str = "%.3f") -> str:
    return digits.replace("%", "%+") % value if value >= 0 else "−" + digits % -value


def _short(value: Any) -> str:
    """Return a parameter's value with the digits that tell something."""
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value).strip('"')


def _flat(params: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested parameters as ``outer.inner`` names."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
