"""Pictures that need the images and the network: what it learned from, got right, got wrong, and what it looked at."""

from pathlib import Path

import keras
import numpy as np

from deepsky.evaluation.class_galleries import class_galleries
from deepsky.evaluation.figures import save_png
from deepsky.evaluation.fraction_galleries import fraction_galleries
from deepsky.evaluation.insight import Insight
from deepsky.evaluation.pictured import Pictured
from deepsky.evaluation.tiles import N_ACROSS, Row, Tile, shaded, tiles_figure
from deepsky.evaluation.trained import Trained
from deepsky.training.explain import feature_maps, plain_view
from deepsky.training.saved import load_network

_N_FEATURE_IMAGES = 2


def draw_pictures(one: Trained, run: Pictured, out: Path) -> None:
    """Draw what a saved network sees of its dataset.

    samples.png, predictions.png, confused_pairs.png (of classes), feature_maps.png and grad_cam.png; the last two show
    the plain view, whatever test views the network averages over. The run's own seed chooses the examples.

    Args:
        one: the run; its model.h5 is loaded.
        run: its answers beside the dataset it learned from.
        out: folder to write; must not exist.

    Raises:
        DataError: the network cannot be loaded or holds no convolutional maps.
    """
    keras.backend.clear_session()
    network, _ = load_network(one.folder / "model.h5")
    insight = Insight(run, *plain_view(network))
    out.mkdir(parents=True)
    title = "Feature maps: those that vary most in the first, a middle and the last layer"
    save_png(tiles_figure(_feature_rows(insight), title), out / "feature_maps.png")
    galleries = fraction_galleries(insight) if one.target == "fractions" else class_galleries(insight)
    for name, (rows, title) in galleries.items():
        save_png(tiles_figure(rows, title), out / f"{name}.png")


def _feature_rows(insight: Insight) -> list[Row]:
    """Show some test images, and of each layer the maps that vary most over the image."""
    run, rows = insight.run, list[Row]()
    chosen = run.rows("test")[:_N_FEATURE_IMAGES]
    layers = feature_maps(insight.tail, insight.inputs(chosen))
    for place, row in enumerate(chosen):
        for layer in layers:
            maps = layer.maps[place]
            liveliest = np.argsort(-maps.std(axis=(0, 1)), kind="stable")[: N_ACROSS - 1]
            height, width, n_channels = maps.shape
            tiles = [Tile(shaded(maps[..., channel]), (f"map {channel}",)) for channel in liveliest]
            heading = f"{layer.name}: {n_channels} maps of {height} x {width}"
            rows.append(Row([Tile(run.picture(row)), *tiles], heading))
    return rows
