"""Class folders for other software: the packed pictures, exactly, in train, val and test."""

import keras
import numpy as np
import pandas as pd
import pytest

from deepsky.commands import export_folders as command
from deepsky.datasets.packed import DatasetCard, open_packed, write_rows
from deepsky.errors import ConfigError, DataError
from deepsky.imaging.lupton import lupton_rgb
from deepsky.imaging.pictures import read_picture
from tests.toy_galaxies import write_galaxies

PARAMS = """
datasets:
  pictures:
    blobs: {format: images, source: a, size_px: 20, id_column: id, label_column: label, classes: [BLUE, RED]}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with the dataset blobs, packed and split."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


def move_in(project, folder):
    for place in ("packed", "splits"):
        (project / "data" / place).mkdir(parents=True)
    (folder / "packed").rename(project / "data/packed/blobs")
    (folder / "split.csv").rename(project / "data/splits/blobs.csv")


def write_dataset(project, images, labels, card, n_parts=3):
    """A dataset of any images, one row each, by turns of train, val and test, or of the first of these."""
    folder = project / "made/packed"
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", images)
    rows = pd.DataFrame(
        {"id": [f"o{place}" for place in range(len(images))], "label": labels, "image": range(len(images))}
    )
    write_rows(folder, rows, card, [])
    split = np.array(["train", "val", "test"])[np.arange(len(images)) % 3 % n_parts]
    pd.DataFrame({"id": rows["id"], "split": split, "group": ""}).to_csv(project / "made/split.csv", index=False)
    move_in(project, project / "made")


def test_folders_hold_what_networks_learn_from(project, capsys):
    move_in(project, write_galaxies(project / "made"))
    out = project / "out"
    out.mkdir()  # one that is empty will do
    command.run("blobs", out)
    packed = open_packed(project / "data/packed/blobs")
    split = pd.read_csv(project / "data/splits/blobs.csv", dtype=str).set_index("id")["split"]
    wanted = {f"{split[row.id]}/{row.label}/{row.id}.png": row.image for row in packed.rows.itertuples()}
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert found == set(wanted)
    for name, image in wanted.items():
        assert np.array_equal(read_picture(out / name), packed.images[image])
    assert capsys.readouterr().out == f"64 pictures of 2 classes in {out}\n"
    assert [path.name for path in project.iterdir() if path.name.startswith(".")] == []
    names, labels = keras.utils.image_dataset_from_directory, {"train": 32, "val": 16, "test": 16}
    for part, n_pictures in labels.items():
        seen = names(out / part, image_size=(20, 20), verbose=False)
        assert (seen.class_names, len(seen.file_paths)) == (["BLUE", "RED"], n_pictures)


def test_every_part_has_every_class_and_names_are_safe(project, capsys):
    classes = ("../a", "a b", ".b", "c%2F", "none seen")
    card = DatasetCard("uint8", ("gray",), (), classes, None, 0)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
    write_dataset(project, images, classes[:4], card)
    command.run("blobs", project / "out/inner")
    folders = ["%2E.%2Fa", "a b", "%2Eb", "c%252F", "none seen"]
    for part in ("train", "val", "test"):
        assert {path.name for path in (project / "out/inner" / part).iterdir()} == set(folders)
    assert sorted(path.parent.name for path in (project / "out").rglob("*.png")) == sorted(folders[:4])
    gray = read_picture(project / "out/inner/train/%2E.%2Fa/o0.png")
    assert np.array_equal(gray, images[0].repeat(3, axis=2))
    said = capsys.readouterr().out.splitlines()
    assert said[1:] == [
        "the folders of class '../a' are called %2E.%2Fa",
        "the folders of class '.b' are called %2Eb",
        "the folders of class 'c%2F' are called c%252F",
    ]


def test_flux_is_shown_as_the_report_shows_it(project, capsys):
    flux = np.random.default_rng(1).exponential(2, (3, 16, 16, 5)).astype(np.float32)
    card = DatasetCard("flux", tuple("ugriz"), ("i", "r", "g"), ("STAR",), 0.396, 0)
    write_dataset(project, flux, ["STAR"] * 3, card, n_parts=2)
    command.run("blobs", project / "out")
    assert {path.name for path in (project / "out").iterdir()} == {"train", "val"}, "there is no test part"
    assert "they show i, r, g as red, green and blue; deepsky's networks learn from the flux of u, g, r, i, z" in (
        capsys.readouterr().out
    )
    picture = read_picture(project / "out/val/STAR/o1.png")
    assert np.array_equal(picture, lupton_rgb(flux[1][..., [3, 2, 1]]))
    assert picture.std() > 10


@pytest.mark.parametrize("taken", ["folder", "file"])
def test_what_is_there_stays(project, taken):
    move_in(project, write_galaxies(project / "made"))
    out = project / "out"
    own = out / "mine" if taken == "folder" else out
    own.parent.mkdir(exist_ok=True)
    own.write_text("mine")
    with pytest.raises(DataError, match=r"out: is there already, and is no empty folder; name a new one"):
        command.run("blobs", out)
    assert own.read_text() == "mine"


def test_what_cannot_be_written_leaves_nothing(project, monkeypatch):
    move_in(project, write_galaxies(project / "made"))
    images = np.load(project / "data/packed/blobs/images.npy")
    np.save(project / "data/packed/blobs/images.npy", images[:40])  # the rows name images that are not there
    with pytest.raises(IndexError):
        command.run("blobs", project / "out")
    assert sorted(path.name for path in project.iterdir()) == ["data", "made", "params.yaml"]


def test_what_has_no_class_folders_is_one_line(project):
    with pytest.raises(ConfigError, match="dataset blob: is not in params"):
        command.run("blob", project / "out")
    with pytest.raises(DataError, match="blobs: is not a packed dataset"):
        command.run("blobs", project / "out")
    move_in(project, write_galaxies(project / "made", fractions=True))
    with pytest.raises(ConfigError, match="dataset blobs: has vote fractions, and no classes to name folders after; "):
        command.run("blobs", project / "out")
    assert not (project / "out").exists()


def test_a_dataset_without_a_split_is_one_line(project):
    move_in(project, write_galaxies(project / "made"))
    (project / "data/splits/blobs.csv").write_text("id,split,group\n")
    with pytest.raises(DataError, match=r"blobs.csv: is empty: no run learns from its dataset; enter one below runs"):
        command.run("blobs", project / "out")
    assert not (project / "out").exists()
