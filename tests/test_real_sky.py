"""The way of a user with a network: query, then deepsky repro with survey: sdss, against real files on the loopback."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from deepsky.catalogue.tables import REFERENCE_COLUMNS
from deepsky.config import read_yaml
from deepsky.imaging.astrometry import read_astrometry
from deepsky.imaging.frames import read_header
from tests.archive_server import ArchiveServer, Fault
from tests.sql_service import SQL_PATHS, SqlService, with_true_ids
from tests.workspace import ROOT, Workspace, make_workspace, shrink

RUN, CAMCOL, FIELD = 3918, 3, 213
BANDS = "ugriz"
N_PER_CLASS = 40
ENDS = ("report", "pack@sdss_jpg")  # all but what makes the simulated collections and the weights


def real_objects(folder: Path) -> pd.DataFrame:
    """Objects of the real field with the columns of the reference query."""
    labels = pd.read_csv(folder / "star_galaxy_labels_x_lt_1228.csv")
    inner = labels[labels["x"].between(60, 1200) & labels["y"].between(60, 1420)].reset_index(drop=True)
    frame = folder / f"frame-r-{RUN:06d}-{CAMCOL}-{FIELD:04d}.fits.bz2"
    ra_deg, dec_deg = read_astrometry(frame, read_header(frame)).to_sky(inner["x"], inner["y"])
    n = len(inner)
    table = pd.DataFrame({name: [""] * n for name in REFERENCE_COLUMNS})
    table["ra"], table["dec"] = ra_deg.round(8), dec_deg.round(8)
    table["class"] = inner["class"].str.upper()
    table[["run", "rerun", "camcol", "field"]] = [RUN, 301, CAMCOL, FIELD]
    table[["u", "g", "r", "i", "z"]], table["redshift"] = 18.0, 0.1
    table["plate"], table["mjd"], table["fiberid"] = 3306, 54922, np.arange(1, n + 1)
    return with_true_ids(table).astype(str)


class Cutouts:
    """Both cutout services: 240 x 240 px pieces of the survey's own colour picture of the field; some are missing."""

    def __init__(self, folder: Path, missing_dec: set[str]) -> None:
        self.picture = cv2.imread(str(folder / f"frame-irg-{RUN:06d}-{CAMCOL}-{FIELD:04d}.jpg"))
        self.missing_dec = missing_dec

    def __call__(self, query, body):
        if query["dec"] in self.missing_dec:
            return 404, {}, b"outside"
        assert query.get("opt", "") == ""
        side = int(query.get("size") or query["width"])
        rng = np.random.default_rng(round(float(query["ra"]) * 1e7))
        top, left = (int(rng.integers(0, n - side)) for n in self.picture.shape[:2])
        return 200, {}, cv2.imencode(".jpg", self.picture[top : top + side, left : left + side])[1].tobytes()


def stack_list(outside_dec: set[str]):
    """Pan-STARRS' list of stacks, by POST."""

    def page(query, body):
        rows = ["projcell subcell ra dec filter mjd type filename shortname badflag"]
        for ra, dec in (line.split() for line in query["file"].splitlines()):
            for name in "grizy" if dec not in outside_dec else "":
                file = f"/rings.v3.skycell/1784/059/rings.v3.skycell.1784.059.stk.{name}.unconv.fits"
                rows.append(f"1784 59 {ra} {dec} {name} 0 stack {file} short.{name} 0")
        return 200, {}, ("\n".join(rows) + "\n").encode()

    return page


