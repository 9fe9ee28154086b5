import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from deepsky.cli import cli
from deepsky.commands import add_published
from deepsky.config import build
from deepsky.datasets.packed import open_packed
from deepsky.datasets.params import GroupBy
from deepsky.errors import ConfigError, DataError
from deepsky.formats import galaxy10
from deepsky.formats.params import PicturesParams
from deepsky.formats.registry import FORMATS, OWN
from deepsky.stages import pack
from tests.archive_server import ArchiveServer, Fault
from tests.galaxy_zoo_files import write_challenge
from tests.test_galaxy10 import contents
from tests.test_galaxy10 import write as write_galaxy10
from tests.test_warm_ups import arrays, write_npz

PARAMS = """\
datasets:
  frames:
    sdss: {folder: f, catalogue: c, id_column: id, label_column: class, classes: [a, b], position: radec,
           position_band: r, bands: [r], frame_bands: [r], rgb_bands: [r, r, r], colour_bands: [r, r, r],
           cutout_size_px: 64}
  pictures:
    stand_in: {format: mnist, source: data/raw/mnist.npz, size_px: 28}  # a comment

split: {test_fraction: 0.34, val_fraction: 0.33}
download: {mirror: null, connections: 1, requests_per_s: null, timeout_s: 5, tries: 1}
"""
OPTIONS = {
    "target": "class", "size_px": 16, "crop_px": None, "denoise": "none", "denoise_strength": 0.0, "gray": False,
    "sha256": None,
}  # fmt: skip
H5 = "/records/10845026/files/Galaxy10_DECals.h5"


