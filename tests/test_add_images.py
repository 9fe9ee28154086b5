import os
import subprocess
import sys

import pandas as pd
import pytest
from ruamel.yaml import YAML

from deepsky.commands import add_frames, add_images
from deepsky.config import build
from deepsky.datasets.packed import open_packed
from deepsky.errors import ConfigError, DataError
from deepsky.formats.params import FramesParams, PicturesParams
from deepsky.stages import pack, render
from tests.galaxy_zoo_files import write_jpeg
from tests.test_render import PARAMS as FRAMES
from tests.test_render import write_sky

COLUMNS = {"id_column": "id", "label_column": "class", "size_px": 16, "crop_px": None, "group_column": None}
DEMO = """\
datasets:
  pictures:
    sdss_jpg: {format: images, source: data/raw/sdss_jpg}   # the demonstration

compare:
  datasets: {sdss_jpg}
  networks: {vgg16}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    root = tmp_path / "project"
    root.mkdir()
    (root / "params.yaml").write_text("tracking: {experiment: sky}   # a comment\n")
    monkeypatch.chdir(root)
    return root


def parsed(project):
    return YAML(typ="safe").load(project / "params.yaml")


def write_pictures(folder, table=None, labels="xyxy"):
    for number in range(len(labels)):
        write_jpeg(folder / f"deep/{number}.jpg", 9 + number)
    rows = pd.DataFrame({"id": range(len(labels)), "class": list(labels)})
    rows.to_csv(table or folder / "labels.csv", index=False)
    return folder, table or folder / "labels.csv"


def packed(project, name="mine"):
    params = build(parsed(project)["datasets"]["pictures"][name], PicturesParams, name)
    pack.run(name, params, "stop", out=project / f"data/packed/{name}")
    return open_packed(project / f"data/packed/{name}")


def assert_nothing_changed(project, before="tracking: {experiment: sky}   # a comment\n"):
    assert (project / "params.yaml").read_text() == before
    assert not (project / "data").exists()


def test_pictures_and_table_are_copied_into_one_folder_and_compared(project, tmp_path, capsys):
    folder, table = write_pictures(tmp_path / "pictures", tmp_path / "truth.csv")
    add_images.run("mine", folder, table, **COLUMNS)
    home = project / "data/external/mine"
    assert sorted(path.name for path in home.rglob("*.*")) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "labels.csv"]
    assert (home / "labels.csv").read_bytes() == table.read_bytes()
    assert parsed(project)["datasets"] == {
        "pictures": {
            "mine": {
                "format": "images",
                "source": "data/external/mine",
                "size_px": 16,
                "group_by": "image",
                "id_column": "id",
                "label_column": "class",
                "classes": ["x", "y"],
            }
        }
    }
    assert parsed(project)["compare"] == {
        "datasets": {"mine": None},
        "networks": {"efficientnet_lite0": None, "cnn_small": None},
    }
    assert "# a comment" in (project / "params.yaml").read_text()
    assert packed(project).rows["id"].tolist() == ["0", "1", "2", "3"]
    told = capsys.readouterr().out
    assert "added datasets.pictures.mine -> mine; the next `make repro` includes it\n" in told
    assert "if classes A and B swap, set datasets.pictures.mine.mirrored of params.yaml to [[A, B]]" in told


def test_a_folder_of_the_project_that_holds_its_table_stays_where_it_is(project):
    folder, table = write_pictures(project / "my pictures")
    table = table.rename(folder / "truth.csv")
    add_images.run("mine", folder, table, **COLUMNS)
    entry = parsed(project)["datasets"]["pictures"]["mine"]
    assert (entry["source"], entry["labels"]) == ("my pictures", "truth.csv")
    assert not (project / "data").exists()
    assert len(packed(project).rows) == 4


def test_a_table_outside_of_a_folder_of_the_project_makes_a_copy(project):
    folder, table = write_pictures(project / "pictures", project / "labels.csv")
    add_images.run("mine", folder, table, **COLUMNS)
    assert parsed(project)["datasets"]["pictures"]["mine"]["source"] == "data/external/mine"
    assert not (folder / "labels.csv").exists()
    assert len(packed(project).rows) == 4


def test_an_entry_joins_the_comparison_that_there_is(project, tmp_path):
    (project / "params.yaml").write_text(DEMO)
    add_images.run("mine", *write_pictures(tmp_path / "pictures"), **COLUMNS)
    assert "  datasets: {sdss_jpg, mine}\n  networks: {vgg16}\n" in (project / "params.yaml").read_text()


def test_only_mine(project, tmp_path, capsys):
    (project / "params.yaml").write_text(DEMO)
    add_images.run("mine", *write_pictures(tmp_path / "pictures"), **COLUMNS, only=True)
    left = parsed(project)
    assert list(left["datasets"]["pictures"]) == ["mine"]
    assert left["compare"] == {"datasets": {"mine": None}, "networks": {"vgg16": None}}
    assert "removed datasets.pictures.sdss_jpg\n" in capsys.readouterr().out


def test_every_option_is_entered(project, tmp_path):
    folder, table = write_pictures(tmp_path / "pictures")
    pd.read_csv(table).assign(night=[1, 2, 1, 2]).to_csv(table, index=False)
    options = {"crop_px": 20, "group_column": "night", "mirrored": ("x, y",)}
    add_images.run("mine", folder, table, **COLUMNS | options)
    entry = parsed(project)["datasets"]["pictures"]["mine"]
    assert {key: entry[key] for key in ("crop_px", "group_column", "group_by", "mirrored")} == {
        "crop_px": 20, "group_column": "night", "group_by": "group", "mirrored": [["x", "y"]],
    }  # fmt: skip
    assert packed(project).rows["group"].tolist() == ["1", "2", "1", "2"]


def test_names_of_folders_reach_no_shell(project):
    folder, table = write_pictures(project / "$(touch x); touch y")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], check=True)
    add_images.run("mine", folder, table, **COLUMNS)
    assert (project / "$(touch x); touch y.dvc").exists()
    stage = {"foreach": "${datasets.pictures}", "do": {"cmd": "echo ${key} > ${key}.txt", "deps": ["${item.source}"]}}
    stage["do"]["outs"] = ["${key}.txt"]
    YAML().dump({"stages": {"pack": stage}}, project / "dvc.yaml")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], check=True, env=dict(os.environ))
    assert (project / "mine.txt").read_text() == "mine\n"
    assert not {"x", "y"} & {path.name for path in project.iterdir()}
    assert len(packed(project).rows) == 4


@pytest.mark.parametrize("name", ["Bad Name", "z; touch x", "$(touch x)", "a-b", "", "a\n", "größe", "demo"])
def test_names_that_reach_no_shell_safely_are_refused(project, tmp_path, name):
    with pytest.raises(ConfigError, match=r"is no name; use letters, digits|means the datasets that"):
        add_images.run(name, *write_pictures(tmp_path / "pictures"), **COLUMNS)
    assert_nothing_changed(project)


def test_images_are_looked_for_as_they_are_packed(project, tmp_path):
    folder, table = write_pictures(tmp_path / "pictures")
    (folder / "deep/3.jpg").unlink()
    (folder / "3.jpg").mkdir()  # a folder is no picture
    with pytest.raises(DataError, match=r"names 1 of 4 images that are not in .*pictures, first '3'"):
        add_images.run("mine", folder, table, **COLUMNS)
    write_jpeg(folder / "more/0.png", 9)
    with pytest.raises(DataError, match=r"0.png: is a second image of id 0"):
        add_images.run("mine", folder, table, **COLUMNS)
    with pytest.raises(DataError, match=r"column 'night' is missing; its columns are id, "):
        add_images.run("mine", folder, table, **COLUMNS | {"group_column": "night"})
    assert_nothing_changed(project)


def test_mirrored_classes_are_told_of_and_checked(project, tmp_path, capsys):
    folder, table = write_pictures(tmp_path / "pictures")
    with pytest.raises(ConfigError, match=r"mirrored names the unknown class 'z'; classes are x, y"):
        add_images.run("mine", folder, table, **COLUMNS, mirrored=("x,z",))
    assert_nothing_changed(project)
    add_images.run("mine", folder, table, **COLUMNS, mirrored=("x,y",))
    assert packed(project).card.mirrored == (("x", "y"),)
    assert "mirror" not in capsys.readouterr().out


def test_what_stands_there_already_is_not_overwritten(project, tmp_path):
    (project / "data/external/mine").mkdir(parents=True)
    (project / "data/external/mine/precious.txt").write_text("mine")
    folder, table = write_pictures(tmp_path / "pictures")
    with pytest.raises(ConfigError, match=r"data/external/mine: exists already; choose another name"):
        add_images.run("mine", folder, table, **COLUMNS)
    assert [path.name for path in (project / "data/external/mine").iterdir()] == ["precious.txt"]
    write_pictures(project, tmp_path / "labels.csv")
    with pytest.raises(ConfigError, match=r"holds the project itself; name the folder of the data alone"):
        add_images.run("other", project, tmp_path / "labels.csv", **COLUMNS)


def test_a_failure_takes_the_copies_away(project, tmp_path, monkeypatch):
    def refuse(paths):
        raise DataError(paths[0], "dvc add failed", "mend that")

    monkeypatch.setattr("deepsky.commands.registering.dvc_add", refuse)
    with pytest.raises(DataError, match="dvc add failed"):
        add_images.run("mine", *write_pictures(tmp_path / "pictures"), **COLUMNS)
    assert not (project / "data/external/mine").exists()
    assert "datasets" not in parsed(project)


def test_frames_are_entered_with_what_splits_them_and_their_cutouts_compared(project, tmp_path):
    (project / "params.yaml").write_text(DEMO)
    write_sky(tmp_path)
    options = {"id_column": "objid", "label_column": "class", "bands": ["g", "r", "i"], "colours": ["i", "r", "g"]}
    options |= {"cutout_size_px": 16}
    with pytest.raises(ConfigError, match="band 'u' is not among bands g, r, i"):
        add_frames.run("sky", tmp_path / "frames", tmp_path / "catalogue.csv", options | {"colours": ["u", "r", "g"]})
    add_frames.run("sky", tmp_path / "frames", tmp_path / "catalogue.csv", options, only=True)
    params = build(parsed(project)["datasets"]["frames"]["sky"], FramesParams, "sky")
    home = "data/external/sky"
    changes = {"folder": f"{home}/frames", "catalogue": f"{home}/catalogue.csv", "group_by": "sky"}
    assert params == FramesParams(**vars(FRAMES) | changes)
    assert parsed(project)["compare"]["datasets"] == {"sky_cutouts": None}
    assert "sdss_jpg" not in (project / "params.yaml").read_text()
    render.run("sky", params, "stop", png=project / "png", packed=project / "packed")
    assert len(open_packed(project / "packed/sky_cutouts").rows) == 9
    with pytest.raises(ConfigError, match="'sky_rgb' exists already"):
        add_images.run("sky_rgb", *write_pictures(tmp_path / "pictures"), **COLUMNS)
