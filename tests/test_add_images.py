import os
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from click.testing import CliRunner
from ruamel.yaml import YAML

from deepsky.cli import cli
from deepsky.commands import add_frames, add_images
from deepsky.commands.add_images import Labels
from deepsky.config import build
from deepsky.datasets.packed import open_packed
from deepsky.datasets.params import SplitParams
from deepsky.datasets.splits import split_rows
from deepsky.errors import ConfigError, DataError
from deepsky.formats import class_folders
from deepsky.formats.params import FramesParams, PicturesParams
from deepsky.imaging.picture_files import PictureFiles
from deepsky.stages import pack, render
from tests.galaxy_zoo_files import write_jpeg
from tests.test_render import PARAMS as FRAMES
from tests.test_render import write_sky

SPLIT = "split: {test_fraction: 0.34, val_fraction: 0.33}\n"
BEFORE = f"tracking: {{experiment: sky}}   # a comment\n{SPLIT}"
DEMO = f"""\
datasets:
  pictures:
    sdss_jpg: {{format: mnist, source: data/raw/sdss_jpg, size_px: 28}}   # the demonstration

{SPLIT}
compare:
  datasets: {{sdss_jpg}}
  networks: {{vgg16}}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    root = tmp_path / "project"
    root.mkdir()
    (root / "params.yaml").write_text(BEFORE)
    monkeypatch.chdir(root)
    return root


def parsed(project):
    return YAML(typ="safe").load(project / "params.yaml")


def add(name, folder, table=None, *, id_column="id", label_column="class", class_columns=(), classes=(), **options):
    how = Labels(table, id_column, label_column, dict(class_columns), classes)
    add_images.run(name, folder, how, **{"size_px": 16} | options)


def write_pictures(folder, table=None, labels="xyxyxy"):
    for number in range(len(labels)):
        write_jpeg(folder / f"deep/{number}.jpg", 9 + number)
    rows = pd.DataFrame({"id": range(len(labels)), "class": list(labels)})
    rows.to_csv(table or folder / "labels.csv", index=False)
    return folder, table or folder / "labels.csv"


def packed(project, name="mine"):
    params = build(parsed(project)["datasets"]["pictures"][name], PicturesParams, name)
    pack.run(name, params, "stop", out=project / f"data/packed/{name}")
    return open_packed(project / f"data/packed/{name}")


def assert_nothing_changed(project, before=BEFORE):
    assert (project / "params.yaml").read_text() == before
    assert not (project / "data").exists()


def test_pictures_and_table_are_copied_into_one_folder_and_compared(project, tmp_path, capsys):
    folder, table = write_pictures(tmp_path / "pictures", tmp_path / "truth.csv")
    add("mine", folder, table)
    home = project / "data/external/mine"
    assert sorted(path.name for path in home.rglob("*.*")) == [*(f"{number}.jpg" for number in range(6)), "truth.csv"]
    assert (home / "truth.csv").read_bytes() == table.read_bytes()
    assert parsed(project)["datasets"] == {
        "pictures": {
            "mine": {
                "format": "images",
                "source": "data/external/mine",
                "size_px": 16,
                "group_by": "image",
                "labels": "truth.csv",
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
    assert packed(project).rows["id"].tolist() == list("012345")
    told = capsys.readouterr().out
    assert "added datasets.pictures.mine -> mine; the next `make repro` includes it\n" in told
    assert "if classes A and B swap, set datasets.pictures.mine.mirrored of params.yaml to [[A, B]]" in told


def test_a_folder_of_the_project_that_holds_its_table_stays_where_it_is(project):
    folder, table = write_pictures(project / "my pictures")
    table = table.rename(folder / "truth.csv")
    add("mine", folder, table)
    entry = parsed(project)["datasets"]["pictures"]["mine"]
    assert (entry["source"], entry["labels"]) == ("my pictures", "truth.csv")
    assert not (project / "data").exists()
    assert len(packed(project).rows) == 6


def test_a_table_outside_of_a_folder_of_the_project_makes_a_copy(project):
    folder, table = write_pictures(project / "pictures", project / "labels.csv")
    add("mine", folder, table)
    assert parsed(project)["datasets"]["pictures"]["mine"]["source"] == "data/external/mine"
    assert not (folder / "labels.csv").exists()
    assert len(packed(project).rows) == 6


def test_an_entry_joins_the_comparison_that_there_is(project, tmp_path):
    (project / "params.yaml").write_text(DEMO)
    add("mine", *write_pictures(tmp_path / "pictures"))
    assert "  datasets: {sdss_jpg, mine}\n  networks: {vgg16}\n" in (project / "params.yaml").read_text()


def test_only_mine(project, tmp_path, capsys):
    (project / "params.yaml").write_text(DEMO)
    add("mine", *write_pictures(tmp_path / "pictures"), only=True)
    left = parsed(project)
    assert list(left["datasets"]["pictures"]) == ["mine"]
    assert left["compare"] == {"datasets": {"mine": None}, "networks": {"vgg16": None}}
    assert "removed datasets.pictures.sdss_jpg\n" in capsys.readouterr().out


def test_every_option_is_entered(project, tmp_path):
    folder, table = write_pictures(tmp_path / "pictures")
    pd.read_csv(table).assign(night=[1, 2, 3, 4, 5, 6]).to_csv(table, index=False)
    options = {"crop_px": 20, "group_column": "night", "mirrored": [["x", "y"]]}
    add("mine", folder, table, **options)
    entry = parsed(project)["datasets"]["pictures"]["mine"]
    assert {key: entry[key] for key in ("crop_px", "group_column", "group_by", "mirrored")} == {
        "crop_px": 20, "group_column": "night", "group_by": "group", "mirrored": [["x", "y"]],
    }  # fmt: skip
    assert packed(project).rows["group"].tolist() == list("123456")


def test_names_of_folders_reach_no_shell(project):
    folder, table = write_pictures(project / "$(touch x); touch y")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], check=True)
    add("mine", folder, table)
    assert (project / "$(touch x); touch y.dvc").exists()
    stage = {"foreach": "${datasets.pictures}", "do": {"cmd": "echo ${key} > ${key}.txt", "deps": ["${item.source}"]}}
    stage["do"]["outs"] = ["${key}.txt"]
    YAML().dump({"stages": {"pack": stage}}, project / "dvc.yaml")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], check=True, env=dict(os.environ))
    assert (project / "mine.txt").read_text() == "mine\n"
    assert not {"x", "y"} & {path.name for path in project.iterdir()}
    assert len(packed(project).rows) == 6


@pytest.mark.parametrize("name", ["Bad Name", "z; touch x", "$(touch x)", "a-b", "", "a\n", "größe", "demo"])
def test_names_that_reach_no_shell_safely_are_refused(project, tmp_path, name):
    with pytest.raises(ConfigError, match=r"is no name; use letters, digits|means the datasets that"):
        add(name, *write_pictures(tmp_path / "pictures"))
    assert_nothing_changed(project)


def test_images_are_looked_for_as_they_are_packed(project, tmp_path):
    folder, table = write_pictures(tmp_path / "pictures")
    (folder / "deep/3.jpg").unlink()
    (folder / "3.jpg").mkdir()  # a folder is no picture
    with pytest.raises(DataError, match=r"labels.csv: 1 of its 6 images are absent from .*pictures, the first is 3"):
        add("mine", folder, table)
    write_jpeg(folder / "more/0.png", 9)
    with pytest.raises(DataError, match=r"0.png: is a second image of id 0"):
        add("mine", folder, table)
    with pytest.raises(ConfigError, match=r"group_column 'night': is not a column of .*labels.csv; it has id, "):
        add("mine", folder, table, group_column="night")
    assert_nothing_changed(project)


def test_mirrored_classes_are_told_of_and_checked(project, tmp_path, capsys):
    folder, table = write_pictures(tmp_path / "pictures")
    with pytest.raises(ConfigError, match=r"mirrored names the unknown class 'z'; classes are x, y"):
        add("mine", folder, table, mirrored=[["x", "z"]])
    assert_nothing_changed(project)
    add("mine", folder, table, mirrored=[["x", "y"]])
    assert packed(project).card.mirrored == (("x", "y"),)
    assert "mirror" not in capsys.readouterr().out


def test_what_stands_there_already_is_not_overwritten(project, tmp_path):
    (project / "data/external/mine").mkdir(parents=True)
    (project / "data/external/mine/precious.txt").write_text("mine")
    folder, table = write_pictures(tmp_path / "pictures")
    with pytest.raises(ConfigError, match=r"data/external/mine: exists already; choose another name"):
        add("mine", folder, table)
    assert [path.name for path in (project / "data/external/mine").iterdir()] == ["precious.txt"]
    write_pictures(project, tmp_path / "labels.csv")
    with pytest.raises(ConfigError, match=r"holds the project itself; name the folder of the data alone"):
        add("other", project, tmp_path / "labels.csv")


def test_a_failure_takes_the_copies_away(project, tmp_path, monkeypatch):
    def refuse(paths):
        raise DataError(paths[0], "dvc add failed", "mend that")

    monkeypatch.setattr("deepsky.commands.registering.dvc_add", refuse)
    with pytest.raises(DataError, match="dvc add failed"):
        add("mine", *write_pictures(tmp_path / "pictures"))
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
        add("sky_rgb", *write_pictures(tmp_path / "pictures"))


# ---- a folder for each class ----


def write_classes(folder, *names, n=6):
    """Pictures 0.jpg, ... of another gray level in each folder."""
    for level, name in enumerate(names):
        for number in range(n):
            write_jpeg(folder / name / f"{number}.jpg", 20 * level + 9)
    return folder


def test_a_folder_for_each_class_needs_no_table(project, tmp_path, capsys):
    folder = write_classes(tmp_path / "pictures", "whole/spiral", "whole/round one", "whole/round one/2020 b")
    (folder / "whole/notes.txt").write_text("")
    for hidden in (".ipynb_checkpoints/a.jpg", "__MACOSX/whole/spiral/a.jpg", ".Trash-1000/files/a.jpg"):
        (folder / hidden).parent.mkdir(parents=True)
        (folder / hidden).write_bytes(b"no picture")
    (folder / "whole/spiral/._0.jpg").write_bytes(b"no picture")
    add("mine", folder)
    assert parsed(project)["datasets"]["pictures"]["mine"] == {
        "format": "class_folders", "source": "data/external/mine", "size_px": 16, "group_by": "image",
        "classes": ["round one", "spiral"],
    }  # fmt: skip
    found = packed(project)
    assert found.rows["label"].value_counts().to_dict() == {"round one": 12, "spiral": 6}
    assert {
        one.id: int(image.mean()) // 20 for one, image in zip(found.rows.itertuples(), found.images, strict=True)
    } == {
        f"{place}/{number}.jpg": level  # the name alone would not tell them
        for level, place in enumerate(("whole/spiral", "whole/round one", "whole/round one/2020 b"))
        for number in range(6)
    }
    told = capsys.readouterr().out
    assert "took 18 pictures: round one 12, spiral 6\n" in told
    assert "left out 1 files that are no JPEG, PNG or TIFF: 1 .txt\nevery picture has a label\n" in told
    assert told.endswith("next: make repro ONLY=mine\n")
    assert not (project / "data/external/mine/__MACOSX").exists()


def test_names_are_ids_where_they_are_enough(project, tmp_path):
    for number in range(12):
        write_jpeg(tmp_path / f"pictures/{'xy'[number % 2]}/galaxy {number:02}.jpg", 9)
    add("mine", tmp_path / "pictures")
    assert sorted(packed(project).rows["id"]) == [f"galaxy {number:02}" for number in range(12)]


def test_the_command_line_writes_what_it_is_told(project, tmp_path):
    folder = write_classes(tmp_path / "pictures", "x", "y")
    told = ["--classes", "y, x", "--mirrored", "x,y", "--denoise", "median", "--limit", "8", "--size-px", "16"]
    CliRunner().invoke(cli, ["add", "images", "mine", str(folder), *told], catch_exceptions=False)
    assert parsed(project)["datasets"]["pictures"]["mine"] == {
        "format": "class_folders", "source": "data/external/mine", "size_px": 16, "group_by": "image",
        "denoise": "median", "denoise_strength": 3.0, "classes": ["y", "x"], "mirrored": [["x", "y"]], "limit": 8,
    }  # fmt: skip
    assert len(packed(project).rows) == 8
    wrong = ["add", "images", "zoo", str(folder), "table.csv", "--class-column", "P_EL"]
    assert "'P_EL' is not CLASS=COLUMN" in CliRunner().invoke(cli, wrong).output


def test_given_parts_are_the_split(project, tmp_path, capsys):
    parts = [f"{part}/{label}" for part in ("Train", "validation", "test") for label in "xy"]
    folder = write_classes(tmp_path / "pictures", *parts)
    write_jpeg(folder / "test/unsorted.jpg", 9)
    write_jpeg(folder / "readme.png", 9)
    add("mine", folder, limit=12)
    assert parsed(project)["datasets"]["pictures"]["mine"]["group_by"] == "given"
    rows = packed(project).rows
    split = split_rows(rows, "given", SplitParams())
    assert split["split"].tolist() == rows["group"].tolist()
    assert rows.groupby(["group", "label"]).size().to_list() == [2] * 6
    told = capsys.readouterr().out
    assert "left out 2 pictures in no class folder\nleft out 24 objects beyond limit\n2 pictures have no label" in told


@pytest.mark.parametrize(("given", "drawn"), [(("train", "test"), "val"), (("train", "val"), "test")])
def test_a_part_that_is_not_given_is_drawn_from_train(tmp_path, given, drawn):
    folder = write_classes(tmp_path / "p", *(f"{part}/{label}" for part in given for label in "xy"), n=10)
    rows = class_folders.sorted_pictures(PictureFiles(folder).names)
    rows = rows.assign(image=range(len(rows)))
    split = split_rows(rows, "given", SplitParams())
    assert split["split"].value_counts().to_dict() == {given[1]: 20, drawn: 10, "train": 10}
    assert set(rows.loc[split["split"] == drawn, "group"]) == {"train"}


def test_classes_choose_and_order_and_the_rest_is_counted(project, tmp_path, capsys):
    folder = write_classes(tmp_path / "pictures", "x", "y", "z")
    for message, classes in (("--classes w: is no class of .*; choose of: x, y, z", ["x", "w"]),
                             ("name x more than once", ["x", "y", "x"])):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            add("mine", folder, classes=classes)
    assert_nothing_changed(project)
    add("mine", folder, classes=["z", "x"], gray=True, denoise="median", denoise_strength=3.0, crop_px=20)
    entry = parsed(project)["datasets"]["pictures"]["mine"]
    assert (entry["classes"], entry["other_classes"]) == (["z", "x"], ["y"])
    found = packed(project)
    assert (found.card.classes, found.card.bands, found.card.denoise, found.card.crop_px) == (
        ("z", "x"), ("gray",), "median", 20,
    )  # fmt: skip
    assert "took 12 pictures: z 6, x 6\nleft out 6 objects of other classes\n" in capsys.readouterr().out
    write_classes(project / "data/external/mine", "w")
    with pytest.raises(DataError, match=r"mine/w/0.jpg: stands in the folder 'w', which is no known class; known"):
        packed(project)


def test_labels_of_a_table_are_chosen_and_may_be_absent(project, tmp_path, capsys):
    folder, table = write_pictures(tmp_path / "pictures", labels="xyzxyzxyz")
    rows = pd.read_csv(table)
    rows.loc[len(rows)] = [9, ""]
    rows["id"] = [f"{identity}.jpg" for identity in rows["id"]]
    rows.to_csv(table, index=False)
    for number in (9, 10):
        write_jpeg(folder / f"{number}.jpg", 9)
    add("mine", folder, table, classes=["x", "y"])
    told = capsys.readouterr().out
    assert (
        "took 6 pictures: x 3, y 3\nleft out 1 images that no row names\nleft out 1 objects without a label\n" in told
    )
    assert "left out 3 objects of other classes\n2 pictures have no label\n" in told
    assert packed(project).rows["id"].tolist() == list("013467")


def test_a_zip_of_any_program_is_unpacked(project, tmp_path):
    folder = write_classes(tmp_path / "pictures", "x", "y")
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for path in sorted(folder.rglob("*.jpg")):
            archive.write(path, f"my pictures\\{path.parent.name}\\{path.name}")
    add("mine", tmp_path / "mine.zip")
    assert len(packed(project).rows) == 12
    assert (project / "data/external/mine/my pictures/x/0.jpg").read_bytes() == (folder / "x/0.jpg").read_bytes()
    with zipfile.ZipFile(tmp_path / "mine.zip", "a") as archive:
        archive.writestr("my pictures/x/0.jpg", b"another")
    with pytest.raises(DataError, match=r"mine.zip: holds two members named my pictures/x/0.jpg; pack it again"):
        add("twice", tmp_path / "mine.zip")


def test_a_zip_bomb_is_named_and_not_unpacked(project, tmp_path):
    folder = write_classes(tmp_path / "pictures", "x", "y")
    with zipfile.ZipFile(tmp_path / "mine.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.rglob("*.jpg"):
            archive.write(path, path.relative_to(folder))
        archive.writestr("x/bomb.png", bytes(20_000_000))
    with pytest.raises(DataError, match=r"bomb.png: would unpack from [\d,]+ to 20,000,000 bytes; take it out"):
        add("mine", tmp_path / "mine.zip")
    assert_nothing_changed(project)


def test_links_are_followed_but_not_out_of_the_folder_nor_in_circles(project, tmp_path):
    folder = write_classes(tmp_path / "pictures", "x", "rest/y")
    (folder / "y").symlink_to("rest/y")
    (folder / "y/again").symlink_to("../../")
    add("mine", folder, classes=["x", "y"])
    assert packed(project).rows["label"].value_counts().to_dict() == {"x": 6, "y": 6}
    assert not [path for path in (project / "data/external").rglob("*") if path.is_symlink()]
    (tmp_path / "elsewhere").mkdir()
    (folder / "z").symlink_to("../elsewhere")
    with pytest.raises(DataError, match=r"pictures/z: is a link out of the folder, to \.\./elsewhere; put what it"):
        add("more", folder)


def test_every_bad_picture_is_named(project, tmp_path, capsys):
    folder = write_classes(tmp_path / "pictures", "x", "y")
    (folder / "x/0.jpg").write_bytes(b"<html>")
    (folder / "y/3.jpg").write_bytes((folder / "y/3.jpg").read_bytes()[:300])
    with pytest.raises(DataError, match=r"pictures: 2 of its 12 pictures cannot be used; they are named above; mend"):
        add("mine", folder)
    told = capsys.readouterr().err
    assert "x/0.jpg: is neither JPEG, PNG nor TIFF\n" in told
    assert "y/3.jpg: is damaged or cut short" in told
    assert_nothing_changed(project)
    with (project / "params.yaml").open("a") as file:
        file.write("on_bad_file: skip\n")
    add("mine", folder)
    assert "took 10 pictures: x 5, y 5\nleft out 2 bad pictures\n" in capsys.readouterr().out
    assert len(packed(project).rows) == 10


def test_what_is_no_folder_of_pictures_is_told_in_a_line(project, tmp_path):
    folder = tmp_path / "pictures"
    with pytest.raises(DataError, match="pictures: does not exist; name the folder, or zip, of the pictures"):
        add("mine", folder, tmp_path / "labels.csv")
    write_jpeg(folder / "0.jpg", 9)
    with pytest.raises(DataError, match=r"pictures: holds no folder for each class, and no table of labels was named"):
        add("mine", folder)
    (folder / "0.jpg").rename(folder / "0.webp")
    with pytest.raises(DataError, match=r"holds no pictures \(\*.jpg, .*, but: 1 .webp\); name the folder"):
        add("mine", folder)
    os.mkfifo(folder / "pipe")
    with pytest.raises(DataError, match=r"pipe: is no file but a pipe, socket or device; take it out of the folder"):
        add("mine", folder)
    assert_nothing_changed(project)


def test_one_column_cannot_be_both(project, tmp_path):
    folder, table = write_pictures(tmp_path / "pictures")
    with pytest.raises(ConfigError, match="column 'class' is to be both id and class; name two columns"):
        add("mine", folder, table, id_column="class")


# ---- Galaxy Zoo's data releases ----

RELEASE = {"id_column": "OBJID", "class_columns": {"elliptical": "ELLIPTICAL", "spiral": "P_CS"}, "group_by": "image"}


def write_release(folder, form, n_others=70_000):
    """Twelve pictures, and a table in which they are a few among many; as published, or by another writer."""
    ids = np.arange(587722981742215240, 587722981742215240 + n_others + 14)
    own = ids[100 : 100 + 14]
    for number, identity in enumerate(own[:12]):
        write_jpeg(folder / f"{identity}.jpg", 9 + number)
    write_jpeg(folder / "1.jpg", 9)
    table = pd.DataFrame({"OBJID": ids, "RA": "00:00:00.41", "P_EL": 0.3, "P_CS": 0.1, "ELLIPTICAL": 0})
    table.loc[100:104, "ELLIPTICAL"] = 1
    table.loc[105:109, "P_CS"] = np.array([0.8, 0.9, 1, 0.81, 0.99])
    table.loc[110, ["P_CS", "ELLIPTICAL"]] = [0.9, 1]  # of two classes
    path = folder / f"release{form}"
    if form == ".fits":
        Table.from_pandas(table).write(path)
    elif form == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return folder, path


@pytest.mark.parametrize("form", [".csv", ".csv.gz", ".parquet", ".fits"])
def test_a_data_release_of_galaxy_zoo_gives_its_pictures_classes(project, tmp_path, capsys, form):
    add("zoo", *write_release(tmp_path / "pictures", form), **RELEASE, least_vote=0.8)
    entry = parsed(project)["datasets"]["pictures"]["zoo"]
    assert {key: entry[key] for key in ("format", "labels", "classes", "class_columns")} == {
        "format": "galaxy_zoo_votes", "labels": f"release{form}",
        "classes": ["elliptical", "spiral"], "class_columns": ["ELLIPTICAL", "P_CS"],
    }  # fmt: skip
    rows = packed(project, "zoo").rows
    assert rows["label"].tolist() == ["elliptical"] * 5 + ["spiral"] * 5
    assert rows["id"].tolist() == [str(587722981742215240 + 100 + number) for number in range(10)]
    told = capsys.readouterr().out
    assert "left out 1 images that no row names\nleft out 70,002 rows without a picture\n" in told
    assert "left out 2 galaxies of no class, or of several\n1 pictures have no label\n" in told


def test_what_is_no_data_release_is_told_in_a_line(project, tmp_path):
    folder, path = write_release(tmp_path / "pictures", ".csv", n_others=100)
    with pytest.raises(DataError, match=r"release.csv: column 'SPIRAL' is missing; its columns are OBJID, RA, P_EL"):
        add("zoo", folder, path, **RELEASE | {"class_columns": {"a": "P_EL", "b": "SPIRAL"}})
    with pytest.raises(
        DataError, match=r"release.csv: cannot be read \(.*CSV's column 2: .*'00:00:00.41'\); give the release's table"
    ):
        add("zoo", folder, path, **RELEASE | {"class_columns": {"a": "P_EL", "b": "RA"}})
    with pytest.raises(
        DataError, match=r"none of its 114 rows \(the first: 0.1\) names one of 13 pictures \(the first: 1"
    ):
        add("zoo", folder, path, **RELEASE | {"id_column": "P_CS", "class_columns": {"a": "P_EL", "b": "ELLIPTICAL"}})
    table = pd.read_csv(path, dtype={"OBJID": str})
    table["OBJID"] = "5.87723E+17"
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match="its ids were rounded by a spreadsheet: take the table as published"):
        add("zoo", folder, path, **RELEASE)
    with pytest.raises(DataError, match=r"absent.csv: does not exist; give the release's table"):
        add("zoo", folder, tmp_path / "absent.csv", **RELEASE)
    assert_nothing_changed(project)
