"""The report's page: one HTML file that needs no network and nothing beside it but the files it links."""

import json
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from deepsky.catalogue.decision_tree import QUESTIONS
from deepsky.report import charts
from deepsky.report.paper import Study
from deepsky.report.results import Result, Results, flat_params, tuned_results


@dataclass(frozen=True)
class DatasetPart:
    """What the page says about one dataset.

    Attributes:
        name: of the dataset.
        target: ``class`` or ``fractions``.
        n_test: test objects.
        n_test_images: the pictures that show them.
        baseline: accuracy of always answering ``majority_class``, or RMSE of always answering the mean fractions.
        majority_class: the training rows' most frequent class; empty for fractions.
        class_counts: split -> class -> objects.
        runs: all of them, cells of the matrix first.
        tuned: by the name of a reference, the runs that searches found from it.
    """

    name: str
    target: str
    n_test: int
    n_test_images: int
    baseline: float
    majority_class: str
    class_counts: dict[str, dict[str, int]]
    runs: list[Result]
    tuned: dict[str, list[Result]]

    @property
    def cells(self) -> dict[str, Result]:
        """Return its runs of the matrix by network."""
        return {one.network: one for one in self.runs if one.is_cell and one.target == "class"}

    @property
    def listed(self) -> list[Result]:
        """Return its runs that stand for themselves, of fractions all, the best first; tuned ones stand elsewhere."""
        runs = [one for one in self.runs if not one.is_tuned and (self.target == "fractions" or not one.is_cell)]
        return sorted(runs, key=lambda one: one.score[0], reverse=self.target == "class")


def render_page(results: Results, study: Study | None = None) -> str:
    """Return the page's HTML.

    Args:
        results: the runs, at least one.
        study: that params.yaml follows; None: it follows none.
    """
    runs, parts = results.runs, _datasets(results.runs)
    of_classes = [one for one in runs if one.target == "class"]
    in_front = [one for one in of_classes if one.is_cell] or of_classes  # warm-ups would win
    networks = sorted({network for part in parts for network in part.cells})
    scores = [one.score[0] for one in of_classes]
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            results=runs,
            study=study,
            contents=_contents(results, parts, networks),
            n_planned=results.n_planned,
            left_out=results.left_out,
            datasets=parts,
            matrix=[part for part in parts if part.cells],
            networks=networks,
            of_singles=[part for part in parts if part.target == "class" and part.listed],
            of_fractions=[part for part in parts if part.target == "fractions" and part.listed],
            tuned=tuned_results(results),
            questions={question.number: question for question in QUESTIONS},
            best=max(in_front, key=lambda one: one.score[0], default=None),
            shade=lambda value: _shade(value, min(scores), max(scores)),
        )
    )


def _environment() -> Environment:
    """Return the templates with what they call."""
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
        flat=flat_params,
    )
    return environment


def _contents(results: Results, parts: list[DatasetPart], networks: list[str]) -> str:
    """Say what the page is about."""
    n_matrix = sum(bool(part.cells) for part in parts)
    n_tuned = sum(one.is_tuned for one in results.runs)
    n_others = len(results.runs) - n_tuned - sum(len(part.cells) for part in parts)
    texts = [f"{_count(n_matrix, 'dataset')} × {_count(len(networks), 'network')}"] if networks else []
    texts += [_count(n_others, "single run")] if n_others else []
    texts += [f"{n_tuned} tuned by a search"] if n_tuned else []
    listed = ", ".join([*texts[:-1], f"and {texts[-1]}"]) if len(texts) > 1 else texts[0]
    n_runs = len(results.runs)
    of_planned = f"{n_runs} of {results.n_planned} runs" if results.left_out else _count(n_runs, "run")
    return f"{of_planned}: {listed}."


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' if n > 1 else ''}"


def _datasets(runs: list[Result]) -> list[DatasetPart]:
    parts: dict[str, DatasetPart] = {}
    for one in runs:
        if one.dataset not in parts:
            summary, details = one.summary, one.details
            parts[one.dataset] = DatasetPart(
                one.dataset,
                one.target,
                summary["n_test"],
                summary["n_test_images"],
                summary["test_baseline"],
                details.get("majority_class", ""),
                details["class_counts"],
                [],
                {},
            )
        parts[one.dataset].runs.append(one)
        if one.reference:
            parts[one.dataset].tuned.setdefault(one.reference, []).append(one)
    return list(parts.values())


def _shade(value: float, lowest: float, highest: float) -> int:
    """Return how strongly a cell is coloured, 4 to 46 percent: text stays readable on it in both themes."""
    return round(4 + 42 * (value - lowest) / max(highest - lowest, 1e-9))


def _signed(value: float, digits: str = "%.3f") -> str:
    return digits.replace("%", "%+") % value if value >= 0 else "−" + digits % -value


def _short(value: Any) -> str:
    """Return a parameter's value with the digits that tell something."""
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value).strip('"')
