import json

import cv2
import keras
import numpy as np
import pandas as pd
import pytest

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.datasets.packed import DatasetCard, write_rows
from deepsky.errors import DataError
from deepsky.evaluation.album import album_json, make_album, read_album
from deepsky.evaluation.examples import example_groups, worst_group
from deepsky.evaluation.galleries import draw_pictures
from deepsky.evaluation.pictured import open_pictured
from deepsky.evaluation.tiles import Row, Tile, in_rows, overlaid, shaded, tiles_figure
from deepsky.evaluation.trained import Trained
from deepsky.networks.backbone import build_features
from deepsky.networks.heads import build_head, join, softmax_answer, tree_answer
from deepsky.networks.inputs import ImageSpec, colour_front, stretched_front
from deepsky.networks.views import average_views
from deepsky.training.saved import ModelCard, save_network
from tests.test_finetune import TINY
from tests.tiny_networks import SIDE_PX, tiny_tail

CLASSES = ("NA", "cigar-shaped and rather long", "spiral")
ALL = {"samples.png", "predictions.png", "confused_pairs.png", "feature_maps.png", "grad_cam.png"}
N = 40


def _write_dataset(folder, target="class", kind="uint8", n_channels=3):
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (N, 16, 16, n_channels), dtype=np.uint8)
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", images if kind == "uint8" else images.astype(np.float32) / 50)
    classes = CLASSES if target == "class" else ("galaxy",)
    labels = [classes[k % len(classes)] for k in range(N)]
    rows = pd.DataFrame({"id": [str(k) for k in range(N)], "label": labels, "image": np.arange(N)[::-1]})
    bands = ("g", "r", "i")[:n_channels]
    card = DatasetCard(kind, bands, bands[::-1] if kind == "flux" else (), classes, None, 0, target=target)
    write_rows(folder, rows, card, [], rng.uniform(0, 1, (N, len(COLUMNS))) if target == "fractions" else None)
    return rows, card, ImageSpec((16, 16, n_channels), kind, bands, card.colour_bands)


