"""Votes on simulated galaxies: how volunteers would answer the 37-answer decision tree about given shapes."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.catalogue.decision_tree import COLUMNS, QUESTIONS, compose, places
from deepsky.simulation.shapes import draw_shapes, edge_on, share_out

_Array = npt.NDArray[np.float64]
# So that smooth galaxies lead in about 42 % of the table and features in 57 %, as in the challenge's.
# Cigars are five times as frequent as there: a small table has to hold some.
_KIND_SHARES = {
    "round": 0.15,
    "in-between": 0.15,
    "cigar": 0.05,
    "disc": 0.13,
    "barred": 0.08,
    "tight": 0.08,
    "loose": 0.11,
    "thin": 0.05,
    "bulged": 0.065,
    "ring": 0.025,
    "lens": 0.005,
    "disturbed": 0.03,
    "irregular": 0.015,
    "merger": 0.04,
    "star": 0.006,
}
_N_VOLUNTEERS = 40
_TASTE = 0.5  # scatter of a galaxy's logits that its shape does not explain
_ODD = ("ring", "lens", "disturbed", "irregular", "merger", "dust")
_ODD_ANSWERS = ("ring", "lens", "disturbed", "irregular", "other", "merger", "dust")  # of question 8


def draw_galaxies(n: int, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw a table like the Galaxy Zoo challenge's, and the shapes that its votes are about.

    Args:
        n: galaxies, up to 400,000.
        rng: source of everything random.

    Returns:
        Votes: GalaxyID (int64, unique, six digits, increasing) and COLUMNS, rounded to 6 decimals as published.
        Shapes: row by row, the columns as the fields of Shape.
    """
    kinds = rng.permutation(share_out(_KIND_SHARES, n)).tolist()
    shapes = draw_shapes(kinds, rng)
    votes = pd.DataFrame(vote_fractions(shapes, rng).round(6), columns=list(COLUMNS))
    votes.insert(0, "GalaxyID", np.sort(rng.choice(900_000, n, replace=False)) + 100_000)
    return votes, shapes


def vote_fractions(shapes: pd.DataFrame, rng: np.random.Generator) -> _Array:
    """Let 40 volunteers look at each galaxy; each answers the questions that the answers before lead to.

    Args:
        shapes: what they look at, columns as the fields of Shape.
        rng: source of the volunteers' differences.

    Returns:
        Fractions, (galaxy, 37), in the order of COLUMNS; they obey every sum of the tree.
    """
    logits = _logits(shapes)
    logits += _TASTE * rng.standard_normal(logits.shape)
    answers = np.empty_like(logits)
    counts = np.empty(logits.shape, np.int64)
    for question in QUESTIONS:
        here = places(question)
        odds = np.exp(logits[:, here] - logits[:, here].max(axis=1, keepdims=True))
        chances = odds / odds.sum(axis=1, keepdims=True)
        if question.parent is None:
            asked = np.full(len(shapes), _N_VOLUNTEERS)
        else:
            asked = counts[:, COLUMNS.index(question.parent)]
        counts[:, here] = rng.multinomial(asked, chances)
        reached = asked[:, np.newaxis]
        answers[:, here] = np.where(reached > 0, counts[:, here] / np.maximum(reached, 1), chances)
    return compose(answers).astype(np.float64, copy=False)


def _logits(shapes: pd.DataFrame) -> _Array:
    """How strongly each answer attracts, (galaxy, 37)."""
    shape = {name: shapes[name].to_numpy() for name in shapes.columns if name != "kind"}
    disc_seen = 0.55 * np.clip((1 - shape["bulge"]) / 0.6, 0, 1)
    visible = ("arms", "bar", "ring", "disturbed", "irregular")
    features = np.max([edge_on(shapes), disc_seen, *(shape[name] for name in visible)], axis=0)
    odd = np.max([shape[name] for name in _ODD], axis=0)
    zero = np.zeros(len(shapes))
    unsure = 2.5 - shape["arms"] * 3  # whose arms are faint cannot be counted
    return np.column_stack(
        [
            *(zero, 6 * (features - 0.42), 14 * (shape["star"] - 0.35) - 0.5),
            *_yes_or_no(12 * (edge_on(shapes) - 0.5)),
            *_yes_or_no(9 * (shape["bar"] - 0.5)),
            *_yes_or_no(9 * (shape["arms"] - 0.36)),
            *_nearest(shape["bulge"], (0.0, 0.15, 0.4, 0.8), 0.13),
            *_yes_or_no(5.5 * (odd - 0.5)),
            *_nearest(shape["axis_ratio"], (0.95, 0.62, 0.26), 0.17),
            *(5 * shape.get(name, zero) for name in _ODD_ANSWERS),
            *(1 - 5 * shape["boxy"], 5 * shape["boxy"] - 3, 14 * (0.16 - shape["bulge"])),
            *_nearest(shape["pitch_deg"], (10.0, 18.0, 30.0), 6.0),
            *(np.where(shape["n_arms"] == count, 3.0, 0.0) for count in range(1, 6)),
            unsure,
        ]
    )


def _yes_or_no(logit: _Array) -> tuple[_Array, _Array]:
    return logit / 2, -logit / 2


def _nearest(value: _Array, centres: tuple[float, ...], width: float) -> list[_Array]:
    """Logits of ordered answers: the one whose centre is nearest attracts most."""
    return [-(((value - centre) / width) ** 2) for centre in centres]
