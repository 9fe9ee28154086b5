"""Which objects of a run a person should see, and what is said of each: for pages, sheets and pictures alike."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.evaluation.pictured import Pictured, Rows
from deepsky.evaluation.trained import TESTED
from deepsky.metrics import confused_pairs

Kind = Literal["right", "wrong", "uncertain", "pair", "close", "far", "random"]
N_SHOWN = 8  # of a group; of the wrong ones twice as many
_N_PAIRS = 4
# The fractions that tell the most of a shape: what captions name and Grad-CAM explains.
SHAPES = {"smooth": "Class1.1", "edge-on": "Class2.1", "bar": "Class3.1", "spiral": "Class4.1"}


@dataclass(frozen=True)
class Example:
    """One object with the answer to it.

    Attributes:
        row: its place among the dataset's rows.
        picture: place of its image among the dataset's images.
        id: of the object.
        truth: its class, or its telling fractions in words.
        answer: the same of the answer.
        score: probability of the answer; of fractions the RMSE over all 37.
        is_right: whether the answer is the truth; None where fractions are learned.
        ra_deg: right ascension; None where unknown.
        dec_deg: declination; None where unknown.
        caption: what is written below its picture, line by line.
    """

    row: int
    picture: int
    id: str
    truth: str
    answer: str
    score: float
    is_right: bool | None
    ra_deg: float | None
    dec_deg: float | None
    caption: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Objects that are shown together.

    Attributes:
        kind: why they were chosen.
        heading: what they are.
        examples: the objects.
        beside: of a confused pair, some that rightly got the answer.
        of_beside: what those are.
    """

    kind: Kind
    heading: str
    examples: Sequence[Example]
    beside: Sequence[Example] = field(default_factory=list)
    of_beside: str = ""


def example_groups(run: Pictured) -> list[Group]:
    """Return what is shown of a run; a group without objects is left out."""
    groups = _fraction_groups(run) if run.packed.card.target == "fractions" else _class_groups(run)
    return [group for group in groups if group.examples]


def worst_group(run: Pictured, limit: int) -> Group:
    """Return the test objects that a run got wrong, the surest first; of fractions those with the largest error.

    Args:
        run: the run.
        limit: objects at most.
    """
    test, tested = run.rows("test"), TESTED[run.tested_on]
    if run.packed.card.target == "fractions":
        farthest = by_error(run, test)[::-1]
        heading = f"The largest errors of {len(test)} {tested} objects"
        return Group("far", heading, fraction_examples(run, farthest[:limit]))
    wrong = _surest_first(run, test[~_is_right(run, test)])
    heading = f"{len(wrong)} of {len(test)} {tested} objects are wrong"
    shown = f"{heading}; the {limit} surest" if len(wrong) > limit else heading
    return Group("wrong", shown, class_examples(run, wrong[:limit]))


def examples_of(groups: Iterable[Group]) -> Iterator[Example]:
    """Yield every object that groups show; one may come more than once."""
    for group in groups:
        yield from group.examples
        yield from group.beside


def class_examples(run: Pictured, rows: Rows) -> list[Example]:
    """Return some rows with their class and the answer."""
    found = []
    for row in rows.tolist():
        truth, answer = run.classes[run.labels[row]], run.classes[run.answers[row]]
        probability = float(run.probabilities[row, run.answers[row]])
        said = f"{probability:.2f} {answer}"
        caption = (said,) if truth == answer else (f"is {truth}", said)
        found.append(_example(run, row, truth, answer, probability, truth == answer, caption))
    return found


def fraction_examples(run: Pictured, rows: Rows) -> list[Example]:
    """Return some rows with their telling fractions, the answers to them and the RMSE."""
    errors, found = row_errors(run.predictions), []
    for row in rows.tolist():
        of_row = run.predictions.loc[row]
        true, said = ({name: f"{of_row[f'{kind}_{column}']:.2f}" for name, column in SHAPES.items()} for kind in "tp")
        caption = (f"{name} {value} ({said[name]})" for name, value in true.items())
        lines = (*caption, f"RMSE {errors[row]:.3f}")
        found.append(_example(run, row, _in_words(true), _in_words(said), float(errors[row]), None, lines))
    return found


