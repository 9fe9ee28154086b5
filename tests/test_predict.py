"""deepsky predict: what a person names, what he gets, and how it goes on after a kill."""

import json
import os
import shutil
from pathlib import Path

import click
import h5py
import numpy as np
import pandas as pd
import pytest

from deepsky.cli import cli
from deepsky.commands import predict
from deepsky.commands.models import find_model
from deepsky.commands.places import named_places
from deepsky.errors import DataError
from deepsky.imaging.pictures import write_png
from deepsky.training.saved import CARD_ATTRIBUTE
from tests.tiny_networks import tiny_network

N_PICTURES = 40
COLUMNS = ["path", "class", "confidence", "p_c0", "p_c1", "p_c2"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a project with a trained run and a folder of pictures."""
    monkeypatch.chdir(tmp_path)
    for dataset, network in (("mine", "tiny"), ("mine", "cnn_small"), ("other", "cnn_small")):
        folder = Path("models/trained", dataset, network)
        folder.mkdir(parents=True)
        (folder / "model.h5").write_bytes(tiny_network(3))
    Path("pictures/deep").mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(N_PICTURES):
        folder = "pictures/deep" if number % 2 else "pictures"
        write_png(Path(folder, f"{number:02}.png"), rng.integers(0, 256, (20, 20, 3), np.uint8))
    return tmp_path


def label(*inputs: str, model: str = "tiny", out: str | None = "out.csv", **options: object) -> None:
    predict.run(model, inputs, None if out is None else Path(out), **options)


def test_networks_are_found_by_path_and_by_run(place: Path) -> None:
    file = Path("models/trained/mine/tiny/model.h5")
    names = (str(file), str(file.parent), "tiny", "mine-tiny", "mine/tiny")
    assert [find_model(name) for name in names] == [file] * len(names)
    with pytest.raises(DataError, match="cnn_small: may be each of 2 runs; choose one: mine/cnn_small, other/cnn_sma"):
        find_model("cnn_small")
    with pytest.raises(DataError, match=r"tinny: is neither .*; give .*, or a run; trained here: mine/cnn_small, m"):
        find_model("tinny")


def test_files_folders_patterns_and_lists_are_named(place: Path) -> None:
    Path("list.txt").write_text("pictures/02.png\n\npictures/none.png\n")
    Path("a[1].png").touch()
    named = named_places(["pictures/00.png", "pictures/*2.png", "a[1].png", "@list.txt"], Path("list.txt"))
    twos = ["pictures/02.png", "pictures/12.png", "pictures/22.png", "pictures/32.png"]
    assert list(map(str, named)) == ["pictures/00.png", *twos, "a[1].png", "pictures/none.png"]
    assert len(named_places(["**/*.png"])) == N_PICTURES + 1
    for name, said in (
        ("nowhere", "nowhere: does not exist"),
        ("*.gif", "fits no file"),
        ("@no.txt", "no.txt: can"),
    ):
        with pytest.raises(DataError, match=said):
            named_places([name])


def test_a_killed_prediction_goes_on_behind_its_last_whole_line(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    label("pictures")
    whole = Path("out.csv").read_text()
    table = pd.read_csv("out.csv")
    assert list(table.columns) == COLUMNS
    assert len(table) == N_PICTURES
    assert (table["confidence"] == table[COLUMNS[3:]].max(axis=1)).all()
    lines = whole.splitlines(keepends=True)
    for cut in ("".join(lines[:34]) + lines[34][:9], lines[0][:5], ""):
        Path("out.csv").write_text(cut)
        label("pictures")
        assert Path("out.csv").read_text() == whole
    capfd.readouterr()
    label("pictures")
    assert Path("out.csv").read_text() == whole
    assert f"goes on behind {N_PICTURES} answers" in capfd.readouterr().err


def test_answers_of_another_network_and_other_files_are_left_alone(place: Path) -> None:
    label("pictures")
    lines = Path("out.csv").read_text().splitlines()
    Path("out.csv").write_text("\n".join([lines[0], *(f"{line.rpartition(',')[0]},0.9" for line in lines[1:])]) + "\n")
    with pytest.raises(DataError, match=r"out.csv: holds answers of another network.*; delete it"):
        label("pictures")
    shutil.copy("pictures/00.png", "other.png")
    with pytest.raises(DataError, match=r"out.csv: holds answers about other files"):
        label("other.png")
    Path("notes.txt").write_text("remember the milk")
    with pytest.raises(DataError, match=r"notes.txt: has the columns remember the milk"):
        label("pictures", out="notes.txt")
    assert Path("notes.txt").read_text() == "remember the milk"


def test_bad_files_stop_or_are_named_and_skipped(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pictures/pipe.png")
    Path("pictures/text.png").write_text("no picture")
    with pytest.raises(DataError, match=r"pictures/pipe.png: is no file but a folder, pipe or device"):
        label("pictures")
    assert len(pd.read_csv("out.csv")) == N_PICTURES, "what was answered stays"
    Path("out.csv").unlink()
    Path("list.txt").write_text("pictures\n/dev/zero\npictures/none.png\n")
    label("@list.txt", on_bad_file="skip")
    said = capfd.readouterr().err
    for bad in (
        "pictures/pipe.png: is no",
        "pictures/text.png: is neither",
        "/dev/zero: is no",
        "pictures/none.png: can",
    ):
        assert f"skipped: {bad}" in said
    assert "4 bad files or objects were skipped" in said
    label("@list.txt", on_bad_file="skip")  # all that is left to answer is bad
    assert len(pd.read_csv("out.csv")) == N_PICTURES
    with pytest.raises(DataError, match="every object was skipped"):
        label("pictures/text.png", out=None, on_bad_file="skip")


@pytest.mark.parametrize("option", ["--zero-point", "--filter", "--position", "--id-column"])
def test_options_of_a_catalogue_want_one(option: str) -> None:
    value = {"--zero-point": "25", "--filter": "a=r", "--position": "xy"}.get(option, "id")
    with pytest.raises(click.UsageError, match=f"{option} is for the objects of a --catalogue"):
        cli.main(["predict", "network", "a.jpg", option, value], standalone_mode=False)


def test_answers_are_printed_as_a_table(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    label("pictures/00.png", "pictures/deep", out=None)
    printed = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert printed[0] == COLUMNS
    assert len(printed) == 2 + N_PICTURES // 2
    label("pictures/00.png", "pictures/deep")
    assert [line.split(",") for line in Path("out.csv").read_text().splitlines()] == printed


def test_pictures_of_another_size_than_learned_from_are_counted_once(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with h5py.File("models/trained/mine/tiny/model.h5", "r+") as file:
        card = json.loads(file.attrs[CARD_ATTRIBUTE])
        file.attrs[CARD_ATTRIBUTE] = json.dumps(card | {"picture_px": [20, 20]})
    for number in range(3):
        write_png(Path(f"pictures/large_{number}.png"), np.full((40, 30, 3), 50 * number, np.uint8))
    label("pictures")
    said = "3 of 43 pictures are not 20 x 20 px, as those that the network learned from"
    assert capfd.readouterr().err.count(said) == 1
