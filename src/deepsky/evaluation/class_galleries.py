"""Galleries of a network that tells classes: samples, right and wrong answers, confused pairs, Grad-CAM."""

from collections.abc import Sequence

import numpy as np

from deepsky.evaluation.examples import N_SHOWN, Example, Group, class_examples, example_groups
from deepsky.evaluation.insight import Insight
from deepsky.evaluation.pictured import Pictured, Rows
from deepsky.evaluation.tiles import N_ACROSS, RIGHT, WRONG, Gallery, Picture, Row, Tile, in_rows, overlaid
from deepsky.training.explain import grad_cam


def class_galleries(insight: Insight) -> dict[str, Gallery]:
    """Return samples, predictions, confused_pairs and grad_cam."""
    run = insight.run
    groups = example_groups(run)
    singles, pairs = ([group for group in groups if (group.kind == "pair") == is_pair] for is_pair in (False, True))
    by_kind = {group.kind: np.array([one.row for one in group.examples], np.int64) for group in singles}
    right, wrong = (by_kind.get(kind, np.array([], np.int64))[:N_ACROSS] for kind in ("right", "wrong"))
    return {
        "samples": (_class_samples(run), "Training images"),
        "predictions": (
            [row for group in singles for row in in_rows(_tiles(run, group.examples), group.heading)],
            "Test images with their answers",
        ),
        "confused_pairs": ([_pair_row(run, pair) for pair in pairs], "Classes most often taken for each other"),
        "grad_cam": (_class_heat(insight, right, wrong), "Grad-CAM: what speaks for an answer"),
    }


def _class_samples(run: Pictured) -> list[Row]:
    """Show some training images of each class."""
    train = run.rows("train")
    rows = []
    for code, name in enumerate(run.classes):
        of_class = train[run.labels[train] == code]
        tiles = [Tile(run.picture(row)) for row in of_class[:N_ACROSS]]
        rows.append(Row(tiles, f"{name}: {len(of_class)} training objects"))
    return rows


def _tiles(run: Pictured, examples: Sequence[Example]) -> list[Tile]:
    """Show images with their answers, and above those their class where it is another."""
    return [Tile(run.picture(one.row), one.caption, RIGHT if one.is_right else WRONG) for one in examples]


def _pair_row(run: Pictured, pair: Group) -> Row:
    """Show on the left those taken for the other class, on the right some that rightly are of it."""
    tiles = _tiles(run, pair.examples)
    tiles += [Tile(None)] * (N_SHOWN // 2 - len(tiles)) + _tiles(run, pair.beside)
    return Row(tiles, f"{pair.heading}; on the right {pair.of_beside}")


def _class_heat(insight: Insight, right: Rows, wrong: Rows) -> list[Row]:
    """Show what speaks for the answers to right and wrong ones, and in wrong ones for the true class."""
    run = insight.run
    chosen, labels = np.concatenate([right, wrong]), run.labels
    if not len(chosen):
        return []
    columns = [(run.answers[row], labels[row]) for row in chosen]
    heats = dict(zip(chosen, grad_cam(insight.tail, insight.inputs(chosen), columns, exclusive=True), strict=True))

    def laid_over(row: int, place: int) -> Picture:
        return overlaid(run.picture(row), heats[row][place])

    def explained(rows: Rows) -> list[Tile]:
        pictures = [laid_over(row, 0) for row in rows]
        tiles = _tiles(run, class_examples(run, rows))
        return [Tile(picture, tile.caption, tile.ink) for picture, tile in zip(pictures, tiles, strict=True)]

    return [
        Row([Tile(run.picture(row)) for row in right], "right ones"),
        Row(explained(right)),
        Row([Tile(run.picture(row)) for row in wrong], "wrong ones"),
        Row(explained(wrong), "what speaks for the wrong answer"),
        Row(
            [Tile(laid_over(row, 1), (run.classes[labels[row]],), RIGHT) for row in wrong],
            "what speaks for the true class",
        ),
    ]