@pytest.fixture
def project(tmp_path, monkeypatch):
    root = tmp_path / "project"
    root.mkdir()
    (root / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(root)
    return root


def add(name, kind, source=None, group_by=None, **changes):
    add_published.run(name, kind, source, group_by=group_by, **OPTIONS | changes)


def dvc(*arguments):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where the stages find deepsky
    subprocess.run([sys.executable, "-m", "dvc", *arguments], env=os.environ | {"PATH": path}, check=True)


def entry(name):
    return build(YAML(typ="safe").load(Path("params.yaml"))["datasets"]["pictures"][name], PicturesParams, name)


def assert_nothing_changed(project, text=PARAMS):
    assert (project / "params.yaml").read_text() == text
    assert not [path for path in project.rglob("*") if path.is_file() and path.name != "params.yaml"]


def test_a_file_is_copied_and_entered(project, tmp_path, capsys):
    source = write_npz(tmp_path / "digits.npz")
    add("digits", "mnist", source)
    assert (project / "data/external/digits/digits.npz").read_bytes() == source.read_bytes()
    assert entry("digits") == PicturesParams("mnist", "data/external/digits/digits.npz", 16)
    text = (project / "params.yaml").read_text()
    assert "# a comment" in text
    assert "crop_px" not in text  # what is not asked for is not written
    told = capsys.readouterr().out
    assert "added datasets.pictures.digits\n" in told
    line = told.splitlines()[-1]
    assert YAML(typ="safe").load(line) == {"digits_frozen": {"dataset": "digits", "network": "efficientnet_lite0"}}
    assert "compare" not in text


def test_every_option_is_entered_and_data_of_the_project_stay_where_they_are(project):
    source = write_galaxy10(project / "mine.h5")
    options = {"crop_px": 200, "denoise": "median", "denoise_strength": 3.0, "gray": True, "sha256": "any"}
    add("galaxies", "galaxy10", source, group_by="image", **options)
    assert entry("galaxies") == PicturesParams(
        "galaxy10", "mine.h5", 16, 200, "median", 3.0, True, group_by="image", sha256="any"
    )
    assert not (project / "data").exists()


def test_it_is_versioned_in_a_dvc_project(project, tmp_path):
    dvc("init", "--quiet", "--no-scm")
    add("digits", "mnist", write_npz(tmp_path / "digits.npz"))
    assert (project / "data/external/digits/digits.npz.dvc").exists()


def test_what_would_fail_later_is_refused_and_leaves_nothing(project, tmp_path):
    digits, galaxies = write_npz(tmp_path / "digits.npz"), write_galaxy10(tmp_path / "g.h5")
    for error, message, arguments in (
        (ConfigError, "'stand_in' exists already", ("stand_in", "mnist", digits)),
        (ConfigError, "'sdss_rgb' exists already", ("sdss_rgb", "mnist", digits)),
        (ConfigError, "the new dataset: .* is no name; use letters, digits and _", ("Bad Name", "mnist", digits)),
        (ConfigError, "is no name; use", ("z; touch x", "mnist", digits)),
        (ConfigError, "is no name; use", ("z\n", "mnist", digits)),
        (ConfigError, "is no name; use", ("größe", "mnist", digits)),
        (ConfigError, "name 'demo': means the datasets that deepsky comes with", ("demo", "mnist", digits)),
        (ConfigError, "format 'mnits' is unknown; choose one of", ("bad", "mnits", digits)),
        (
            ConfigError,
            "format images: is for a person's own pictures; use deepsky add images",
            ("bad", "images", digits),
        ),
        (DataError, "has the SHA-256 .*, or --sha256 any", ("bad", "galaxy10", galaxies)),
        (DataError, "is not a whole .npz", ("bad", "mnist", galaxies)),
        (DataError, "nope.npz: does not exist; name the file", ("bad", "mnist", tmp_path / "nope.npz")),
    ):
        with pytest.raises(error, match=message) as caught:
            add(*arguments)
        assert "\n" not in str(caught.value)
    for error, message, options in (
        (ConfigError, "size_px must lie between", {"size_px": 2}),
        (ConfigError, "format mnist has no fractions, it has class", {"target": "fractions"}),
        (ConfigError, "denoise_strength of denoise median", {"denoise": "median"}),
        (ConfigError, "sha256 is no key of format mnist", {"sha256": "any"}),
        (DataError, "has no ra_deg; group_by: sky needs it", {"group_by": "sky"}),
    ):
        with pytest.raises(error, match=message):
            add("bad", "mnist", digits, **options)
    with pytest.raises(DataError, match="the given test part: lacks the class 9"):
        add("bad", "mnist", write_npz(tmp_path / "few.npz", n_test=9))
    assert_nothing_changed(project)


def test_nothing_to_learn_from_is_refused(project, tmp_path):
    empty = write_galaxy10(tmp_path / "empty.h5", chunks=None, **contents(0))
    zoo = write_challenge(tmp_path / "zoo", [1, 2], ["none", "none"])
    one_class = write_challenge(tmp_path / "round", range(1, 9), ["round"] * 8)
    half = write_npz(tmp_path / "half.npz", y_train=np.full(40, 3), y_test=np.full(20, 3))
    for message, kind, source, options in (
        (r"holds no object to learn from \(it is empty\)", "galaxy10", empty, {"sha256": "any"}),
        (r"holds no object .*\(it is empty\)", "mnist", write_npz(tmp_path / "0.npz", n_train=0, n_test=0), {}),
        (r"holds no object .*\(2 galaxies of no clean class\)", "galaxy_zoo_challenge", zoo, {}),
        (r"every object \(8\) is of the class 'round'", "galaxy_zoo_challenge", one_class, {}),
        (r"every object \(60\) is of the class '3'", "mnist", half, {}),
    ):
        with pytest.raises(DataError, match=message) as caught:
            add("bad", kind, source, **options)
        assert str(caught.value).startswith(f"{source}: ")
        assert "\n" not in str(caught.value)
    assert_nothing_changed(project)
    add("votes", "galaxy_zoo_challenge", one_class, target="fractions")  # one class there is to be


def test_every_picture_is_looked_at(project, tmp_path):
    zoo = write_challenge(tmp_path / "zoo", range(1, 17), ["round", "spiral"] * 8)
    with pytest.raises(DataError, match=r"images_training_rev1/\d+.jpg: is 40 x 40 px, less than crop_px 41"):
        add("bad", "galaxy_zoo_challenge", zoo, crop_px=41)
    with pytest.raises(ConfigError, match="crop_px 29: is larger than the images"):
        add("bad", "mnist", write_npz(tmp_path / "digits.npz"), crop_px=29)
    last = zoo / "images_training_rev1/16.jpg"
    whole = last.read_bytes()
    last.write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"16.jpg: is damaged or cut short"):
        add("bad", "galaxy_zoo_challenge", zoo)
    assert_nothing_changed(project)
    last.write_bytes(whole)
    add("good", "galaxy_zoo_challenge", zoo)


def test_what_a_stage_writes_is_entered_as_it_is_and_packed_from_a_path_with_a_space(project, tmp_path):
    write_npz(tmp_path / "made.npz")
    make = {"cmd": f"cp '{tmp_path}/made.npz' 'data/raw/my digits.npz'", "outs": ["data/raw/my digits.npz"]}
    YAML().dump({"stages": {"make": make}}, project / "dvc.yaml")
    (project / "data/raw").mkdir(parents=True)
    dvc("init", "--quiet", "--no-scm")
    dvc("repro", "--quiet", "make")
    add("digits", "mnist", project / "data/raw/my digits.npz")
    assert entry("digits").source == "data/raw/my digits.npz"
    assert not list(project.rglob("*.npz.dvc"))
    pack.run("digits", entry("digits"), "stop", out=project / "data/packed/digits")
    assert len(open_packed(project / "data/packed/digits").rows) == 60


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [("galaxy_zoo_challenge", "Kaggle's competition galaxy-zoo-the-galaxy-challenge"), ("galaxy_zoo1", "CLASS/OBJID")],
)
def test_a_source_that_nobody_may_download_is_asked_for(project, kind, remedy):
    with pytest.raises(ConfigError, match=rf"format {kind}: SOURCE is missing; .*{remedy}"):
        add("zoo", kind)
    assert_nothing_changed(project)


