"""Galleries of a network that predicts vote fractions: samples, the best and the worst answers, Grad-CAM."""

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.evaluation.examples import SHAPES, example_groups
from deepsky.evaluation.insight import Insight
from deepsky.evaluation.pictured import Pictured, Rows
from deepsky.evaluation.tiles import N_ACROSS, Gallery, Row, Tile, in_rows, overlaid
from deepsky.training.explain import grad_cam


def fraction_galleries(insight: Insight) -> dict[str, Gallery]:
    """Return samples, predictions and grad_cam."""
    run = insight.run
    return {
        "samples": (
            in_rows([_sample(run, row) for row in run.rows("train")[: 3 * N_ACROSS]], "true fractions"),
            "Training images",
        ),
        "predictions": (
            [
                Row([Tile(run.picture(one.row), one.caption) for one in group.examples], group.heading)
                for group in example_groups(run)
            ],
            "Test images with their answers",
        ),
        "grad_cam": (_fraction_heat(insight, run.rows("test")[:N_ACROSS]), "Grad-CAM: what speaks for an answer"),
    }


def _sample(run: Pictured, row: int) -> Tile:
    """Show an image with its fractions."""
    of_row = run.predictions.loc[row]
    return Tile(run.picture(row), tuple(f"{name} {of_row[f't_{column}']:.2f}" for name, column in SHAPES.items()))


def _fraction_heat(insight: Insight, rows: Rows) -> list[Row]:
    """Show for some images what speaks for each of the telling fractions."""
    run, columns = insight.run, [COLUMNS.index(column) for column in SHAPES.values()]
    heats = grad_cam(insight.tail, insight.inputs(rows), [columns] * len(rows), exclusive=False)
    shown = [Row([Tile(run.picture(row)) for row in rows])]
    for place, (name, column) in enumerate(SHAPES.items()):
        of_rows = run.predictions.loc[rows]
        texts = [f"{t:.2f} ({p:.2f})" for t, p in zip(of_rows[f"t_{column}"], of_rows[f"p_{column}"], strict=True)]
        tiles = [
            Tile(overlaid(run.picture(row), of_row[place]), (text,))
            for row, of_row, text in zip(rows, heats, texts, strict=True)
        ]
        shown.append(Row(tiles, f"{name}: true (predicted)"))
    return shown
