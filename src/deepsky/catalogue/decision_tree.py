"""The decision tree of Galaxy Zoo 2: eleven questions about a galaxy's shape, 37 answers, one vote fraction each.

A fraction is weighted by the way to its question: the answers of a question sum to the fraction of the answers that
lead to it, so that Class7.1 to 7.3 (how round) sum to Class1.1 (smooth).

Source:
    Willett et al. 2013, MNRAS 435, 2835, figure 1; the sums as the Galaxy Zoo challenge published them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Question:
    """One question of the tree.

    Attributes:
        number: 1 to 11, as in the names of the columns.
        text: what the volunteers were asked about.
        answers: what they could choose, in the columns' order.
        parent: the column whose fraction the answers sum to; None: they sum to 1.
    """

    number: int
    text: str
    answers: tuple[str, ...]
    parent: str | None

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the name of each answer's column."""
        return tuple(f"Class{self.number}.{place}" for place in range(1, len(self.answers) + 1))


QUESTIONS = (
    Question(1, "smooth or features", ("smooth", "features or disc", "star or artifact"), None),
    Question(2, "edge-on", ("yes", "no"), "Class1.2"),
    Question(3, "bar", ("yes", "no"), "Class2.2"),
    Question(4, "spiral arms", ("yes", "no"), "Class2.2"),
    Question(5, "bulge", ("none", "just noticeable", "obvious", "dominant"), "Class2.2"),
    Question(6, "anything odd", ("yes", "no"), None),
    Question(7, "roundness", ("round", "in between", "cigar-shaped"), "Class1.1"),
    Question(
        8, "odd feature", ("ring", "lens or arc", "disturbed", "irregular", "other", "merger", "dust lane"), "Class6.1"
    ),
    Question(9, "bulge of an edge-on disc", ("rounded", "boxy", "none"), "Class2.1"),
    Question(10, "winding of the arms", ("tight", "medium", "loose"), "Class4.1"),
    Question(11, "number of arms", ("1", "2", "3", "4", "more than 4", "cannot tell"), "Class4.1"),
)
COLUMNS = tuple(column for question in QUESTIONS for column in question.columns)
_PLACE = {column: place for place, column in enumerate(COLUMNS)}


def places(question: Question) -> slice:
    """Return where a question's answers stand among COLUMNS."""
    start = _PLACE[question.columns[0]]
    return slice(start, start + len(question.answers))


def sums_wanted(fractions: npt.NDArray[np.floating], question: Question) -> npt.NDArray[np.floating]:
    """Return what each row's answers to a question should sum to.

    Args:
        fractions: (row, 37), in the order of COLUMNS.
        question: one of QUESTIONS.
    """
    if question.parent is None:
        return np.ones(len(fractions), fractions.dtype)
    return fractions[:, _PLACE[question.parent]]


def compose(answers: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Weight the answers of each question, which sum to 1 by themselves, by the way to the question.

    Args:
        answers: (row, 37): for every question, how those who reached it answered.

    Returns:
        Vote fractions, (row, 37), that obey every sum of the tree.
    """
    fractions = answers.copy()
    for question in QUESTIONS:  # a parent's question has a lower number
        fractions[:, places(question)] *= sums_wanted(fractions, question)[:, np.newaxis]
    return fractions