def _predictions(rows, names, *, fractions=False):
    rng = np.random.default_rng(4)
    table = pd.DataFrame({"id": rows["id"], "split": ["train", "test"] * (N // 2), "label": rows["label"]})
    values = rng.dirichlet(np.ones(len(names)), N).round(6)
    columns = {f"p_{name}": values[:, k] for k, name in enumerate(names)}
    if fractions:
        columns |= {f"t_{name}": rng.uniform(0, 1, N) for name in names}
    return pd.concat([table, pd.DataFrame(columns)], axis=1)


def _save(folder, network, card, spec):
    made_for = ModelCard(
        dataset="toy", network="tiny", weights="scratch", classes=card.classes, kind=card.kind, bands=card.bands,
        colour_bands=card.colour_bands, image_shape=spec.shape, pixel_scale_arcsec=None, target=card.target,
    )  # fmt: skip
    folder.mkdir(parents=True)
    save_network(folder / "model.h5", network, made_for)


def _trained(folder, predictions, target="class"):
    history = pd.DataFrame({"epoch": [1]})
    return Trained(folder, {"target": target, "tested_on": "test", "params": {"seed": 3}}, history, predictions, None)


def _draw_run(one, packed, out):
    draw_pictures(one, open_pictured(one, packed), out)


def _scratch(spec, answer, n_views=1):
    core = join(stretched_front(spec, SIDE_PX), tiny_tail(answer, spec.shape[2]), "tiny")
    return average_views(core, n_views, range(core.output_shape[1]), "tiny")


def _draw(root, answer, names, *, spoil=None, **dataset):
    rows, card, spec = _write_dataset(root / "packed", **dataset)
    predictions = _predictions(rows, names, fractions=card.target == "fractions")
    if spoil:
        spoil(predictions)
    _save(root / "trained", _scratch(spec, answer), card, spec)
    _draw_run(_trained(root / "trained", predictions, card.target), root / "packed", root / "pictures")
    return {path.name: path.read_bytes() for path in (root / "pictures").iterdir()}


def test_pictures_of_classes_are_drawn_small_and_alike(tmp_path):
    drawn = _draw(tmp_path / "a", softmax_answer(3), CLASSES)
    assert set(drawn) == ALL
    for content in drawn.values():
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert picture.std() > 10
    assert sum(map(len, drawn.values())) < 2e6
    assert drawn == _draw(tmp_path / "b", softmax_answer(3), CLASSES)


@pytest.mark.parametrize(("kind", "n_channels"), [("flux", 3), ("uint8", 1)])
def test_pictures_of_flux_and_of_gray(tmp_path, kind, n_channels):
    assert set(_draw(tmp_path, softmax_answer(3), CLASSES, kind=kind, n_channels=n_channels)) == ALL


def test_pictures_of_vote_fractions(tmp_path):
    drawn = _draw(tmp_path, tree_answer(), COLUMNS, target="fractions")
    assert set(drawn) == ALL - {"confused_pairs.png"}


def test_a_network_that_is_always_right_can_be_drawn(tmp_path):
    def make_right(predictions):
        for name in CLASSES:
            predictions[f"p_{name}"] = (predictions["label"] == name).astype(float)

    assert set(_draw(tmp_path, softmax_answer(3), CLASSES, spoil=make_right)) == ALL


def test_the_pictures_are_those_of_the_plain_view_whatever_the_test_views(tmp_path):
    rows, card, spec = _write_dataset(tmp_path / "packed")
    predictions, drawn = _predictions(rows, CLASSES), []
    for n_views in (1, 8):
        folder = tmp_path / str(n_views)
        _save(folder, _scratch(spec, softmax_answer(3), n_views), card, spec)
        _draw_run(_trained(folder, predictions), tmp_path / "packed", folder / "pictures")
        drawn.append({path.name: path.read_bytes() for path in (folder / "pictures").iterdir()})
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("n_views", [1, 4])
def test_a_head_on_a_frozen_network_can_be_drawn(tmp_path, n_views):
    rows, card, spec = _write_dataset(tmp_path / "packed")
    front = build_features(TINY, spec, 32, None)
    core = join(front, build_head(front.output_shape[1], softmax_answer(3), (8,), "relu", seed=1), "tiny")
    _save(tmp_path / "trained", average_views(core, n_views, range(3), "tiny"), card, spec)
    _draw_run(_trained(tmp_path / "trained", _predictions(rows, CLASSES)), tmp_path / "packed", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == ALL


def test_refuses_a_network_without_maps(tmp_path):
    rows, card, spec = _write_dataset(tmp_path / "packed")
    front = colour_front(spec, 4)
    pixels = keras.Input((4, 4, 3), name="pixels")
    tail = keras.Model(pixels, softmax_answer(3)(keras.layers.Flatten(name="flat")(pixels)), name="flat_tail")
    _save(tmp_path / "trained", join(front, tail, "bare"), card, spec)
    with pytest.raises(DataError, match="network bare: has no layer 'maps'"):
        _draw_run(_trained(tmp_path / "trained", _predictions(rows, CLASSES)), tmp_path / "packed", tmp_path / "o")
    assert not (tmp_path / "o").exists()


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


# ---- which objects are shown ----


def _pictured(root, **dataset):
    rows, card, _ = _write_dataset(root / "packed", **dataset)
    fractions = card.target == "fractions"
    predictions = _predictions(rows, COLUMNS if fractions else CLASSES, fractions=fractions)
    return open_pictured(_trained(root, predictions, card.target), root / "packed")


def test_the_surest_errors_come_first_and_the_least_certain_are_close(tmp_path):
    run = _pictured(tmp_path)
    groups = {group.kind: group for group in example_groups(run)}
    table = run.predictions[run.predictions["split"] == "test"].set_index("id")
    answers = table[[f"p_{name}" for name in CLASSES]].set_axis(list(CLASSES), axis=1)
    wrong = answers.idxmax(axis=1) != table["label"]
    surest = answers.max(axis=1)[wrong].sort_values(ascending=False)
    assert [one.id for one in groups["wrong"].examples] == surest.index[:16].tolist()
    assert all(one.truth == table.loc[one.id, "label"] != one.answer for one in groups["wrong"].examples)
    assert f"{wrong.sum()} of {len(table)}" in groups["wrong"].heading
    margin = answers.apply(lambda row: np.diff(np.sort(row)[-2:])[0], axis=1)
    assert [one.id for one in groups["uncertain"].examples] == margin.sort_values().index[:8].tolist()
    right = [one.truth for one in groups["right"].examples]
    assert sorted(right[: len(set(right))]) == sorted(set(right)), "the classes take turns"
    assert {one.answer for one in groups["pair"].beside} == {groups["pair"].examples[0].answer}
    assert [one.id for one in worst_group(run, 3).examples] == surest.index[:3].tolist()


def test_the_largest_errors_of_fractions_come_first(tmp_path):
    run = _pictured(tmp_path, target="fractions")
    table = run.predictions[run.predictions["split"] == "test"]
    errors = (table[[f"p_{c}" for c in COLUMNS]].to_numpy() - table[[f"t_{c}" for c in COLUMNS]].to_numpy()) ** 2
    largest = np.sqrt(errors.mean(axis=1)).argsort()[::-1]
    assert [one.id for one in worst_group(run, 5).examples] == table["id"].iloc[largest[:5]].tolist()
    assert example_groups(run)[0].kind == "far"


def test_an_album_holds_each_picture_once_and_comes_back_whole(tmp_path):
    run = _pictured(tmp_path)
    album = make_album(run, example_groups(run))
    (tmp_path / "album.json").write_text(json.dumps(album_json(album)))
    back = read_album(tmp_path / "album.json")
    assert (back.groups, back.pictures) == (album.groups, album.pictures)
    shown = {one.picture for group in album.groups for one in group.examples}
    assert shown <= set(album.pictures)
    picture = cv2.imdecode(np.frombuffer(album.pictures[min(shown)], np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (16, 16, 3), "small ones keep their size"
    (tmp_path / "album.json").write_text(json.dumps(album_json(album) | {"pictures": {}}))
    with pytest.raises(DataError, match=r"album\.json: cannot be read"):
        read_album(tmp_path / "album.json")