def row_errors(predictions: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the RMSE of each row over the 37 fractions, (row,)."""
    truth, predicted = (predictions[[f"{kind}_{column}" for column in COLUMNS]].to_numpy() for kind in "tp")
    errors: npt.NDArray[np.float64] = np.sqrt(((predicted - truth) ** 2).mean(axis=1))
    return errors


def by_error(run: Pictured, rows: Rows) -> Rows:
    """Return the rows of fractions, the smallest error first."""
    return rows[np.argsort(row_errors(run.predictions)[rows], kind="stable")]


def _class_groups(run: Pictured) -> list[Group]:
    test = run.rows("test")
    is_right = _is_right(run, test)
    right, wrong = test[is_right], _surest_first(run, test[~is_right])
    top_two = np.sort(run.probabilities[test], axis=1)[:, -2:]
    uncertain = test[np.argsort(np.diff(top_two, axis=1).min(axis=1, initial=1.0), kind="stable")]
    return [
        Group("wrong", f"Wrong: {len(wrong)} of {len(test)}, the surest first", _shown(run, wrong, 2 * N_SHOWN)),
        Group("uncertain", "Least certain: two classes almost as probable", _shown(run, uncertain, N_SHOWN)),
        Group("right", f"Right: {len(right)} of {len(test)}, some of each class", _shown(run, _mixed(run, right))),
        *_pairs(run, _mixed(run, right), wrong),
    ]


def _pairs(run: Pictured, right: Rows, wrong: Rows) -> list[Group]:
    """Return the most frequent confusions, beside some that are rightly of the class they were taken for."""
    labels, n = run.labels, len(run.classes)
    confusion = np.zeros((n, n), np.int64)
    for rows in (right, wrong):
        np.add.at(confusion, (labels[rows], run.answers[rows]), 1)
    groups = []
    for pair in confused_pairs(confusion, run.classes).head(_N_PAIRS).itertuples():
        true, predicted = run.classes.index(pair.true), run.classes.index(pair.predicted)
        taken = wrong[(labels[wrong] == true) & (run.answers[wrong] == predicted)]
        share = f"{pair.share:.0%} of its {TESTED[run.tested_on]} objects"
        heading = f"{pair.true} taken for {pair.predicted}: {pair.n}, {share}"
        beside = _shown(run, right[labels[right] == predicted], N_SHOWN // 2)
        of_beside = f"{pair.predicted}, rightly answered"
        groups.append(Group("pair", heading, _shown(run, taken, N_SHOWN // 2), beside, of_beside))
    return groups


def _fraction_groups(run: Pictured) -> list[Group]:
    test = run.rows("test")
    closest = by_error(run, test)
    chosen: dict[Kind, tuple[str, Rows]] = {
        "far": ("Farthest from the truth", closest[::-1]),
        "close": ("Closest", closest),
        "random": ("Taken at random", test),
    }
    return [
        Group(kind, f"{name}: true (predicted)", fraction_examples(run, rows[:N_SHOWN]))
        for kind, (name, rows) in chosen.items()
    ]


def _shown(run: Pictured, rows: Rows, limit: int = N_SHOWN) -> list[Example]:
    return class_examples(run, rows[:limit])


def _in_words(fractions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fractions.items())


def _is_right(run: Pictured, rows: Rows) -> npt.NDArray[np.bool_]:
    is_right: npt.NDArray[np.bool_] = run.answers[rows] == run.labels[rows]
    return is_right


def _surest_first(run: Pictured, rows: Rows) -> Rows:
    return rows[np.argsort(-run.probabilities[rows, run.answers[rows]], kind="stable")]


def _mixed(run: Pictured, rows: Rows) -> Rows:
    """Let the classes take turns."""
    turn = pd.Series(run.labels[rows]).groupby(run.labels[rows]).cumcount()
    return rows[np.argsort(turn.to_numpy(), kind="stable")]


def _example(
    run: Pictured, row: int, truth: str, answer: str, score: float, is_right: bool | None, caption: tuple[str, ...]
) -> Example:
    of_row = run.packed.rows.iloc[row]
    known = {name: float(of_row[name]) for name in ("ra_deg", "dec_deg") if pd.notna(of_row[name])}
    position = (known.get("ra_deg"), known.get("dec_deg")) if len(known) == 2 else (None, None)
    return Example(row, run.place(row), str(of_row["id"]), truth, answer, score, is_right, *position, caption)
