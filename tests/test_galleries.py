import cv2
import keras
import numpy as np
import pandas as pd
import pytest

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.datasets.packed import DatasetCard, Packed
from deepsky.evaluation.galleries import draw_pictures
from deepsky.evaluation.tiles import Row, Tile, in_rows, overlaid, shaded, tiles_figure
from deepsky.networks import SCRATCH
from deepsky.networks.heads import softmax_answer, tree_answer
from deepsky.networks.inputs import ImageSpec

CLASSES = ("NA", "cigar-shaped and rather long", "spiral")
N = 40


def _dataset(target="class", kind="uint8", n_channels=3):
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (N, 16, 16, n_channels), dtype=np.uint8)
    images = images if kind == "uint8" else images.astype(np.float32) / 50
    classes = CLASSES if target == "class" else ("galaxy",)
    labels = [classes[k % len(classes)] for k in range(N)]
    rows = pd.DataFrame({"id": [str(k) for k in range(N)], "label": labels, "image": np.arange(N)[::-1]})
    bands = ("g", "r", "i")[:n_channels]
    card = DatasetCard(kind, bands, bands[::-1] if kind == "flux" else (), classes, None, 0, target=target)
    return Packed(images, rows, card)


def _write_predictions(folder, packed, names):
    rng = np.random.default_rng(4)
    table = pd.DataFrame(
        {"id": packed.rows["id"], "split": ["train", "test"] * (N // 2), "label": packed.rows["label"]}
    )
    values = rng.dirichlet(np.ones(len(names)), N)
    columns = {f"p_{name}": values[:, k] for k, name in enumerate(names)}
    if packed.card.target == "fractions":
        columns |= {f"t_{name}": rng.uniform(0, 1, N) for name in names}
    folder.mkdir()
    table = pd.concat([table, pd.DataFrame(columns)], axis=1)
    table.to_csv(folder / "predictions.csv", index=False, float_format="%.6f")
    return table


def _draw(folder, packed, answer, names):
    _write_predictions(folder, packed, names)
    keras.utils.set_random_seed(1)
    network = SCRATCH["cnn_small"]
    spec = ImageSpec(packed.images.shape[1:], packed.card.kind, packed.card.bands, packed.card.colour_bands)
    front = network.build_front(spec, 16)
    tail = network.build_tail(front.output_shape[1:], answer)
    draw_pictures(folder, packed, front, tail, seed=3)
    return {path.name: path.read_bytes() for path in (folder / "pictures").iterdir()}


def test_pictures_of_classes_are_drawn_small_and_alike(tmp_path):
    drawn = _draw(tmp_path / "a", _dataset(), softmax_answer(3), CLASSES)
    assert set(drawn) == {"samples.png", "predictions.png", "confused_pairs.png", "feature_maps.png", "grad_cam.png"}
    for content in drawn.values():
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert picture.std() > 10
    assert sum(map(len, drawn.values())) < 2e6
    assert drawn == _draw(tmp_path / "b", _dataset(), softmax_answer(3), CLASSES)


@pytest.mark.parametrize(("kind", "n_channels"), [("flux", 3), ("uint8", 1)])
def test_pictures_of_flux_and_of_gray(tmp_path, kind, n_channels):
    assert len(_draw(tmp_path / "a", _dataset(kind=kind, n_channels=n_channels), softmax_answer(3), CLASSES)) == 5


def test_pictures_of_vote_fractions(tmp_path):
    drawn = _draw(tmp_path / "a", _dataset("fractions"), tree_answer(), COLUMNS)
    assert set(drawn) == {"samples.png", "predictions.png", "feature_maps.png", "grad_cam.png"}


def test_a_network_that_is_always_right_can_be_drawn(tmp_path):
    packed = _dataset()
    folder = tmp_path / "a"
    table = _write_predictions(folder, packed, CLASSES)
    for name in CLASSES:
        table[f"p_{name}"] = (table["label"] == name).astype(float)
    table.to_csv(folder / "predictions.csv", index=False)
    network = SCRATCH["cnn_small"]
    front = network.build_front(ImageSpec((16, 16, 3), "uint8", packed.card.bands), 16)
    draw_pictures(folder, packed, front, network.build_tail((16, 16, 3), softmax_answer(3)), seed=3)
    assert len(list((folder / "pictures").iterdir())) == 5


def test_a_tile_shows_its_picture_where_it_belongs():
    red, blue = (np.full((4, 4, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    figure = tiles_figure([Row([Tile(red), Tile(blue)]), Row([Tile(None), Tile(red)], "below")], "title")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    is_red, is_blue = ((pixels == colour).all(axis=2) for colour in ((255, 0, 0), (0, 0, 255)))
    assert is_red.sum() == 2 * is_blue.sum() > 10_000
    rows, columns = np.nonzero(is_blue)
    left = np.nonzero(is_red[rows.min()])[0]
    assert left.max() < columns.min()  # beside each other, in order
    assert is_red[rows.max() + 20 :, columns.min() : columns.max()].any()  # the second row's stands below the blue one


def test_rows_break_and_keep_one_heading():
    rows = in_rows([Tile(None)] * 19, "many")
    assert [(len(row.tiles), row.heading) for row in rows] == [(8, "many"), (8, ""), (3, "")]


def test_heat_hides_only_where_it_is_hot():
    picture = np.full((32, 32, 3), 100, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    np.testing.assert_array_equal(overlaid(picture, heat), picture)
    heat[0, 0] = 1
    mixed = overlaid(picture, heat)
    assert np.abs(mixed[2, 2].astype(int) - 100).max() > 40
    np.testing.assert_array_equal(mixed[20:, 20:], picture[20:, 20:])
    assert shaded(np.ones((3, 3))).std(axis=(0, 1)).max() == 0  # a flat map has no span
