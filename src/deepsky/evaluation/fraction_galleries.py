"""Galleries of a network that predicts vote fractions: samples, the best and the worst answers, Grad-CAM."""

import numpy as np

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.evaluation.pictured import Pictured, Rows
from deepsky.evaluation.tiles import N_ACROSS, Gallery, Row, Tile, in_rows, overlaid
from deepsky.training.explain import grad_cam

# The fractions that tell the most of a shape: what captions name and Grad-CAM explains.
_SHAPES = {"smooth": "Class1.1", "edge-on": "Class2.1", "bar": "Class3.1", "spiral": "Class4.1"}


def fraction_galleries(run: Pictured) -> dict[str, Gallery]:
    """Return samples, predictions and grad_cam."""
    truth, predicted = (run.predictions[[f"{kind}_{column}" for column in COLUMNS]].to_numpy() for kind in "tp")
    test = run.rows("test")
    errors = np.sqrt(((predicted - truth) ** 2).mean(axis=1))
    by_error = test[np.argsort(errors[test], kind="stable")]
    groups = {"taken at random": test, "closest": by_error, "farthest": by_error[::-1]}
    return {
        "samples": (
            in_rows([_fraction_tile(run, row) for row in run.rows("train")[: 3 * N_ACROSS]], "true fractions"),
            "Training images",
        ),
        "predictions": (
            [
                Row([_fraction_tile(run, row, errors[row]) for row in rows[:N_ACROSS]], f"{name}: true (predicted)")
                for name, rows in groups.items()
            ],
            "Test images with their answers",
        ),
        "grad_cam": (_fraction_heat(run, test[:N_ACROSS]), "Grad-CAM: what speaks for an answer"),
    }


def _fraction_tile(run: Pictured, row: int, error: float | None = None) -> Tile:
    """Show an image with its fractions, and the answers to them where there is an error."""
    of_row = run.predictions.loc[row]
    caption = [f"{name} {of_row[f't_{column}']:.2f}" for name, column in _SHAPES.items()]
    if error is not None:
        caption = [
            f"{text} ({of_row[f'p_{column}']:.2f})" for text, column in zip(caption, _SHAPES.values(), strict=True)
        ]
        caption.append(f"RMSE {error:.3f}")
    return Tile(run.picture(row), tuple(caption))


def _fraction_heat(run: Pictured, rows: Rows) -> list[Row]:
    """Show for some images what speaks for each of the telling fractions."""
    columns = [COLUMNS.index(column) for column in _SHAPES.values()]
    heats = grad_cam(run.tail, run.inputs(rows), [columns] * len(rows), exclusive=False)
    shown = [Row([Tile(run.picture(row)) for row in rows])]
    for place, (name, column) in enumerate(_SHAPES.items()):
        of_rows = run.predictions.loc[rows]
        texts = [f"{t:.2f} ({p:.2f})" for t, p in zip(of_rows[f"t_{column}"], of_rows[f"p_{column}"], strict=True)]
        tiles = [
            Tile(overlaid(run.picture(row), of_row[place]), (text,))
            for row, of_row, text in zip(rows, heats, texts, strict=True)
        ]
        shown.append(Row(tiles, f"{name}: true (predicted)"))
    return shown
