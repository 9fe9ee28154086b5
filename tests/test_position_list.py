"""A list of ra, dec and class as the only input: read strictly, named by place, and enough for cutouts and a split."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord

from deepsky.archives.params import ArchiveParams, DownloadParams
from deepsky.catalogue.position_list import designation, read_positions
from deepsky.config import build
from deepsky.datasets.packed import open_packed
from deepsky.datasets.params import SplitParams
from deepsky.errors import ConfigError, DataError
from deepsky.experiment.experiment import read_experiment
from deepsky.experiment.fingerprint import Code
from deepsky.experiment.plan import plan_stages
from deepsky.formats.params import PicturesParams
from deepsky.simulation.params import CatalogueParams
from deepsky.stages import catalogue, fetch, pack, split
from tests.archive_server import ArchiveServer, jpeg_content
from tests.test_panstarrs import LISTS, ListService

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("GALAXY", "QSO", "STAR")
LIST = CatalogueParams("list")
ROWS = [("180.5", "-1.25", "STAR"), ("0.001", "+89.9", "QSO"), ("1e2", "0", "GALAXY")]
IDS = ["J120200.00-011500.0", "J000000.24+895400.0", "J064000.00+000000.0"]


@pytest.fixture
def read(tmp_path):
    def run(text, classes=CLASSES):
        path = tmp_path / "list.tsv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_positions(path, classes)

    return run


def lines(rows, separator="\t", head=""):
    return head + "".join(separator.join(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    "text",
    [
        lines(ROWS),
        lines(ROWS, ","),
        lines(ROWS, head="ra\tdec\tclass\n"),
        lines(ROWS, ", ", head="\ufeff# RA, Dec, CLASS\r\n"),
        lines(ROWS, head="#Table1\nra\tdec\tclass\n") + "\n \t\n",
        lines([(c, "x", d, r) for r, d, c in ROWS], ",", head="class,note,dec,ra\n"),
        lines([(r, d, f'"{c}"') for r, d, c in ROWS], ",", head='"ra","dec","class"\n'),
    ],
)
def test_a_list_with_tabs_or_commas_with_or_without_names(read, text, capsys):
    table = read(text)
    assert list(table) == ["id", "ra", "dec", "class"]
    assert list(table[["ra", "dec", "class"]].itertuples(index=False, name=None)) == ROWS
    assert table["id"].tolist() == IDS
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no positions; give at least one object of each class"),
        ("ra\tdec\tclass\n\n", "holds no positions"),
        ("1.5\t2.5\tSTAR\n360.5\t2\tSTAR\n", "line 2 has ra '360.5'; right ascension is 0 to 360 degrees: mend it or"),
        ("ra,dec,class\n\n-0.1,2,STAR\n", "line 3 has ra '-0.1'"),
        ("1,-90.5,STAR\n", "line 1 has dec '-90.5'; declination is -90 to 90 degrees"),
        (
            "1,2,STAR\n3,4,PLANET\n",
            "line 2 has class 'PLANET'; the datasets of params.yaml know GALAXY, QSO, STAR: mend",
        ),
        ("1,2,star\n", "line 1 has class 'star'"),
        ("1,2,\n", "line 1 has class ''; name it"),
        ("1,2,STAR\n12:30:01,2,STAR\n", "object in line 2 has '12:30:01' in column 'ra', which is no number"),
        ("1,nan,STAR\n", "object in line 1 has 'nan' in column 'dec'"),
        ("STAR,1,2\n", "object in line 1 has 'STAR' in column 'ra'"),
        ("ra\tdec\tkind\n1\t2\tSTAR\n", "has no column class, it has ra, dec, kind; begin the list with"),
        ("1\t2\n", "has 2 cells in its first line, and no names of columns; begin the list with"),
        ("1,2,STAR,7\n", "has 4 cells in its first line, and no names of columns"),
        ("ra,dec,ra,class\n1,2,3,STAR\n", "has two columns ra; leave one of them out"),
        ("1 2 STAR\n", "has no column ra, dec, class, it has 1 2 star"),
        ("1,2,STAR\n3,4\n", "line 2 has 2 cells instead of 3; mend it, and put tabs or commas between all"),
        ("1,2,STAR\n3,4,QSO\n1.0,2,QSO\n", r"lines 1 and 3 call one place \(J000400.00\+020000.0\) STAR and QSO; keep"),
        (b"\xff\xfe1", "cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line(read, text, problem):
    with pytest.raises(DataError, match=rf"list.tsv: {problem}") as caught:
        read(text)
    assert "\n" not in str(caught.value)


def test_lines_of_one_place_count_once(read, capsys):
    table = read("1,2,STAR\n3,4,QSO\n1.000001,2.000001,STAR\n")
    assert table["ra"].tolist() == ["1", "3"]
    assert capsys.readouterr().err.endswith("list.tsv: 1 lines repeat a place and are left out\n")


def test_without_known_classes_any_will_do(read):
    assert read("1,2,PLANET\n", ())["class"].tolist() == ["PLANET"]


def test_names_are_the_places_cut_off():
    rng = np.random.default_rng(3)
    ra_deg, dec_deg = rng.uniform(0, 360, 500), np.degrees(np.arcsin(rng.uniform(-1, 1, 500)))
    names = [designation(*place) for place in zip(ra_deg, dec_deg, strict=True)]
    told = SkyCoord([f"{n[1:3]}h{n[3:5]}m{n[5:10]}s {n[10:13]}d{n[13:15]}m{n[15:]}s" for n in names])
    true = SkyCoord(ra_deg, dec_deg, unit="deg")
    for found, wanted, digit_arcsec in ((told.ra, true.ra, 0.15), (abs(told.dec), abs(true.dec), 0.1)):
        off_arcsec = (wanted - found).arcsec
        assert off_arcsec.min() > -1e-6
        assert off_arcsec.max() < digit_arcsec + 1e-6
    assert designation(202.46827, 47.19526) == "J132952.38+471142.9"
    assert designation(360.0, -0.00001) == "J000000.00-000000.0"


def pairs_of_sky(n):
    """Objects in pairs 20 arcsec apart, far from each other, with a class by turns."""
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(0, 350, n // 2).repeat(2), rng.uniform(-20, 60, n // 2).repeat(2)
    dec[1::2] += 20 / 3600
    return [(f"{r:.6f}", f"{d:.6f}", CLASSES[i % 3]) for i, (r, d) in enumerate(zip(ra, dec, strict=True))]


def cutout(query, body):
    """A service of cutouts: a picture for each place."""
    seed = round(float(query["ra"]) * 1e6)
    return 200, {}, jpeg_content(seed, 24)


PAIRS = pairs_of_sky(60)


def test_a_list_alone_brings_the_cutouts_of_both_services_to_a_split(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "list.tsv").write_text(lines(PAIRS, head="ra\tdec\tclass\n"))
    table, raw, outside = tmp_path / "catalogue.csv", tmp_path / "raw", float(PAIRS[0][0])
    catalogue.run(LIST, "dr17", query=tmp_path, out=table, classes=CLASSES)
    stacks = ListService(gap=lambda ra, dec: ra == outside)
    services = ("/dr16/SkyServerWS/ImgCutout/getjpeg", "/cgi-bin/fitscut.cgi")
    archive = ArchiveParams(bands=(), cutout_px=24, cutouts_release="dr16")
    with ArchiveServer({}, {LISTS: stacks, **dict.fromkeys(services, cutout)}) as server:
        download = DownloadParams(server.url, requests_per_s=None)
        fetch.run(LIST, archive, download, "stop", catalogue=table, out=raw)
    assert len(server.requests) == 60 + 58 + len(stacks.batches), "nothing else is asked for"
    assert len(list((raw / "sdss_jpg").glob("J*.jpg"))) == 60
    assert len(list((raw / "stsci_jpg").glob("J*.jpg"))) == 58
    for name, n_rows in (("sdss_jpg", 60), ("stsci_jpg", 58)):
        entry = {
            "format": "images",
            "source": str(raw / name),
            "size_px": 24,
            "id_column": "id",
            "label_column": "class",
        }
        params = build({**entry, "classes": list(CLASSES)}, PicturesParams, name)
        pack.run(name, params, "stop", out=tmp_path / name)
        rows = open_packed(tmp_path / name).rows
        assert len(rows) == n_rows
        split.run("neighbours", SplitParams(), packed=tmp_path / name, out=tmp_path / "split.csv")
        parts = pd.read_csv(tmp_path / "split.csv").merge(rows[["id", "ra_deg"]], on="id")
        assert parts.groupby("ra_deg")["split"].nunique().max() == 1, "pairs on the sky stay together"
        assert set(parts["split"]) == {"train", "val", "test"}


def test_without_a_list_the_stage_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"list.tsv: is not there, and catalogue.survey is list; copy a list of ra"):
        catalogue.run(LIST, "dr17", query=tmp_path, out=tmp_path / "out.csv")


def test_what_wants_fields_is_told_at_once_before_anything_runs():
    experiment = read_experiment(ROOT / "params.yaml")
    listed = replace(experiment, catalogue=LIST, archive=replace(experiment.archive, psf_fields=True))
    with pytest.raises(ConfigError) as caught:
        plan_stages(listed, Code())
    said = str(caught.value).splitlines()
    assert len(said) == 5
    for line, beginning in zip(
        said, ("archive.bands", "archive.psf_fields", "datasets.frames.sdss", "datasets.pictures.sdss_jpg.group_by",
               "datasets.pictures.stsci_jpg.group_by"), strict=True,
    ):  # fmt: skip
        assert line.removeprefix("error: ").startswith(f"params.yaml: {beginning}: ")
    assert said[0].endswith("a list of positions (catalogue.survey) names no fields; write []")
    assert said[2].endswith("take it out: deepsky drop sdss")
    assert said[3].endswith(
        "is field, and a list of positions (catalogue.survey) names no fields; write neighbours or sky"
    )


def test_the_classes_of_a_list_are_those_that_every_dataset_knows():
    experiment = read_experiment(ROOT / "params.yaml")
    pictures = {name: replace(one, group_by="sky") for name, one in experiment.pictures.items() if "jpg" in name}
    pictures["stsci_jpg"] = replace(pictures["stsci_jpg"], classes=("STAR", "GALAXY", "NOVA"))
    listed = replace(
        experiment, catalogue=LIST, archive=replace(experiment.archive, bands=()), frames={}, pictures=pictures, runs={}
    )
    assert plan_stages(listed, Code())["catalogue"]["classes"] == ["GALAXY", "STAR"]