@pytest.fixture(scope="module")
def sky(real_data, tmp_path_factory):
    """Objects, the services, and a project that has queried and reproduced."""
    folder = real_data(f"sdss_frames/{RUN:06d}-{CAMCOL}-{FIELD:04d}")
    objects = real_objects(folder)
    frames = {
        f"/sas/dr17/eboss/photoObj/frames/301/{RUN}/{CAMCOL}/{path.name}": path for path in folder.glob("*.fits.bz2")
    }
    chosen = objects.groupby("class").head(N_PER_CLASS)
    no_jpeg, no_stack = ({str(float(dec)) for dec in chosen["dec"].iloc[part]} for part in (slice(2), slice(2, 5)))
    cutouts = Cutouts(folder, no_jpeg)
    pages = {
        **dict.fromkeys(SQL_PATHS, SqlService(objects)),
        "/dr17/SkyServerWS/ImgCutout/getjpeg": cutouts,
        "/cgi-bin/fitscut.cgi": cutouts,
        "/cgi-bin/ps1filenames.py": stack_list(no_stack),
    }
    with ArchiveServer(frames, pages) as server:
        workspace = make_workspace(tmp_path_factory.mktemp("real_sky"))
        shrink(workspace)
        pictures = read_yaml(ROOT / "params.yaml")["datasets"]["pictures"]
        workspace.edit_params(
            catalogue__survey="sdss",
            download__mirror=server.url,
            download__requests_per_s=None,
            datasets__frames__sdss__classes=["GALAXY", "STAR"],
            datasets__frames__sdss__group_by="sky",
            datasets__pictures={
                name: {**pictures[name], "classes": ["GALAXY", "STAR"], "group_by": "sky"}
                for name in ("sdss_jpg", "stsci_jpg")
            },
            compare={"datasets": {"sdss_cutouts": None, "stsci_jpg": None}, "networks": {"cnn_small": None}},
            runs={},
        )
        early = workspace.run("dvc", "repro", "catalogue", check=False)
        query = workspace.run("deepsky", "query", "--objects-per-class", str(N_PER_CLASS), "--release", "dr17")
        workspace.run("deepsky", "repro", "--jobs", "2", *ENDS)
        yield server, workspace, {"early": early, "query": query}


def raw_files(workspace: Workspace) -> dict[str, bytes]:
    raw = workspace.root / "data/raw"
    names = pd.read_csv(raw / "manifest.csv")["path"]
    return {name: (raw / name).read_bytes() for name in names}


def test_without_a_query_the_first_stage_says_what_to_do(sky):
    _, _, done = sky
    assert done["early"].returncode
    assert "run deepsky query, or copy a CSV" in done["early"].stderr + done["early"].stdout


def test_the_query_is_versioned_and_explained(sky):
    _, workspace, done = sky
    assert "there are only 0 of the 40 objects asked for" in done["query"].stderr
    saving = "80 objects in 1 field; frames a band: 1 (about 3 MB) instead of 80 (240 MB)"
    assert saving in done["query"].stdout
    assert (workspace.root / "data/query/catalogue.csv.dvc").exists()
    assert json.loads((workspace.root / "data/query/query.json").read_text())["release"] == "dr17"
    table = pd.read_csv(workspace.root / "data/catalogue.csv", dtype=str)
    assert tuple(table.columns) == ("id", *REFERENCE_COLUMNS)
    assert (table["id"] == table["objid"]).all()
    assert len(table) == 2 * N_PER_CLASS


def test_every_real_file_came_unchanged_with_its_origin(sky, real_data):
    server, workspace, _ = sky
    manifest = pd.read_csv(workspace.root / "data/raw/manifest.csv").set_index("path")
    frames = manifest[manifest.index.str.startswith("frames/")]
    assert len(frames) == 5
    for path, row in frames.iterrows():
        source = real_data(f"sdss_frames/{RUN:06d}-{CAMCOL}-{FIELD:04d}/{Path(path).name}")
        assert (workspace.root / "data/raw" / path).read_bytes() == source.read_bytes()
        assert row["url"] == f"https://data.sdss.org/sas/dr17/eboss/photoObj/frames/301/{RUN}/{CAMCOL}/{source.name}"
        assert row["etag"]
        assert row["mirror"] == server.url
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\+00:00|Z)", row["time"])
    stsci = manifest[manifest.index.str.startswith("stsci_jpg/")]
    assert stsci["url"].str.contains(r"red=\S*stk\.y\S*&green=\S*stk\.i\S*&blue=\S*stk\.g").all()


