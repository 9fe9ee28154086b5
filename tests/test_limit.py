"""A dataset's key ``limit``: a part of any format, with the shares of the whole."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from deepsky.datasets.packed import open_packed
from deepsky.errors import ConfigError
from deepsky.formats import galaxy10
from deepsky.formats.params import PicturesParams
from deepsky.formats.reading import read_dataset
from deepsky.stages.pack import run
from tests.galaxy_zoo_files import write_challenge, write_jpeg
from tests.test_galaxy10 import write as write_galaxy10
from tests.test_warm_ups import write_npz

TABLE = {"id_column": "id", "label_column": "class", "classes": ("common", "rare")}


def write_folder(folder, labels):
    for number in range(len(labels)):
        write_jpeg(folder / f"{number}.jpg", number)
    pd.DataFrame({"id": range(len(labels)), "class": labels}).to_csv(folder / "labels.csv", index=False)
    return folder


def sources(folder):
    kinds = ["none", "round", "spiral", "edge-on", "round", "spiral", "edge-on", "spiral"]
    return {
        "images": (write_folder(folder / "own", ["common"] * 8 + ["rare"] * 4), TABLE),
        "mnist": (write_npz(folder / "mnist.npz"), {}),
        "galaxy10": (write_galaxy10(folder / "g.h5"), {"sha256": "any"}),
        "galaxy_zoo_challenge": (write_challenge(folder / "zoo", range(101, 109), kinds), {"target": "fractions"}),
    }


def drawn(source, params, limit):
    return read_dataset(source, replace(params, limit=limit)).rows


@pytest.mark.parametrize(
    ("name", "limit"), [("images", 6), ("mnist", 30), ("galaxy10", 20), ("galaxy_zoo_challenge", 5)]
)
def test_each_row_keeps_its_picture_and_target(tmp_path, monkeypatch, capsys, name, limit):
    monkeypatch.setattr(galaxy10, "_SLICE_IMAGES", 4)
    source, own = sources(tmp_path)[name]
    params = PicturesParams(name, str(source), 16, **own)
    for out, one in (("whole", params), ("part", replace(params, limit=limit))):
        run("mine", one, "stop", out=tmp_path / out)
    whole, part = open_packed(tmp_path / "whole"), open_packed(tmp_path / "part")
    assert len(part.rows) == len(part.images) == limit
    places = pd.Index(whole.rows["id"]).get_indexer(part.rows["id"])
    assert (np.diff(places) > 0).all()  # in the order of the whole
    assert part.rows["label"].tolist() == whole.rows["label"].iloc[places].tolist()
    assert np.array_equal(part.images, whole.images[places])
    if name == "galaxy_zoo_challenge":
        assert np.array_equal(part.fractions, whole.fractions[places])
    n_left = len(whole.rows) - limit
    assert part.card.n_dropped["objects beyond limit"] == n_left
    assert f"{limit} images packed; {n_left} objects beyond limit" in capsys.readouterr().err


def test_classes_keep_their_shares_and_larger_draws_hold_smaller_ones(tmp_path):
    source = write_folder(tmp_path / "own", ["common"] * 40 + ["rare"] * 2)
    params = PicturesParams("images", str(source), 16, **TABLE)
    draws = {limit: drawn(source, params, limit) for limit in (2, 21, 42)}
    assert {limit: rows["label"].value_counts().to_dict() for limit, rows in draws.items()} == {
        2: {"common": 1, "rare": 1}, 21: {"common": 20, "rare": 1}, 42: {"common": 40, "rare": 2},
    }  # fmt: skip
    ids = [set(rows["id"]) for rows in draws.values()]
    assert ids[0] < ids[1] < ids[2]
    assert set(drawn(source, replace(params, limit_seed=2), 21)["id"]) != ids[1]
    table = pd.read_csv(source / "labels.csv").iloc[::-1]
    table.to_csv(source / "labels.csv", index=False)
    assert set(drawn(source, params, 21)["id"]) == ids[1]


def test_the_published_parts_keep_their_shares_too(tmp_path):
    source = write_npz(tmp_path / "mnist.npz")
    rows = drawn(source, PicturesParams("mnist", str(source), 16), 30)
    assert rows.groupby(["label", "group"]).size().unstack().to_numpy().tolist() == [[1, 2]] * 10


@pytest.mark.parametrize(
    ("limit", "message"),
    [(13, "limit 13: is more than the 12 objects of "), (1, "limit 1: is less than the 2 classes of ")],
)
def test_a_limit_that_cannot_be_is_refused_in_one_line(tmp_path, limit, message):
    source = write_folder(tmp_path / "own", ["common"] * 8 + ["rare"] * 4)
    with pytest.raises(ConfigError, match=message) as caught:
        read_dataset(source, PicturesParams("images", str(source), 16, limit=limit, **TABLE))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="limit must be at least 1, not 0"):
        PicturesParams("mnist", str(source), 16, limit=0)
