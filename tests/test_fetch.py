import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from deepsky.archives.addresses import frame_url, panstarrs_jpeg_url, sdss_jpeg_url
from deepsky.archives.simulated import SimulatedArchive
from deepsky.catalogue.simulated import CatalogueParams
from deepsky.errors import DataError
from deepsky.stages import catalogue as catalogue_stage
from deepsky.stages import fetch

PARAMS = CatalogueParams("simulated", seed=11, n_fields=1, n_per_class_per_field=2)


def tree(folder):
    """Every file below a folder with its bytes' hash."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def make_catalogue(params, path):
    catalogue_stage.run(params, out=path)
    return path


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    return make_catalogue(PARAMS, tmp_path_factory.mktemp("catalogue") / "catalogue.csv")


@pytest.fixture(scope="module")
def clean(tmp_path_factory, catalogue):
    """A fetch that nothing disturbed."""
    out = tmp_path_factory.mktemp("clean") / "raw"
    fetch.run(PARAMS, catalogue=catalogue, out=out)
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
    sources = {f"{folder}/.source.json" for folder in fetch.FOLDERS}
    assert set(tree(clean)) == expected | sources | {"manifest.csv"}
    archive = SimulatedArchive(PARAMS)
    frame = next(name for name in sorted(expected) if "frame-i" in name)
    assert (clean / frame).read_bytes() == archive.frame(*key, "i")
    jpeg = archive.sdss_jpeg(row["ra"], row["dec"], scale=0.4, width=240, height=240)
    assert (clean / f"sdss_jpg/{row['objid']}.jpg").read_bytes() == jpeg
    assert (clean / f"stsci_jpg/{row['objid']}.jpg").read_bytes() == archive.panstarrs_jpeg(
        row["ra"], row["dec"], size=240
    )


def test_manifest_describes_every_raw_file(clean):
    manifest = pd.read_csv(clean / "manifest.csv")
    assert list(manifest.columns) == ["path", "url", "bytes", "sha256"]
    assert manifest["path"].is_monotonic_increasing
    files = {name: digest for name, digest in tree(clean).items() if name.endswith(("bz2", "jpg"))}
    assert dict(zip(manifest["path"], manifest["sha256"], strict=True)) == files
    assert all(
        (clean / path).stat().st_size == size for path, size in zip(manifest["path"], manifest["bytes"], strict=True)
    )
    assert manifest["url"].str.startswith("simulated:https://").all()


def test_urls_have_the_documented_form():
    assert frame_url(3918, 3, 213, "r") == (
        "https://data.sdss.org/sas/dr17/eboss/photoObj/frames/301/3918/3/frame-r-003918-3-0213.fits.bz2"
    )
    assert sdss_jpeg_url(1.5, -2.5, scale=0.4, width=240, height=240) == (
        "https://skyserver.sdss.org/dr17/SkyServerWS/ImgCutout/getjpeg?ra=1.5&dec=-2.5&scale=0.4&width=240&height=240&opt="
    )
    assert panstarrs_jpeg_url(1.5, -2.5, size=240, red="a", green="b", blue="c") == (
        "https://ps1images.stsci.edu/cgi-bin/fitscut.cgi?ra=1.5&dec=-2.5&size=240&format=jpg&red=a&green=b&blue=c"
    )


def test_objects_of_one_field_share_its_frames(catalogue):
    downloads = fetch.plan_downloads(catalogue, "simulated")
    assert sum(download.folder == "frames" for download in downloads) == 5
    assert len({download.path for download in downloads}) == len(downloads) == 5 + 2 * 6


def test_a_second_fetch_keeps_every_file(fetched, catalogue, clean):
    inodes = {name: (fetched / name).stat().st_ino for name in tree(fetched) if name != "manifest.csv"}
    fetch.run(PARAMS, catalogue=catalogue, out=fetched)
    assert {name: (fetched / name).stat().st_ino for name in inodes} == inodes
    assert tree(fetched) == tree(clean)


def test_a_killed_fetch_goes_on_to_the_same_bytes(tmp_path, catalogue, clean):
    out = tmp_path / "raw"
    code = (
        "from pathlib import Path; from deepsky.stages import fetch; "
        "from deepsky.catalogue.simulated import CatalogueParams as P; "
        f"fetch.run(P('simulated', 11, 1, 2), catalogue=Path({str(catalogue)!r}), out=Path({str(out)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL)
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
    fetch.run(PARAMS, catalogue=catalogue, out=out)
    assert tree(out) == tree(clean)


def test_other_parameters_leave_no_old_file(fetched, tmp_path):
    """With fewer objects the frames keep their names but not their pixels."""
    fewer = replace(PARAMS, n_per_class_per_field=1)
    old = tree(fetched)
    fetch.run(fewer, catalogue=make_catalogue(fewer, tmp_path / "fewer.csv"), out=fetched)
    new = tree(fetched)
    frames = [name for name in old if name.endswith(".bz2")]
    assert len(frames) == 5
    assert all(new[name] != old[name] for name in frames)
    assert len([name for name in new if name.endswith(".jpg")]) == 2 * 3
    assert not set(old.values()) & set(new.values())


def test_another_seed_leaves_no_old_file(fetched, tmp_path):
    other = replace(PARAMS, seed=12, n_per_class_per_field=1)
    old = tree(fetched)
    fetch.run(other, catalogue=make_catalogue(other, tmp_path / "other.csv"), out=fetched)
    new = tree(fetched)
    assert set(old) & set(new) == {"manifest.csv", *(f"{folder}/.source.json" for folder in fetch.FOLDERS)}
    assert set(pd.read_csv(fetched / "manifest.csv")["path"]) == {name for name in new if name.endswith(("bz2", "jpg"))}
    assert not [path for path in fetched.rglob("*") if path.is_dir() and not any(path.iterdir())]


def test_files_of_a_program_that_answered_otherwise_are_not_kept(fetched, catalogue, clean):
    jpeg = sorted(fetched.glob("sdss_jpg/*.jpg"))[0]
    jpeg.write_bytes(b"drawn by an older version")
    last = sorted(fetched.glob("sdss_jpg/*.jpg"))[-1]
    last.write_bytes(b"drawn by an older version")
    fetch.run(PARAMS, catalogue=catalogue, out=fetched)
    assert tree(fetched) == tree(clean)


def test_catalogue_of_another_sky_is_refused(tmp_path):
    foreign = make_catalogue(replace(PARAMS, seed=99), tmp_path / "foreign.csv")
    with pytest.raises(DataError, match="no such field"):
        fetch.run(PARAMS, catalogue=foreign, out=tmp_path / "raw")
    assert not (tmp_path / "raw" / "manifest.csv").exists()


def test_cell_that_is_no_number_is_refused(catalogue, tmp_path):
    table = pd.read_csv(catalogue, dtype=str)
    table.loc[1, "ra"] = "12h30m"
    table.to_csv(tmp_path / "broken.csv", index=False)
    with pytest.raises(DataError, match=r"broken.csv: ra, dec: .*12h30m"):
        fetch.run(PARAMS, catalogue=tmp_path / "broken.csv", out=tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_unwritable_place_is_one_line(catalogue, tmp_path):
    (tmp_path / "raw").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"raw.*cannot be written") as caught:
        fetch.run(PARAMS, catalogue=catalogue, out=tmp_path / "raw")
    assert "\n" not in str(caught.value)


def test_catalogue_without_fields_is_refused(tmp_path):
    pd.DataFrame({"objid": ["1"], "ra": [1.0], "dec": [np.pi]}).to_csv(tmp_path / "bare.csv", index=False)
    with pytest.raises(DataError, match="'run' is missing"):
        fetch.run(PARAMS, catalogue=tmp_path / "bare.csv", out=tmp_path / "raw")
