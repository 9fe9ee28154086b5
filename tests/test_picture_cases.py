"""The inputs of ../shared/cases that concern pictures: what users of such software really have."""

import shutil

import pandas as pd
import pytest

from deepsky.commands.add_images import Labels, run
from deepsky.errors import DataError
from tests.conftest import REAL_DATA
from tests.test_add_images import packed

CASES = REAL_DATA.parent / "cases"
CLASSES = ["cigar", "edge_on", "in_between", "round", "spiral"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text("tracking: {experiment: sky}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def add(name, pictures="img"):
    folder = CASES / name
    if not folder.exists():
        pytest.skip(f"needs the case {folder}")
    run("mine", folder / pictures, Labels(folder / "labels.csv", "GalaxyID", "cls"), size_px=16)


def assert_all_are_read(project):
    rows = packed(project).rows
    assert rows["label"].value_counts().to_dict() == dict.fromkeys(CLASSES, 14)
    assert rows["id"].str.fullmatch(r"\d{6}").all()


@pytest.mark.real
@pytest.mark.parametrize(
    "name",
    ["21-name-with-jpg", "22-float-id", "23-subfolders", "26g-png-trailing", "28-checkpoint-same-name", "28b-trash",
     "30-space-comma"],
)  # fmt: skip
def test_what_people_have_is_read(project, name):
    add(name)
    assert_all_are_read(project)


@pytest.mark.real
def test_windows_zip(project):
    add("36b-zip-backslash", "img.zip")
    assert_all_are_read(project)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("26d-cmyk", "is a CMYK JPEG; convert it to RGB or gray"),
        ("26e-16bit", "has 16 bits per channel; convert it to 8 bits"),
        ("41-excel-id", "labels.csv: column 'GalaxyID' holds the rounded id .*a spreadsheet ruined it"),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_is_copied(project, name, message):
    with pytest.raises(DataError, match=message):
        add(name)
    assert [path.name for path in project.iterdir()] == ["params.yaml"]


@pytest.mark.real
def test_class_folders_without_a_table(project):
    if not (CASES / "23-subfolders").exists():
        pytest.skip("needs the case 23-subfolders")
    run("mine", CASES / "23-subfolders/img", Labels(), size_px=16)
    assert_all_are_read(project)


@pytest.mark.real
def test_a_link_to_another_folder_is_named_and_one_within_is_followed(project):
    """The case's own link was stored as text: it is made again."""
    folder = CASES / "38-symlink-folder"
    if not folder.exists():
        pytest.skip(f"needs the case {folder}")
    shutil.copytree(folder / "real", project / "own/real")
    (project / "own/img").mkdir()
    (project / "own/img/sub").symlink_to("../real")
    labels = Labels(folder / "labels.csv", "GalaxyID", "cls")
    with pytest.raises(DataError, match=r"own/img/sub: is a link out of the folder, to ../real; put what it leads to"):
        run("mine", project / "own/img", labels, size_px=16)
    run("mine", project / "own", labels, size_px=16)
    assert len(packed(project).rows) == len(pd.read_csv(folder / "labels.csv"))
    assert_all_are_read(project)
