"""The report's page: one HTML file that needs no network and nothing beside it but the files it links."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deepsky.catalogue.decision_tree import QUESTIONS
from deepsky.evaluation.examples import SHAPES, Example, Kind
from deepsky.evaluation.paired import Comparison
from deepsky.report.audited import ladder
from deepsky.report.paper import Study
from deepsky.report.pictures import Pictures
from deepsky.report.results import Result, Results, tuned_results
from deepsky.report.words import make_environment
from deepsky.tracking.provenance import Provenance

_FEW_CLASSES = 4  # are named in a heading
_N_STRIP = 2  # right and wrong ones


@dataclass(frozen=True)
class DatasetPart:
    """What the page says about one dataset.

    Attributes:
        name: of the dataset.
        runs: all of them, cells of the matrix first.
        compared: how they compare; None where there is nothing to compare.
    """

    name: str
    runs: list[Result]
    compared: Comparison | None = None

    @property
    def first(self) -> Result:
        """Return a run that tells what all have in common: test objects, baseline, classes."""
        return self.runs[0]

    @property
    def target(self) -> str:
        """Return what is learned: ``class`` or ``fractions``."""
        return self.first.target

    @property
    def cells(self) -> dict[str, Result]:
        """Return its runs of the matrix by network."""
        return {one.network: one for one in self.runs if one.is_cell and one.target == "class"}

    @property
    def tuned(self) -> dict[str, list[Result]]:
        """Return, by the name of a reference, the runs that searches found from it."""
        found: dict[str, list[Result]] = {}
        for one in self.runs:
            if one.reference:
                found.setdefault(one.reference, []).append(one)
        return found

    def run(self, name: str) -> Result:
        """Return one of its runs."""
        return next(one for one in self.runs if one.name == name)


@dataclass(frozen=True)
class Task:
    """Runs that learned to answer the same question, and may be compared with each other.

    Attributes:
        title: what is asked.
        parts: the datasets.
    """

    title: str
    parts: list[DatasetPart]

    @property
    def runs(self) -> list[Result]:
        """Return its runs."""
        return [one for part in self.parts for one in part.runs]

    @property
    def best(self) -> Result:
        """Return the best of its runs."""
        is_class = self.runs[0].target == "class"
        return max(self.runs, key=lambda one: one.score[0] if is_class else -one.score[0])

    @property
    def runner_up(self) -> tuple[Result, float | None] | None:
        """Return the next best run of the best one's dataset, and the share of replicates in which that is better.

        The share is None where too few groups differ to tell.
        """
        part = next(part for part in self.parts if part.name == self.best.dataset)
        if part.compared is None:
            return None
        runs, best = part.compared.runs, part.compared.runs.index(self.best.name)
        other = 1 if best == 0 else 0
        share = part.compared.better[best][other] if part.compared.is_told(best, other) else None
        return part.run(runs[other]), share

    @property
    def strip(self) -> list[Example]:
        """Return some test objects of the best run: right and wrong ones, or the closest and the farthest."""
        by_kind = {group.kind: group.examples for group in self.best.album.groups}
        kinds: tuple[Kind, Kind] = ("right", "wrong") if self.best.target == "class" else ("close", "far")
        return [one for kind in kinds for one in by_kind.get(kind, [])[:_N_STRIP]]


def render_page(results: Results, provenances: Mapping[str, Provenance], study: Study | None = None) -> str:
    """Return the page's HTML.

    Args:
        results: the runs, at least one.
        provenances: where each run came from, by its key; those that MLflow does not know are missing.
        study: that params.yaml follows; None: it follows none.
    """
    parts = _datasets(results)
    pictures = Pictures(one.album for one in results.runs)
    return (
        make_environment()
        .get_template("page.html.jinja")
        .render(
            contents=_contents(results, parts),
            results=results,
            study=study,
            runs=sorted(results.runs, key=lambda one: -one.skill),
            datasets=parts,
            ladders={
                part.name: ladder(results.audits[part.name], part.runs) for part in parts if part.name in results.audits
            },
            tasks=_tasks(parts),
            matrix=[part for part in parts if part.cells],
            networks=sorted({network for part in parts for network in part.cells}),
            tuned=tuned_results(results),
            provenance={one.name: provenances.get(one.summary["key"]) for one in results.runs},
            questions={question.number: question for question in QUESTIONS},
            shapes=SHAPES,
            pictures=pictures,
        )
    )


def _datasets(results: Results) -> list[DatasetPart]:
    parts: dict[str, DatasetPart] = {}
    for one in results.runs:
        fresh = DatasetPart(one.dataset, [], results.compared.get(one.dataset))
        parts.setdefault(one.dataset, fresh).runs.append(one)
    return list(parts.values())


def _tasks(parts: Sequence[DatasetPart]) -> list[Task]:
    """Bring datasets together whose runs answer the same question."""
    tasks: dict[tuple[str, ...], Task] = {}
    for part in parts:
        classes = tuple(part.first.details["classes"])
        if part.target == "fractions":
            title = "How people voted on galaxies"
        elif len(classes) <= _FEW_CLASSES:
            title = f"{', '.join(classes[:-1])} or {classes[-1]}?" if len(classes) > 1 else classes[0]
        else:
            title = f"Which of {len(classes)} classes?"
        tasks.setdefault((part.target, *classes), Task(title, [])).parts.append(part)
    return sorted(tasks.values(), key=lambda task: -len(task.runs))


def _contents(results: Results, parts: Sequence[DatasetPart]) -> str:
    """Say what the page is about."""
    with_cells = [part for part in parts if part.cells]
    n_networks = len({network for part in with_cells for network in part.cells})
    n_tuned = sum(one.is_tuned for one in results.runs)
    n_others = len(results.runs) - n_tuned - sum(len(part.cells) for part in with_cells)
    texts = [f"{_plural(len(with_cells), 'dataset')} × {_plural(n_networks, 'network')}"] if with_cells else []
    texts += [_plural(n_others, "single run")] if n_others else []
    texts += [f"{n_tuned} tuned by a search"] if n_tuned else []
    listed = ", ".join([*texts[:-1], f"and {texts[-1]}"]) if len(texts) > 1 else texts[0]
    n_runs = len(results.runs)
    of_planned = f"{n_runs} of {results.n_planned} runs" if results.left_out else _plural(n_runs, "run")
    return f"{of_planned}: {listed}."


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' if n > 1 else ''}"