def test_objects_without_a_picture_are_left_out_of_that_dataset_only(sky):
    _, workspace, _ = sky
    sizes = {
        name: len(pd.read_csv(workspace.root / f"data/packed/{name}/rows.csv"))
        for name in ("sdss_cutouts", "sdss_jpg", "stsci_jpg")
    }
    assert sizes == {"sdss_cutouts": 80, "sdss_jpg": 78, "stsci_jpg": 75}
    missing = pd.read_csv(workspace.root / "data/raw/stsci_jpg/missing.csv")
    skipped = pd.read_csv(workspace.root / "data/packed/stsci_jpg/skipped.csv")
    assert len(missing) == len(skipped) == 5
    assert missing["reason"].str.contains("404").sum() == 2
    assert missing["reason"].str.contains("no stack covers").sum() == 3


def test_networks_were_trained_on_the_real_sky(sky):
    _, workspace, _ = sky
    metrics = {path.stem for path in (workspace.root / "evaluation/metrics").glob("*.json")}
    assert metrics == {"sdss_cutouts", "stsci_jpg"}
    assert (workspace.root / "reports/index.html").exists()


def test_nothing_is_asked_or_run_again(sky):
    server, workspace, _ = sky
    asked = len(server.targets())
    assert "Running stage" not in workspace.run("dvc", "repro", *ENDS).stdout
    workspace.edit_params(download__connections=2, download__contact="me@example.org")
    done = workspace.run("dvc", "repro", *ENDS).stdout
    assert done.count("Running stage") == done.count("Running stage 'plan'") == 1
    assert len(server.targets()) == asked


def test_downloads_outlive_a_change_of_survey(sky):
    """Simulated files and real ones take turns; nothing real is fetched twice."""
    server, workspace, _ = sky
    before, asked = raw_files(workspace), len(server.targets())
    bands = read_yaml(workspace.root / "params.yaml")["archive"]["bands"]
    workspace.edit_params(
        catalogue__survey="simulated", catalogue__n_fields=1, catalogue__n_per_class_per_field=1, archive__bands=["r"]
    )
    workspace.run("dvc", "repro", "fetch")
    simulated = raw_files(workspace)
    assert not set(simulated) & set(before)
    workspace.edit_params(catalogue__survey="sdss", archive__bands=bands)
    workspace.run("dvc", "repro", "fetch")
    assert raw_files(workspace) == before
    again = [asked.status for asked in server.requests[asked:] if asked.method == "GET"]
    assert again == [404, 404, 404, 404], "only what was missing is looked for again"
    assert not list((workspace.root / "data/raw").glob("*/.source.json"))


def test_failed_files_are_listed_tried_again_and_then_the_pipeline_goes_on(sky):
    server, workspace, _ = sky
    server.faults = [Fault("status", "psField", times=None, status=500)]
    workspace.edit_params(archive__psf_fields=True, download__tries=2)
    done = workspace.run("dvc", "repro", *ENDS, check=False)
    assert done.returncode
    assert "data/raw/failures.csv: 1 of 163 files failed" in done.stderr
    assert "deepsky fetch --retry-failed" in done.stderr
    before, asked = raw_files(workspace), len(server.requests)
    server.faults = []
    workspace.run("deepsky", "fetch", "--retry-failed")
    assert [each.status for each in server.requests[asked:]] == [404], "the archive has none after all"
    asked = len(server.requests)
    assert not (workspace.root / "data/raw/failures.csv").exists()
    assert "Running stage 'fetch'" in workspace.run("dvc", "repro", *ENDS).stdout
    assert raw_files(workspace) == before
    again = [each.status for each in server.requests[asked:]]
    assert again == [404] * 5, "a finished fetch looks again for what was missing, and for nothing else"


def test_another_release_than_the_query_s_is_refused(sky):
    _, workspace, _ = sky
    workspace.edit_params(archive__release="dr16")
    workspace.run("deepsky", "plan")
    done = workspace.run("deepsky", "catalogue", "--query", "data/query", "--out", "data/other.csv", check=False)
    workspace.edit_params(archive__release="dr17")
    workspace.run("deepsky", "plan")
    assert done.returncode == 1
    assert "mixed releases: its objects are of dr17, but params.yaml says dr16" in done.stderr
    assert not (workspace.root / "data/other.csv").exists()
