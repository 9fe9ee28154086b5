"""Files that the archive does not have: their objects are left out, and everything else is as before."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from deepsky.datasets.packed import open_packed
from deepsky.datasets.params import SplitParams
from deepsky.datasets.splits import split_rows
from deepsky.errors import DataError
from deepsky.imaging.badfiles import read_missing
from deepsky.stages import render
from tests import test_pack_images, test_render
from tests.small_frames import frame_wcs, sdss_path, star_frame, write_frame

REASON = "404 Not Found"


def write_missing(folder, *paths):
    rows = [{"path": f"{folder.name}/{path}", "url": "https://archive/file", "reason": REASON} for path in paths]
    pd.DataFrame(rows).to_csv(folder / "missing.csv", index=False)


def skipped(packed):
    return pd.read_csv(packed / "skipped.csv")


# ---- pack ----


@pytest.mark.parametrize("on_bad_file", ["stop", "skip"])
def test_pack_leaves_out_what_the_archive_lacks(tmp_path, capsys, on_bad_file):
    test_pack_images.write_images(tmp_path)
    (tmp_path / "images/c.tif").unlink()
    write_missing(tmp_path / "images", "c.jpg", "unlabelled.jpg", "a.jpg")  # a.jpg is there all the same
    packed = test_pack_images.pack(tmp_path, on_bad_file=on_bad_file)
    assert packed.rows["id"].tolist() == list("dba")
    assert packed.rows["image"].tolist() == [0, 1, 2]
    assert packed.card.n_skipped == 1
    table = skipped(tmp_path / "out/mine")
    assert table.to_numpy().tolist() == [[str(tmp_path / "images/c.jpg"), REASON]]
    lines = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert lines == ["mine: 1 objects are left out, the archive lacks their files"]


def test_other_absent_images_stay_an_error(tmp_path):
    test_pack_images.write_images(tmp_path)
    (tmp_path / "images/c.tif").unlink()
    (tmp_path / "images/a.jpg").unlink()
    write_missing(tmp_path / "images", "c.jpg")
    test_pack_images.assert_refused(tmp_path, "1 of its 3 images are absent from .*, the first is a")


def test_nothing_left_to_pack(tmp_path):
    test_pack_images.write_images(tmp_path)
    for path in test_pack_images.pictures_of(tmp_path):
        path.unlink()
    write_missing(tmp_path / "images", *(f"{name}.jpg" for name in "abcd"))
    test_pack_images.assert_refused(tmp_path, r"every object was skipped \(the first: .*d.jpg: 404 Not Found\)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as CSV"),
        (b"path,url\nimages/c.jpg,u\n", "column 'reason' is missing"),
        (b"path,url,reason\nimages/c.jpg,u,404,more\n", "cannot be read as CSV"),
        (b"path,url,reason\nc.jpg,u,404\n", "path 'c.jpg' names no file of a folder"),
        (b"\xff\xfe\x00", "cannot be read as CSV"),
    ],
)
def test_broken_list_is_refused(tmp_path, content, message):
    test_pack_images.write_images(tmp_path)
    (tmp_path / "images/missing.csv").write_bytes(content)
    test_pack_images.assert_refused(tmp_path, f"missing.csv: {message}.*; run deepsky fetch again")
    with pytest.raises(DataError, match=message):
        read_missing(tmp_path / "images")


# ---- render: SDSS fields ----


NO_MATTER = [("psField", "fit"), ("frame-u", "fits.bz2"), ("frame-i", "fits.bz2")]


def lose(folder, field, bands):
    """Take frames of one field away and list them as missing, and others of no matter: one is there all the same."""
    paths = [sdss_path(folder / "frames", band, field) for band in bands]
    for path in paths:
        path.unlink()
    listed = [str(path.relative_to(folder / "frames")) for path in paths]
    others = [f"1000/2/{name}-001000-2-0011.{kind}" for name, kind in NO_MATTER]
    write_missing(folder / "frames", *listed, *others)


@pytest.mark.parametrize(("bands", "on_bad_file"), [("g", "skip"), ("r", "stop"), ("gri", "stop")])
def test_render_leaves_out_fields_that_lack_a_band(tmp_path, capsys, bands, on_bad_file):
    catalogue = test_render.write_sky(tmp_path)
    lose(tmp_path, 10, bands)
    packed = test_render.render(tmp_path, on_bad_file=on_bad_file)
    kept = catalogue.loc[catalogue["field"] != 10, "objid"].tolist()
    for kind, each in packed.items():
        assert each.rows["id"].tolist() == kept
        table = skipped(tmp_path / f"out/packed/sky_{kind}")
        first = str(sdss_path(tmp_path / "frames", bands[0], 10))
        assert table["file"].tolist() == [first] * 3
        lost = catalogue.loc[catalogue["field"] == 10, "objid"]
        assert table["reason"].tolist() == [f"object {name}: {REASON}" for name in lost]
    assert packed["frames"].images.shape[0] == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert lines == ["sky: 3 objects are left out, the archive lacks their files"]


def test_fields_found_on_the_sky_lack_bands_too(tmp_path):
    catalogue = test_render.write_sky(tmp_path)
    catalogue.drop(columns=["run", "camcol", "field"]).to_csv(tmp_path / "catalogue.csv", index=False)
    before = test_render.render(tmp_path)["cutouts"].rows
    lose(tmp_path, 12, "g")
    after = test_render.render(tmp_path, out="after")["cutouts"].rows
    assert set(before["field"]) == {10, 11, 12}
    assert after["id"].tolist() == before.loc[before["field"] != 12, "id"].tolist()


def test_unlisted_bands_stay_an_error(tmp_path):
    test_render.write_sky(tmp_path)
    lose(tmp_path, 10, "gr")
    sdss_path(tmp_path / "frames", "g", 11).unlink()
    test_render.assert_refused(tmp_path, "field 001000-2-0011 has no frame of band g")


def test_nothing_left_to_render(tmp_path):
    test_render.write_sky(tmp_path, fields=(10,))
    lose(tmp_path, 10, "gri")
    test_render.assert_refused(tmp_path, r"every object was skipped \(the first: .*frame-g-001000-2-0010")


# ---- render: one cutout per object ----

OWN = replace(test_render.PARAMS, id_column="id", cutout_size_px=16)
PLACES_PX = {"3306-54922-0491": (64, 48), "3306-54922-0492": (84, 48), "752-54922-0001": (64, 70)}


def write_cutouts(folder):
    """A frame centred on each of three objects, all of which every frame holds; field 9 of the catalogue is another."""
    (folder / "frames").mkdir(parents=True)
    sky = frame_wcs("r")
    places = {name: sky.all_pix2world(x, y, 0) for name, (x, y) in PLACES_PX.items()}
    for number, (name, (ra, dec)) in enumerate(places.items()):
        for band in OWN.bands:
            wcs = frame_wcs(band)
            wcs.wcs.crval = [float(ra), float(dec)]
            stars = [(float(ra), float(dec), 30.0 + number)]  # only its own: whose cutout it is shows
            write_frame(folder / f"frames/{name}-{band}.fits", star_frame(wcs, stars), wcs, FILTER=band)
    table = pd.DataFrame(
        {
            "id": list(places),
            "objid": "",  # as real catalogues have it where no photometric object was matched
            "ra": [float(ra) for ra, _ in places.values()],
            "dec": [float(dec) for _, dec in places.values()],
            "run": 752,
            "camcol": 3,
            "field": [7, 8, 9],
            "specobjid": "",
            "class": ["GALAXY", "STAR", "GALAXY"],
        }
    )
    table[::-1].to_csv(folder / "catalogue.csv", index=False)
    return table[::-1]


def test_objects_come_from_their_own_cutouts(tmp_path):
    table = write_cutouts(tmp_path)
    packed = test_render.render(tmp_path, OWN)["cutouts"]
    assert packed.rows["id"].tolist() == table["id"].tolist()
    assert packed.rows["group"].tolist() == table["id"].tolist()
    assert packed.images.sum(axis=(1, 2)) == pytest.approx(np.repeat([[32.0], [31.0], [30.0]], 3, axis=1), rel=0.03)
    assert packed.rows[["run", "camcol", "field"]].to_numpy().tolist() == [[752, 3, 9], [752, 3, 8], [752, 3, 7]]
    again = test_render.render(tmp_path, OWN, out="again")["cutouts"]
    assert np.array_equal(again.images, packed.images)


def test_objects_whose_own_cutout_is_missing_take_no_neighbours(tmp_path):
    write_cutouts(tmp_path)
    for band in OWN.bands:
        (tmp_path / f"frames/3306-54922-0491-{band}.fits").unlink()
    (tmp_path / "frames/3306-54922-0492-r.fits").unlink()
    lost = [f"3306-54922-0491-{band}.fits" for band in OWN.bands]
    write_missing(tmp_path / "frames", *lost, "3306-54922-0492-r.fits", "752-54922-0001-y.fits")
    packed = test_render.render(tmp_path, OWN)["cutouts"]
    assert packed.rows["id"].tolist() == ["752-54922-0001"]
    assert skipped(tmp_path / "out/packed/sky_cutouts")["reason"].tolist() == [
        f"object 3306-54922-0492: {REASON}",
        f"object 3306-54922-0491: {REASON}",
    ]
    write_missing(tmp_path / "frames", *lost)  # and where the list does not say so, it is an error
    with pytest.raises(DataError, match="field 3306-54922-0492 has no frame of band r"):
        test_render.render(tmp_path, OWN, out="again")


def test_ids_that_happen_to_be_fields_names_are_found_on_the_sky(tmp_path):
    """Rows numbered from 1, and frames called 1 and 2 that hold other objects."""
    folder, rows = tmp_path / "frames", []
    for name, field in (("1", 5), ("2", 0)):
        for band in OWN.bands:
            wcs = frame_wcs(band, field)
            write_frame(folder / f"{name}-{band}.fits", star_frame(wcs, []), wcs)
        ra, dec = frame_wcs("r", field).all_pix2world(60, 40, 0)
        rows.append({"ra": float(ra), "dec": float(dec), "class": "STAR"})
    pd.DataFrame(rows[::-1]).to_csv(tmp_path / "catalogue.csv", index=False)
    packed = test_render.render(tmp_path, replace(OWN, id_column=None))["cutouts"]
    assert packed.rows["id"].tolist() == ["1", "2"]
    assert packed.rows["group"].tolist() == ["2", "1"]


def test_cutouts_split_by_the_catalogues_fields(tmp_path):
    """Runs through rows.csv: ids like 3306-54922-0491, run, camcol and field of the catalogue, empty objids."""
    write_cutouts(tmp_path)
    own = replace(OWN, folder=str(tmp_path / "frames"), catalogue=str(tmp_path / "catalogue.csv"))
    render.run("own", own, "stop", png=tmp_path / "png", packed=tmp_path / "packed")
    rows = open_packed(tmp_path / "packed/own_cutouts").rows
    copies = [rows.assign(id=rows["id"] + f"-{n}", field=rows["field"] + 20 * n) for n in range(12)]
    table = split_rows(pd.concat(copies, ignore_index=True), "field", SplitParams(1, 0.2, 0.2, 2.0, 2.0))
    assert set(table["split"]) == {"train", "val", "test"}
    assert table.groupby("group")["split"].nunique().max() == 1
    assert table["group"].nunique() == 12  # fields 7, 8 and 9 overlap


@pytest.mark.real
def test_real_stacks_render(real_data, tmp_path):
    """The service's own FITS cutouts under the names that stage fetch gives them, as a params.yaml entry reads them."""
    bands = ("g", "r", "i", "z")
    (tmp_path / "frames").mkdir()
    for band in bands:
        source = real_data(f"multisurvey_cutouts_ra27.95_dec0.26/PS1_{band}.fits")
        shutil.copy(source, tmp_path / f"frames/3306-54922-0491-{band}.fits")
    write_missing(tmp_path / "frames", "3306-54922-0491-y.fits")
    row = {"id": "3306-54922-0491", "ra": 27.952, "dec": 0.2635, "run": 4073, "camcol": 4, "field": 56}
    pd.DataFrame([row | {"class": "GALAXY"}]).to_csv(tmp_path / "catalogue.csv", index=False)
    packed = test_render.render(tmp_path, replace(OWN, bands=bands, cutout_size_px=64))["cutouts"]
    assert packed.rows[["id", "group", "field"]].to_numpy().tolist() == [["3306-54922-0491", "3306-54922-0491", 56]]
    assert packed.card.pixel_scale_arcsec == pytest.approx(0.25, rel=1e-4)
    middle = packed.images[0, 24:48, 20:44].max(axis=(0, 1))
    assert (middle > 5 * packed.images[0, :8, :8].max(axis=(0, 1))).all()
    assert packed.images[0].sum(axis=(0, 1)).argmax() == 3  # a red galaxy
