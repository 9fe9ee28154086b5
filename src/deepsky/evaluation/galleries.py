"""Pictures that need the images and the network: what it learned from, got right, got wrong, and what it looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.datasets.packed import Packed
from deepsky.evaluation.figures import save_png
from deepsky.evaluation.tiles import N_ACROSS, Picture, Row, Tile, in_rows, overlaid, shaded, tiles_figure
from deepsky.imaging.composite import lupton_rgb
from deepsky.metrics import confused_pairs
from deepsky.training.explain import call_once, feature_maps, grad_cam

Rows = npt.NDArray[np.int64]  # places among a dataset's rows
_RIGHT, _WRONG = "#2e7d4f", "#b3261e"
_N_PAIRS = 4
_N_FEATURE_IMAGES = 2
# The fractions that tell the most of a shape: what captions name and Grad-CAM explains.
_SHAPES = {"smooth": "Class1.1", "edge-on": "Class2.1", "bar": "Class3.1", "spiral": "Class4.1"}


def draw_pictures(trained: Path, packed: Packed, front: keras.Model | None, tail: keras.Model, *, seed: int) -> None:
    """Add ``pictures/`` to what a train stage wrote.

    samples.png, predictions.png, confused_pairs.png (of classes), feature_maps.png and grad_cam.png.

    Args:
        trained: folder with predictions.csv, one row per row of the dataset in its order.
        packed: the dataset.
        front: image -> pixels, without what changes training images; None: the tail takes images.
        tail: pixels -> answer to one view, in float32, with a layer "maps" (``explain.frozen_tail`` makes one of a
            frozen backbone and its head).
        seed: of the choice of examples.
    """
    predictions = pd.read_csv(trained / "predictions.csv", dtype={"id": str, "label": str}, keep_default_na=False)
    run, folder = _Run(packed, predictions, front, tail, seed), trained / "pictures"
    folder.mkdir()
    title = "Feature maps: those that vary most in the first, a middle and the last layer"
    save_png(tiles_figure(_feature_rows(run), title), folder / "feature_maps.png")
    if packed.card.target == "fractions":
        _draw_fractions(run, folder)
    else:
        _draw_classes(run, folder)


@dataclass(frozen=True)
class _Run:
    """What the pictures are drawn from, see ``draw_pictures``."""

    packed: Packed
    predictions: pd.DataFrame
    front: keras.Model | None
    tail: keras.Model
    seed: int

    @property
    def classes(self) -> tuple[str, ...]:
        return self.packed.card.classes

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Return (row, class)."""
        return self.predictions[[f"p_{name}" for name in self.classes]].to_numpy(np.float64)

    @cached_property
    def answers(self) -> Rows:
        """Return the most probable class of each row."""
        return self.probabilities.argmax(axis=1)

    def rows(self, split: str) -> Rows:
        """Return the rows of a split in an order of their own, the same for equal seeds."""
        rows = np.flatnonzero(self.predictions["split"] == split)
        return np.random.default_rng([self.seed, len(rows)]).permutation(rows)

    def images(self, rows: Sequence[int] | Rows) -> npt.NDArray[Any]:
        """Return the image of each row."""
        return np.stack([self.packed.images[place] for place in self.packed.rows["image"].to_numpy()[rows]])

    def picture(self, row: int) -> Picture:
        """Return a row's image as a person wants to see it."""
        image, card = self.images([row])[0], self.packed.card
        if card.kind == "flux":
            return lupton_rgb(image[..., [card.bands.index(band) for band in card.colour_bands]])
        return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image

    def inputs(self, rows: Sequence[int] | Rows) -> npt.NDArray[Any]:
        """Return what the tail takes for each row."""
        images = self.images(rows)
        return images if self.front is None else call_once(self.front, images)


