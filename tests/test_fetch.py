import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from deepsky.archives.addresses import (
    FOLDERS,
    RELEASES,
    frame_url,
    panstarrs_jpeg_url,
    psfield_url,
    sdss_jpeg_url,
    sql_url,
)
from deepsky.archives.journal import only_one
from deepsky.archives.params import ArchiveParams, DownloadParams
from deepsky.archives.wanted import sdss_files
from deepsky.config import build
from deepsky.errors import ConfigError, DataError
from deepsky.simulation.archive import SimulatedArchive
from deepsky.simulation.params import CatalogueParams
from deepsky.stages import catalogue as catalogue_stage
from deepsky.stages import fetch
from tests.archive_server import ArchiveServer, jpeg_content

ROOT = Path(__file__).resolve().parents[1]
PARAMS = CatalogueParams("simulated", seed=11, n_fields=1, n_per_class_per_field=2)
ARCHIVE = ArchiveParams()
R_ONLY = replace(ARCHIVE, bands=("r",))
DOWNLOAD = DownloadParams()


def fetch_simulated(params, catalogue, out, archive=ARCHIVE, **options):
    fetch.run(params, archive, DOWNLOAD, "stop", catalogue=catalogue, out=out, **options)


def tree(folder):
    """Every file below a folder with its bytes' hash."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def make_catalogue(params, path):
    catalogue_stage.run(params, ARCHIVE.release, query=path.parent / "query", out=path)
    return path


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    return make_catalogue(PARAMS, tmp_path_factory.mktemp("catalogue") / "catalogue.csv")


@pytest.fixture(scope="module")
def clean(tmp_path_factory, catalogue):
    """A fetch that nothing disturbed."""
    out = tmp_path_factory.mktemp("clean") / "raw"
    fetch_simulated(PARAMS, catalogue, out)
    return out


@pytest.fixture
def fetched(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "raw")


def test_files_stand_where_the_design_says(clean, catalogue):
    table = pd.read_csv(catalogue, dtype={"objid": str})
    row = table.iloc[0]
    key = (row["run"], row["camcol"], row["field"])
    expected = {f"frames/{key[0]}/{key[1]}/frame-{b}-{key[0]:06d}-{key[1]}-{key[2]:04d}.fits.bz2" for b in "ugriz"}
    expected |= {f"{folder}/{objid}.jpg" for folder in ("sdss_jpg", "stsci_jpg") for objid in table["objid"]}
    sources = {f"{folder}/.source.json" for folder in FOLDERS}
    labels = {f"{folder}/labels.csv" for folder in ("sdss_jpg", "stsci_jpg")}
    assert set(tree(clean)) == expected | sources | labels | {"manifest.csv"}
    archive = SimulatedArchive(PARAMS)
    frame = next(name for name in sorted(expected) if "frame-i" in name)
    assert (clean / frame).read_bytes() == archive.frame(*key, "i")
    jpeg = archive.sdss_jpeg(row["ra"], row["dec"], scale=0.4, width=240, height=240)
    assert (clean / f"sdss_jpg/{row['objid']}.jpg").read_bytes() == jpeg
    assert (clean / f"stsci_jpg/{row['objid']}.jpg").read_bytes() == archive.panstarrs_jpeg(
        row["ra"], row["dec"], size=240
    )


def test_cutouts_come_with_what_the_catalogue_says_of_them(clean, catalogue):
    whole = pd.read_csv(catalogue, dtype=str)
    expected = whole[["id", "class", "ra", "dec", *"ugriz", "run", "camcol", "field"]]
    for folder in ("sdss_jpg", "stsci_jpg"):
        assert pd.read_csv(clean / folder / "labels.csv", dtype=str).equals(expected)
        assert {path.stem for path in (clean / folder).glob("*.jpg")} == set(whole["id"])


def test_labels_follow_the_catalogue_and_the_folders_that_are_wanted(fetched, catalogue, tmp_path):
    table = pd.read_csv(catalogue, dtype=str).drop(columns="class").iloc[:-1]
    table.to_csv(tmp_path / "other.csv", index=False)
    fetch_simulated(PARAMS, tmp_path / "other.csv", fetched, replace(ARCHIVE, stsci_jpg=False))
    labels = pd.read_csv(fetched / "sdss_jpg/labels.csv", dtype=str)
    assert labels.equals(table[["id", "ra", "dec", *"ugriz", "run", "camcol", "field"]])
    assert not (fetched / "stsci_jpg/labels.csv").exists()
    assert not (fetched / ".aside").exists()


def test_downloaded_cutouts_have_labels_too(catalogue, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    table, files = pd.read_csv(catalogue, dtype=str), {}
    for place, (ra, dec) in enumerate(zip(table["ra"], table["dec"], strict=True)):
        url = sdss_jpeg_url("dr17", float(ra), float(dec), scale=0.4, width=240, height=240)
        files[url.removeprefix("https://skyserver.sdss.org")] = jpeg_content(place)
    archive, raw = replace(ARCHIVE, bands=(), stsci_jpg=False), tmp_path / "raw"
    fetch_simulated(PARAMS, catalogue, raw)  # what it drew gives way
    with ArchiveServer(files) as server:
        download, real = replace(DOWNLOAD, mirror=server.url, requests_per_s=None), replace(PARAMS, survey="sdss")
        for _ in range(2):
            fetch.run(real, archive, download, "stop", catalogue=catalogue, out=raw)
        assert len(server.requests) == len(table)
    labels = pd.read_csv(raw / "sdss_jpg/labels.csv", dtype=str)
    assert labels["id"].tolist() == table["id"].tolist()
    assert {path.stem for path in (raw / "sdss_jpg").glob("*.jpg")} == set(labels["id"])
    assert not (raw / "stsci_jpg/labels.csv").exists()


def test_manifest_describes_every_raw_file(clean):
    manifest = pd.read_csv(clean / "manifest.csv")
    assert list(manifest.columns) == ["path", "url", "bytes", "sha256", "time", "etag", "last_modified", "mirror"]
    assert manifest["path"].is_monotonic_increasing
    files = {name: digest for name, digest in tree(clean).items() if name.endswith(("bz2", "jpg"))}
    assert dict(zip(manifest["path"], manifest["sha256"], strict=True)) == files
    assert all(
        (clean / path).stat().st_size == size for path, size in zip(manifest["path"], manifest["bytes"], strict=True)
    )
    assert manifest["url"].str.startswith("simulated:https://").all()


def test_urls_have_the_documented_form():
    name = "301/3918/3/frame-r-003918-3-0213.fits.bz2"
    folders = {
        "dr12": "https://data.sdss.org/sas/dr12/boss/photoObj/frames/",
        "dr17": "https://data.sdss.org/sas/dr17/eboss/photoObj/frames/",
        "dr18": "https://data.sdss.org/sas/dr18/prior-surveys/sdss4-dr17-eboss/photoObj/frames/",
    }
    assert {release: frame_url(release, 301, 3918, 3, 213, "r") for release in folders} == {
        release: folder + name for release, folder in folders.items()
    }
    assert all(f"/sas/{release}/eboss/" in frame_url(release, 301, 1, 1, 1, "u") for release in RELEASES[1:6])
    assert psfield_url("dr17", 301, 3918, 3, 213) == (
        "https://data.sdss.org/sas/dr17/eboss/photo/redux/301/3918/objcs/3/psField-003918-3-0213.fit"
    )
    assert sdss_jpeg_url("dr16", 1.5, -2.5, scale=0.4, width=240, height=240) == (
        "https://skyserver.sdss.org/dr16/SkyServerWS/ImgCutout/getjpeg?ra=1.5&dec=-2.5&scale=0.4&width=240&height=240&opt="
    )
    assert panstarrs_jpeg_url(1.5, -2.5, size=240, red="a", green="b", blue="c") == (
        "https://ps1images.stsci.edu/cgi-bin/fitscut.cgi?ra=1.5&dec=-2.5&size=240&format=jpg&red=a&green=b&blue=c"
    )


def test_each_step_may_have_a_release_of_its_own(catalogue):
    """As study A had: the query of DR9, frames of DR12, cutouts of DR16."""
    assert len({ARCHIVE.of_query, ARCHIVE.of_frames, ARCHIVE.of_cutouts, "dr17"}) == 1
    archive = ArchiveParams("dr17", "dr9", "dr12", "dr16", psf_fields=True)
    wanted = sdss_files(pd.read_csv(catalogue, dtype={"id": str}), archive)
    releases = {"frame": "/sas/dr12/boss/", "psfield": "/sas/dr12/boss/", "jpeg": "/dr16/SkyServerWS/"}
    assert {each.kind for each in wanted} == set(releases)
    assert all(releases[each.kind] in each.url for each in wanted)
    search = "https://skyserver.sdss.org/{}/en/tools/search/x_sql"
    assert sql_url(archive.of_query) == f"{search.format('dr9')}.asp"
    assert sql_url("dr10") == f"{search.format('dr10')}.aspx"


@pytest.mark.parametrize(
    ("key", "release"), [("query_release", "dr8"), ("frames_release", "dr9"), ("cutouts_release", "DR16")]
)
def test_an_unknown_release_is_refused(key, release):
    with pytest.raises(ConfigError, match=f"archive.{key}: '{release}' is unknown; choose one of: .*dr12, .* dr18"):
        build({key: release}, ArchiveParams, "params.yaml: archive")


def test_archive_params_decide_what_is_drawn(catalogue, tmp_path):
    """One band, small SDSS cutouts, no Pan-STARRS."""
    archive = replace(ARCHIVE, bands=("r",), stsci_jpg=False, cutout_px=32)
    fetch_simulated(PARAMS, catalogue, tmp_path / "raw", archive)
    found = [name for name in tree(tmp_path / "raw") if name.endswith(("bz2", "jpg"))]
    assert sum("frame-r" in name for name in found) == 1
    assert len([name for name in found if name.startswith("sdss_jpg/")]) == len(found) - 1 == 6
    jpeg = cv2.imread(str(tmp_path / "raw" / next(name for name in found if name.endswith("jpg"))))
    assert jpeg.shape == (32, 32, 3)


@pytest.mark.parametrize("change", [{"psf_fields": True}, {"stsci_fits": ("g",)}])
def test_what_only_real_archives_have_is_refused(change, catalogue, tmp_path):
    with pytest.raises(ConfigError, match=f"archive.{next(iter(change))}: is for survey: sdss"):
        fetch_simulated(PARAMS, catalogue, tmp_path / "raw", replace(ARCHIVE, **change))
    with pytest.raises(ConfigError, match="--retry-failed: is for survey: sdss"):
        fetch_simulated(PARAMS, catalogue, tmp_path / "raw", retry_failed=True)


def test_a_second_fetch_keeps_every_file(fetched, catalogue, clean):
    inodes = {name: (fetched / name).stat().st_ino for name in tree(fetched) if name.endswith(("bz2", "jpg"))}
    fetch_simulated(PARAMS, catalogue, fetched)
    assert {name: (fetched / name).stat().st_ino for name in inodes} == inodes
    assert tree(fetched) == tree(clean)


def test_a_killed_fetch_goes_on_to_the_same_bytes(tmp_path, catalogue, clean):
    out = tmp_path / "raw"
    code = (
        "from pathlib import Path; from tests.test_fetch import PARAMS, fetch_simulated; "
        f"fetch_simulated(PARAMS, Path({str(catalogue)!r}), Path({str(out)!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL
    )
    while not list(out.glob("frames/*/*/frame-*.bz2")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = tree(out)
    assert 0 < len(left) < len(tree(clean))
    assert "manifest.csv" not in left
    kept = {name for name in left if name in tree(clean)}
    assert {name: left[name] for name in kept} == {name: tree(clean)[name] for name in kept}
    folder = next(out.glob("frames/*/*"))
    (folder / ".frame-u-000001-1-0001.fits.abc123.bz2").write_bytes(b"torso")
    fetch_simulated(PARAMS, catalogue, out)
    assert tree(out) == tree(clean)


def test_other_parameters_leave_no_old_file(fetched, tmp_path):
    """With fewer objects the frames keep their names but not their pixels."""
    fewer = replace(PARAMS, n_per_class_per_field=1)
    old = tree(fetched)
    fetch_simulated(fewer, make_catalogue(fewer, tmp_path / "fewer.csv"), fetched, R_ONLY)
    new = tree(fetched)
    assert len([name for name in old if name.endswith(".bz2")]) == 5
    (frame,) = [name for name in new if name.endswith(".bz2")]
    assert new[frame] != old[frame]
    assert len([name for name in new if name.endswith(".jpg")]) == 2 * 3
    assert not set(old.values()) & set(new.values())


def test_another_seed_leaves_no_old_file(fetched, tmp_path):
    other = replace(PARAMS, seed=12, n_per_class_per_field=1)
    old = tree(fetched)
    fetch_simulated(other, make_catalogue(other, tmp_path / "other.csv"), fetched, R_ONLY)
    new = tree(fetched)
    ours = {"manifest.csv", "sdss_jpg/labels.csv", "stsci_jpg/labels.csv"}
    assert set(old) & set(new) == ours | {f"{folder}/.source.json" for folder in FOLDERS}
    assert set(pd.read_csv(fetched / "manifest.csv")["path"]) == {name for name in new if name.endswith(("bz2", "jpg"))}
    assert not [path for path in fetched.rglob("*") if path.is_dir() and not any(path.iterdir())]


def test_files_of_a_program_that_answered_otherwise_are_not_kept(fetched, catalogue, clean):
    jpeg = sorted(fetched.glob("sdss_jpg/*.jpg"))[0]
    jpeg.write_bytes(b"drawn by an older version")
    last = sorted(fetched.glob("sdss_jpg/*.jpg"))[-1]
    last.write_bytes(b"drawn by an older version")
    fetch_simulated(PARAMS, catalogue, fetched)
    assert tree(fetched) == tree(clean)


def test_catalogue_of_another_sky_is_refused(tmp_path):
    foreign = make_catalogue(replace(PARAMS, seed=99), tmp_path / "foreign.csv")
    with pytest.raises(DataError, match="no such field"):
        fetch_simulated(PARAMS, foreign, tmp_path / "raw")
    assert not (tmp_path / "raw" / "manifest.csv").exists()


def test_cell_that_is_no_number_is_refused(catalogue, tmp_path):
    table = pd.read_csv(catalogue, dtype=str)
    table.loc[1, "ra"] = "12h30m"
    table.to_csv(tmp_path / "broken.csv", index=False)
    with pytest.raises(DataError, match=r"broken.csv: object \d+ has .*12h30m.* in column 'ra'"):
        fetch_simulated(PARAMS, tmp_path / "broken.csv", tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_unwritable_place_is_one_line(catalogue, tmp_path):
    (tmp_path / "raw").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"raw.*cannot be written") as caught:
        fetch_simulated(PARAMS, catalogue, tmp_path / "raw")
    assert "\n" not in str(caught.value)


def test_two_fetches_at_once_are_refused(catalogue, tmp_path):
    with only_one(tmp_path), pytest.raises(DataError, match="another fetch is at work here; wait until it ends"):
        fetch_simulated(PARAMS, catalogue, tmp_path)


def test_catalogue_without_fields_is_refused(tmp_path):
    pd.DataFrame({"id": ["1"], "ra": [1.0], "dec": [np.pi]}).to_csv(tmp_path / "bare.csv", index=False)
    with pytest.raises(DataError, match="'run' is missing"):
        fetch_simulated(PARAMS, tmp_path / "bare.csv", tmp_path / "raw")
