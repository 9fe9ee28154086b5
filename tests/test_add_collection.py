import hashlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from deepsky.archives.http import DownloadParams
from deepsky.commands.add import add_collection
from deepsky.config import read_section
from deepsky.datasets import galaxy10
from deepsky.datasets.collection import CollectionParams
from deepsky.errors import ConfigError, DataError
from tests.archive_server import ArchiveServer, Fault
from tests.test_galaxy10 import write as write_galaxy10
from tests.test_warm_ups import arrays, write_npz

PARAMS = """\
images: {}
frames: {}
collections:
  stand_in: {format: mnist, source: data/raw/mnist.npz, target: class, group_by: given, size_px: 28}  # a comment
datasets: {}
split: {seed: 1, test_fraction: 0.34, val_fraction: 0.33, cell_arcmin: 2.0}
"""
ONCE = DownloadParams(mirror=None, connections=1, requests_per_s=None, timeout_s=5.0, tries=1, contact=None)
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


def add(name, kind, source=None, download=ONCE, group_by=None, **changes):
    add_collection(name, kind, source, download, group_by=group_by, **OPTIONS | changes)


def entry(name):
    return read_section(f"collections.{name}", CollectionParams)


def assert_nothing_changed(project):
    assert (project / "params.yaml").read_text() == PARAMS
    assert not [path for path in project.rglob("*") if path.is_file() and path.name != "params.yaml"]


def test_a_file_is_copied_and_entered(project, tmp_path, capsys):
    source = write_npz(tmp_path / "digits.npz")
    add("digits", "mnist", source)
    assert (project / "data/external/digits/digits.npz").read_bytes() == source.read_bytes()
    assert entry("digits") == CollectionParams("mnist", "data/external/digits/digits.npz", "class", "given", 16)
    text = (project / "params.yaml").read_text()
    assert "# a comment" in text
    assert "crop_px" not in text  # what is not asked for is not written
    assert "added collections digits -> digits; the next `make repro` includes it" in capsys.readouterr().out


def test_every_option_is_entered_and_data_of_the_project_stay_where_they_are(project):
    source = write_galaxy10(project / "mine.h5")
    options = {"crop_px": 200, "denoise": "median", "denoise_strength": 3.0, "gray": True, "sha256": "any"}
    add("galaxies", "galaxy10", source, group_by="image", **options)
    assert entry("galaxies") == CollectionParams(
        "galaxy10", "mine.h5", "class", "image", 16, 200, "median", 3.0, True, "any"
    )
    assert not (project / "data").exists()


def test_it_is_versioned_in_a_dvc_project(project, tmp_path):
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], check=True)
    add("digits", "mnist", write_npz(tmp_path / "digits.npz"))
    assert (project / "data/external/digits/digits.npz.dvc").exists()


def test_what_would_fail_later_is_refused_and_leaves_nothing(project, tmp_path):
    digits, galaxies = write_npz(tmp_path / "digits.npz"), write_galaxy10(tmp_path / "g.h5")
    for error, message, arguments in (
        (ConfigError, "'stand_in' exists already", ("stand_in", "mnist", digits)),
        (ConfigError, "is not of the form my_data_1", ("Bad Name", "mnist", digits)),
        (ConfigError, "format: 'mnits' is unknown; choose one of", ("bad", "mnits", digits)),
        (DataError, "has the SHA-256 .*, or set sha256: any", ("bad", "galaxy10", galaxies)),
        (DataError, "is not a whole .npz", ("bad", "mnist", galaxies)),
    ):
        with pytest.raises(error, match=message) as caught:
            add(*arguments)
        assert "\n" not in str(caught.value)
    for error, message, options in (
        (ConfigError, "size_px must lie between", {"size_px": 2}),
        (ConfigError, "mnist has no fractions", {"target": "fractions"}),
        (ConfigError, "denoise_strength of denoise median", {"denoise": "median"}),
        (DataError, "has no ra_deg; group_by: sky needs it", {"group_by": "sky"}),
    ):
        with pytest.raises(error, match=message):
            add("bad", "mnist", digits, **options)
    with pytest.raises(DataError, match="the given test part: lacks the class 9"):
        add("bad", "mnist", write_npz(tmp_path / "few.npz", n_test=9))
    assert_nothing_changed(project)


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


def mirrored(server, tries=1):
    return DownloadParams(server.url, 1, None, 5.0, tries, None)


def test_the_release_is_downloaded_and_an_interrupted_download_goes_on(project, tmp_path, monkeypatch):
    content = published(tmp_path, monkeypatch)
    with ArchiveServer({H5: content}, faults=[Fault("cut")]) as server:
        with pytest.raises(DataError, match=r"cannot be downloaded .*run the same command again"):
            add("decals", "galaxy10", download=mirrored(server))
        assert (project / "params.yaml").read_text() == PARAMS
        add("decals", "galaxy10", download=mirrored(server))
        asked = server.requests
    assert [request.status for request in asked] == [200, 206]
    assert asked[1].headers["Range"] == f"bytes={len(content) // 2}-"
    folder = project / "data/external/decals"
    assert [path.name for path in folder.iterdir()] == ["Galaxy10_DECals.h5"]
    assert (folder / "Galaxy10_DECals.h5").read_bytes() == content
    assert entry("decals") == CollectionParams(
        "galaxy10", str(folder.relative_to(project) / "Galaxy10_DECals.h5"), "class", "sky", 16
    )


def test_a_download_is_tried_again(project, tmp_path, monkeypatch):
    content = published(tmp_path, monkeypatch)
    with ArchiveServer({H5: content}, faults=[Fault("reset")]) as server:
        add("decals", "galaxy10", download=mirrored(server, tries=2))
    assert (project / "data/external/decals/Galaxy10_DECals.h5").read_bytes() == content


def test_a_download_of_another_hash_is_refused(project, tmp_path, monkeypatch):
    content = published(tmp_path, monkeypatch)
    with ArchiveServer({H5: content[:-1] + b"?"}) as server:
        with pytest.raises(
            DataError, match=rf"has the SHA-256 \w+, not {galaxy10.SHA256}; the file is not the official"
        ):
            add("decals", "galaxy10", download=mirrored(server))
        server.files.clear()
        with pytest.raises(DataError, match="answers 404"):
            add("decals", "galaxy10", download=mirrored(server))
    assert_nothing_changed(project)


def test_a_download_survives_a_failure_after_it(project, tmp_path, monkeypatch):
    content = published(tmp_path, monkeypatch)
    with ArchiveServer({H5: content}) as server:
        with pytest.raises(DataError, match="group_by: group needs it"):
            add("decals", "galaxy10", download=mirrored(server), group_by="group")
        add("decals", "galaxy10", download=mirrored(server))
        assert len(server.targets()) == 1


def test_warm_ups_come_through_keras(project, monkeypatch):
    made = arrays(side_px=32, channels=(3,))
    parts = tuple((made[f"x_{part}"], made[f"y_{part}"].reshape(-1, 1)) for part in ("train", "test"))
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: parts)
    add("photographs", "cifar10")
    source = project / "data/external/photographs/cifar10.npz"
    assert entry("photographs") == CollectionParams("cifar10", str(source.relative_to(project)), "class", "given", 16)
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
