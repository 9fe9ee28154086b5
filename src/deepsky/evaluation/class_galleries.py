"""Galleries of a network that tells classes: samples, right and wrong answers, confused pairs, Grad-CAM."""

import numpy as np

from deepsky.evaluation.pictured import Pictured, Rows
from deepsky.evaluation.tiles import N_ACROSS, Gallery, Picture, Row, Tile, in_rows, overlaid
from deepsky.metrics import confused_pairs
from deepsky.training.explain import grad_cam

_RIGHT, _WRONG = "#2e7d4f", "#b3261e"
_N_PAIRS = 4


def class_galleries(run: Pictured) -> dict[str, Gallery]:
    """Return samples, predictions, confused_pairs and grad_cam."""
    test, labels = run.rows("test"), run.packed.labels
    right = test[run.answers[test] == labels[test]]
    wrong = test[run.answers[test] != labels[test]]
    share = f"{len(right)} of {len(test)} test objects"
    return {
        "samples": (_class_samples(run), "Training images"),
        "predictions": (
            in_rows([_answer_tile(run, row) for row in right[: 2 * N_ACROSS]], f"right: {share}")
            + in_rows([_answer_tile(run, row) for row in wrong[: 2 * N_ACROSS]], f"wrong: {len(wrong)}"),
            "Test images with their answers",
        ),
        "confused_pairs": (_pair_rows(run, right, wrong), "Classes most often taken for each other"),
        "grad_cam": (_class_heat(run, right[:N_ACROSS], wrong[:N_ACROSS]), "Grad-CAM: what speaks for an answer"),
    }


def _class_samples(run: Pictured) -> list[Row]:
    """Show some training images of each class."""
    train = run.rows("train")
    rows = []
    for code, name in enumerate(run.classes):
        of_class = train[run.packed.labels[train] == code]
        tiles = [Tile(run.picture(row)) for row in of_class[:N_ACROSS]]
        rows.append(Row(tiles, f"{name}: {len(of_class)} training objects"))
    return rows


def _answer_tile(run: Pictured, row: int, picture: Picture | None = None) -> Tile:
    """Show an image with its class, and below it the answer where that is another."""
    label, answer = run.packed.labels[row], run.answers[row]
    probability = f"{run.probabilities[row, answer]:.2f}"
    if label == answer:
        caption: tuple[str, ...] = (f"{probability} {run.classes[label]}",)
    else:
        caption = (f"is {run.classes[label]}", f"{probability} {run.classes[answer]}")
    return Tile(run.picture(row) if picture is None else picture, caption, _RIGHT if label == answer else _WRONG)


def _pair_rows(run: Pictured, right: Rows, wrong: Rows) -> list[Row]:
    """Show the most frequent confusions: left those taken for the other class, right some that rightly are of it."""
    n, labels = len(run.classes), run.packed.labels
    confusion = np.zeros((n, n), np.int64)
    for rows in (right, wrong):
        np.add.at(confusion, (labels[rows], run.answers[rows]), 1)
    shown = []
    for pair in confused_pairs(confusion, run.classes).head(_N_PAIRS).itertuples():
        true, predicted = run.classes.index(pair.true), run.classes.index(pair.predicted)
        taken = wrong[(labels[wrong] == true) & (run.answers[wrong] == predicted)]
        surest = taken[np.argsort(-run.probabilities[taken, predicted], kind="stable")][: N_ACROSS // 2]
        tiles = [_answer_tile(run, row) for row in surest]
        tiles += [Tile(None)] * (N_ACROSS // 2 - len(tiles))
        tiles += [_answer_tile(run, row) for row in right[labels[right] == predicted][: N_ACROSS // 2]]
        heading = f"{pair.true} taken for {pair.predicted}: {pair.n}, {pair.share:.0%} of its test objects"
        shown.append(Row(tiles, f"{heading}; on the right {pair.predicted}, rightly answered"))
    return shown


def _class_heat(run: Pictured, right: Rows, wrong: Rows) -> list[Row]:
    """Show what speaks for the answers to right and wrong ones, and in wrong ones for the true class."""
    chosen, labels = np.concatenate([right, wrong]), run.packed.labels
    if not len(chosen):
        return []
    columns = [(run.answers[row], labels[row]) for row in chosen]
    heats = dict(zip(chosen, grad_cam(run.tail, run.inputs(chosen), columns, exclusive=True), strict=True))

    def laid_over(row: int, place: int) -> Picture:
        return overlaid(run.picture(row), heats[row][place])

    return [
        Row([Tile(run.picture(row)) for row in right], "right ones"),
        Row([_answer_tile(run, row, laid_over(row, 0)) for row in right]),
        Row([Tile(run.picture(row)) for row in wrong], "wrong ones"),
        Row([_answer_tile(run, row, laid_over(row, 0)) for row in wrong], "what speaks for the wrong answer"),
        Row(
            [Tile(laid_over(row, 1), (run.classes[labels[row]],), _RIGHT) for row in wrong],
            "what speaks for the true class",
        ),
    ]