def _feature_rows(run: _Run) -> list[Row]:
    """Show some test images, and of each layer the maps that vary most over the image."""
    chosen = run.rows("test")[:_N_FEATURE_IMAGES]
    rows = []
    layers = feature_maps(run.tail, run.inputs(chosen))
    for place, row in enumerate(chosen):
        for layer in layers:
            maps = layer.maps[place]
            liveliest = np.argsort(-maps.std(axis=(0, 1)), kind="stable")[: N_ACROSS - 1]
            height, width, n_channels = maps.shape
            tiles = [Tile(shaded(maps[..., channel]), (f"map {channel}",)) for channel in liveliest]
            heading = f"{layer.name}: {n_channels} maps of {height} x {width}"
            rows.append(Row([Tile(run.picture(row)), *tiles], heading))
    return rows


# ---- classes ----


def _draw_classes(run: _Run, folder: Path) -> None:
    test, labels = run.rows("test"), run.packed.labels
    right = test[run.answers[test] == labels[test]]
    wrong = test[run.answers[test] != labels[test]]
    share = f"{len(right)} of {len(test)} test objects"
    galleries = {
        "samples": (_class_samples(run), "Training images"),
        "predictions": (
            in_rows([_answer_tile(run, row) for row in right[: 2 * N_ACROSS]], f"right: {share}")
            + in_rows([_answer_tile(run, row) for row in wrong[: 2 * N_ACROSS]], f"wrong: {len(wrong)}"),
            "Test images with their answers",
        ),
        "confused_pairs": (_pair_rows(run, right, wrong), "Classes most often taken for each other"),
        "grad_cam": (_class_heat(run, right[:N_ACROSS], wrong[:N_ACROSS]), "Grad-CAM: what speaks for an answer"),
    }
    for name, (rows, title) in galleries.items():
        save_png(tiles_figure(rows, title), folder / f"{name}.png")


def _class_samples(run: _Run) -> list[Row]:
    """Show some training images of each class."""
    train = run.rows("train")
    rows = []
    for code, name in enumerate(run.classes):
        of_class = train[run.packed.labels[train] == code]
        tiles = [Tile(run.picture(row)) for row in of_class[:N_ACROSS]]
        rows.append(Row(tiles, f"{name}: {len(of_class)} training objects"))
    return rows


def _answer_tile(run: _Run, row: int, picture: Picture | None = None) -> Tile:
    """Show an image with its class, and below it the answer where that is another."""
    label, answer = run.packed.labels[row], run.answers[row]
    probability = f"{run.probabilities[row, answer]:.2f}"
    if label == answer:
        caption: tuple[str, ...] = (f"{probability} {run.classes[label]}",)
    else:
        caption = (f"is {run.classes[label]}", f"{probability} {run.classes[answer]}")
    return Tile(run.picture(row) if picture is None else picture, caption, _RIGHT if label == answer else _WRONG)


def _pair_rows(run: _Run, right: Rows, wrong: Rows) -> list[Row]:
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


def _class_heat(run: _Run, right: Rows, wrong: Rows) -> list[Row]:
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


# ---- vote fractions ----


def _draw_fractions(run: _Run, folder: Path) -> None:
    truth, predicted = (run.predictions[[f"{kind}_{column}" for column in COLUMNS]].to_numpy() for kind in "tp")
    test = run.rows("test")
    errors = np.sqrt(((predicted - truth) ** 2).mean(axis=1))
    by_error = test[np.argsort(errors[test], kind="stable")]
    groups = {"taken at random": test, "closest": by_error, "farthest": by_error[::-1]}
    galleries = {
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
    for name, (rows, title) in galleries.items():
        save_png(tiles_figure(rows, title), folder / f"{name}.png")


def _fraction_tile(run: _Run, row: int, error: float | None = None) -> Tile:
    """Show an image with its fractions, and the answers to them where there is an error."""
    of_row = run.predictions.loc[row]
    caption = [f"{name} {of_row[f't_{column}']:.2f}" for name, column in _SHAPES.items()]
    if error is not None:
        caption = [
            f"{text} ({of_row[f'p_{column}']:.2f})" for text, column in zip(caption, _SHAPES.values(), strict=True)
        ]
        caption.append(f"RMSE {error:.3f}")
    return Tile(run.picture(row), tuple(caption))


def _fraction_heat(run: _Run, rows: Rows) -> list[Row]:
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
