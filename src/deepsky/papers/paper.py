"""Read a study: a YAML file of its own, beside this module."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Any, Literal

from ruamel.yaml import YAML

PAPERS = ("star-galaxy-quasar", "networks", "fractions", "transfer", "galaxy10")


@dataclass(frozen=True)
class Question:
    """What a study asked, and the runs that answer it.

    Attributes:
        asks: in words.
        kind: ``better``: is the first run better than the second; ``overfits``: does the run's val loss turn up again.
        runs: their names.
    """

    asks: str
    kind: Literal["better", "overfits"]
    runs: list[str]


@dataclass(frozen=True)
class Paper:
    """A study.

    Attributes:
        title: what it was about, and when.
        n: objects or pictures that it had; None: it does not say.
        chosen: what it leaves open and is chosen here, a line each.
        params: sections of params.yaml. An entry of ``datasets.pictures`` may have a ``share``: of the objects.
        printed: figures by run, and in it by their name in the summary of all runs (``test_accuracy``).
        printed_f1: F1 by run and class.
        questions: that its runs answer.
    """

    title: str
    n: int | None
    params: Mapping[str, Any]
    chosen: list[str] = field(default_factory=list)
    printed: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    printed_f1: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)

    def compared(self) -> dict[str, Any]:
        """Return what the report sets beside the runs, as plain values."""
        whole = asdict(self)
        return {key: whole[key] for key in ("title", "chosen", "printed", "printed_f1", "questions")}


def read_paper(name: str) -> Paper:
    """Read a study.

    Args:
        name: one of PAPERS.
    """
    text = (files(__package__) / f"{name}.yaml").read_text(encoding="utf-8")
    content = YAML(typ="safe").load(text)
    return Paper(**content | {"questions": [Question(**one) for one in content.get("questions", [])]})