def published(tmp_path, monkeypatch):
    """Content of a small release, whose hash counts as the published one."""
    content = write_galaxy10(tmp_path / "small.h5").read_bytes()
    monkeypatch.setattr(galaxy10, "SHA256", hashlib.sha256(content).hexdigest())
    return content


def ask(project, server, tries=1):
    """Let params.yaml name a server in place of the published one."""
    text = PARAMS.replace("mirror: null", f"mirror: '{server.url}'").replace("tries: 1", f"tries: {tries}")
    (project / "params.yaml").write_text(text)
    return text


def test_the_release_is_downloaded_and_an_interrupted_download_goes_on(project, tmp_path, monkeypatch):
    content = published(tmp_path, monkeypatch)
    with ArchiveServer({H5: content}, faults=[Fault("cut")]) as server:
        text = ask(project, server)
        with pytest.raises(DataError, match=r"cannot be downloaded .*run the same command again"):
            add("decals", "galaxy10")
        assert (project / "params.yaml").read_text() == text
        add("decals", "galaxy10")
        asked = server.requests
    assert [request.status for request in asked] == [200, 206]
    assert asked[1].headers["Range"] == f"bytes={len(content) // 2}-"
    folder = project / "data/external/decals"
    assert [path.name for path in folder.iterdir()] == ["Galaxy10_DECals.h5"]
    assert (folder / "Galaxy10_DECals.h5").read_bytes() == content
    assert entry("decals") == PicturesParams("galaxy10", str(folder.relative_to(project) / "Galaxy10_DECals.h5"), 16)


def test_a_download_is_tried_again(project, tmp_path, monkeypatch):
    content = published(tmp_path, monkeypatch)
    with ArchiveServer({H5: content}, faults=[Fault("reset")]) as server:
        ask(project, server, tries=2)
        add("decals", "galaxy10")
    assert (project / "data/external/decals/Galaxy10_DECals.h5").read_bytes() == content


def test_a_download_of_another_hash_is_refused(project, tmp_path, monkeypatch):
    content = published(tmp_path, monkeypatch)
    with ArchiveServer({H5: content[:-1] + b"?"}) as server:
        text = ask(project, server)
        with pytest.raises(
            DataError, match=rf"has the SHA-256 \w+, not {galaxy10.SHA256}; the file is not the official"
        ):
            add("decals", "galaxy10")
        server.files.clear()
        with pytest.raises(DataError, match="answers 404"):
            add("decals", "galaxy10")
    assert_nothing_changed(project, text)


def test_a_broken_download_is_replaced(project, tmp_path, monkeypatch, capsys):
    content = published(tmp_path, monkeypatch)
    target = project / "data/external/decals/Galaxy10_DECals.h5"
    target.parent.mkdir(parents=True)
    target.write_bytes(content[:-9])
    with ArchiveServer({H5: content}) as server:
        ask(project, server)
        add("decals", "galaxy10")
    assert "Galaxy10_DECals.h5: is not the release; downloading it again" in " ".join(capsys.readouterr().err.split())
    assert target.read_bytes() == content


def test_a_download_survives_a_failure_after_it(project, tmp_path, monkeypatch):
    content = published(tmp_path, monkeypatch)
    with ArchiveServer({H5: content}) as server:
        ask(project, server)
        with pytest.raises(DataError, match="group_by: group needs it"):
            add("decals", "galaxy10", group_by="group")
        add("decals", "galaxy10")
        assert len(server.targets()) == 1


def test_warm_ups_come_through_keras(project, monkeypatch):
    made = arrays(side_px=32, channels=(3,))
    parts = tuple((made[f"x_{part}"], made[f"y_{part}"].reshape(-1, 1)) for part in ("train", "test"))
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: parts)
    add("photographs", "cifar10")
    source = project / "data/external/photographs/cifar10.npz"
    assert entry("photographs") == PicturesParams("cifar10", str(source.relative_to(project)), 16)
    with np.load(source) as archive:
        assert (archive["x_test"] == made["x_test"]).all()


def test_a_download_that_keras_gives_up_is_one_line(project, monkeypatch):
    def give_up():
        raise Exception("URL fetch failure on https://example.org/mnist.npz: None -- [Errno -2]\nName not known")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", give_up)
    with pytest.raises(DataError, match=r"keras.datasets.mnist: cannot be downloaded \(URL .*name a file") as caught:
        add("digits", "mnist")
    assert "\n" not in str(caught.value)
    assert_nothing_changed(project)


def test_help_lists_the_formats_and_what_may_stay_together():
    text = " ".join(CliRunner().invoke(cli, ["add", "collection", "--help"]).output.split())
    listed = text[text.index("FORMAT: ") :]
    assert all((f"{name} ({facts.label})" in listed) == (name not in OWN) for name, facts in FORMATS.items())
    option = text[text.index("--group-by") :].split()[1]
    assert set(option.split("|")) == set(get_args(GroupBy))
