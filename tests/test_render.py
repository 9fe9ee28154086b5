import hashlib
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from deepsky.datasets.packed import open_packed
from deepsky.errors import ConfigError, DataError
from deepsky.formats.params import FramesParams, datasets_of
from deepsky.stages.render import run
from tests.small_frames import HEIGHT, WIDTH, frame_wcs, sdss_path, star_frame, write_field, write_frame

PARAMS = FramesParams(
    folder="unused",
    catalogue="unused",
    id_column="objid",
    label_column="class",
    classes=("GALAXY", "STAR"),
    position="radec",
    position_band="r",
    bands=("g", "r", "i"),
    frame_bands=("r",),
    rgb_bands=("i", "r", "g"),
    colour_bands=("i", "r", "g"),
    cutout_size_px=16,
)
PLACES_PX = [(40.3, 30.8), (90.7, 50.2), (5.0, 60.0)]  # the third is at an edge
FIELDS = (10, 11, 12)
MAGNITUDES = (21.0, 20.0, 19.5, 19.25, 19.0)


def write_sky(folder, fields=FIELDS):
    """Frames and a catalogue of three objects per field, whose rows alternate between the fields."""
    rows = []
    for field in fields:
        wcs = frame_wcs("r", field - 10)
        stars = [(*map(float, wcs.all_pix2world(x, y, 0)), 20.0 + field) for x, y in PLACES_PX]
        for band in PARAMS.bands:
            own, header = frame_wcs(band, field - 10), {"FILTER": band, "RUN": 1000, "CAMCOL": 2}
            flux = star_frame(own, stars, seed=field)
            write_frame(sdss_path(folder / "frames", band, field), flux, own, **header)
        for number, (ra, dec, _) in enumerate(stars):
            label = ("GALAXY", "STAR")[number % 2]
            rows.append([f"{field}{number}", ra, dec, 1000, 2, field, label, *MAGNITUDES])
    rows.sort(key=lambda row: row[0][-1])
    table = pd.DataFrame(rows, columns=["objid", "ra", "dec", "run", "camcol", "field", "class", *"ugriz"])
    table.to_csv(folder / "catalogue.csv", index=False)
    return table


def render(folder, params=PARAMS, on_bad_file="stop", out="out"):
    own = replace(params, folder=str(folder / "frames"), catalogue=str(folder / "catalogue.csv"))
    run("sky", own, on_bad_file, png=folder / out / "png" / "sky", packed=folder / out / "packed")
    return {kind: open_packed(folder / out / "packed" / f"sky_{kind}") for kind in ("frames", "rgb", "cutouts")}


def assert_refused(folder, message, params=PARAMS, on_bad_file="stop", kind=DataError):
    with pytest.raises(kind, match=message) as error:
        render(folder, params, on_bad_file)
    assert "\n" not in str(error.value)
    left = [path for path in folder.rglob("out/**/*") if path.name not in ("png", "packed")]
    assert left == []


def hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sky")
    return folder, write_sky(folder), render(folder)


def test_datasets_hold_the_same_objects_in_the_catalogues_order(sky):
    _, catalogue, packed = sky
    for kind, dataset in packed.items():
        rows = dataset.rows
        assert rows["id"].tolist() == catalogue["objid"].tolist(), kind
        assert rows["label"].tolist() == catalogue["class"].tolist()
        for column, own in {"run": "run", "camcol": "camcol", "field": "field"}.items():
            assert rows[column].tolist() == catalogue[own].tolist()
        assert np.allclose(rows[["ra_deg", "dec_deg"]], catalogue[["ra", "dec"]], atol=1e-9)
        assert rows["edge"].tolist() == [identity.endswith("2") for identity in rows["id"]]
        assert rows["group"].tolist() == [f"001000-2-{field:04d}" for field in catalogue["field"]]
        assert dataset.card.classes == PARAMS.classes
        assert dataset.card.n_skipped == 0


def test_rows_carry_what_is_known_beside_the_pictures(sky):
    _, _, packed = sky
    for dataset in packed.values():
        rows = dataset.rows
        assert np.allclose(rows[[f"{band}_mag" for band in "ugriz"]], MAGNITUDES)
        places = np.array([PLACES_PX[int(identity[-1])] for identity in rows["id"]])
        assert np.allclose(rows[["x_px", "y_px"]], places, atol=1e-6)
        assert rows["noise_r"].between(0.008, 0.012).all()
        assert rows["sky_g"].abs().max() < 0.002
        assert rows["psf_i"].isna().all()  # three stars are too few to tell


def test_arrays_and_cards(sky):
    _, catalogue, packed = sky
    frames, rgb, cutouts = packed["frames"], packed["rgb"], packed["cutouts"]
    assert (frames.images.shape, frames.images.dtype) == ((3, 432, 576, 1), np.uint8)
    assert (rgb.images.shape, rgb.images.dtype) == ((3, 432, 576, 3), np.uint8)
    assert (cutouts.images.shape, cutouts.images.dtype) == ((9, 16, 16, 3), np.float32)
    assert frames.rows["image"].tolist() == rgb.rows["image"].tolist() == [f - 10 for f in catalogue["field"]]
    assert cutouts.rows["image"].tolist() == list(range(9))
    assert (frames.card.kind, frames.card.bands) == ("uint8", ("r",))
    assert (rgb.card.kind, rgb.card.bands) == ("uint8", ("i", "r", "g"))
    assert (cutouts.card.kind, cutouts.card.bands) == ("flux", ("g", "r", "i"))
    assert cutouts.card.colour_bands == ("i", "r", "g")
    assert cutouts.card.pixel_scale_arcsec == pytest.approx(0.396, rel=1e-6)
    shrink = (HEIGHT * WIDTH / (432 * 576)) ** 0.5
    assert frames.card.pixel_scale_arcsec == pytest.approx(0.396 * shrink, rel=1e-6)


def test_plots_of_several_bands_are_pooled(sky, tmp_path):
    _, _, alone = sky
    broken = sdss_path(tmp_path / "frames", "g", FIELDS[1])
    write_sky(tmp_path)
    broken.write_bytes(broken.read_bytes()[:4000])
    pooled = render(tmp_path, replace(PARAMS, frame_bands=("r", "g")), on_bad_file="skip")["frames"]
    assert len(pooled.images) == 2 * (len(FIELDS) - 1)  # the field with a broken frame is left out, all of it
    assert len(pooled.rows) == 2 * len(alone["frames"].rows) * (len(FIELDS) - 1) // len(FIELDS)
    for name, own in pooled.rows.groupby("group"):
        first = own[own["id"].str.endswith("-r")]
        assert (own["image"].nunique(), first["image"].nunique()) == (2, 1)
        field = alone["frames"].rows.set_index("group").loc[name, "image"].iloc[0]
        np.testing.assert_array_equal(pooled.images[first["image"].iloc[0]], alone["frames"].images[field])
        plot = cv2.imread(
            str(next((tmp_path / "out/png/sky/frames/g").glob(f"*{name[-4:]}.png"))), cv2.IMREAD_GRAYSCALE
        )
        second = own[own["id"].str.endswith("-g")]["image"].iloc[0]
        np.testing.assert_array_equal(pooled.images[second][..., 0], plot)


def test_cutouts_hold_their_own_objects_flux(sky):
    _, catalogue, packed = sky
    whole = catalogue["objid"].str[-1] != "2"
    total = packed["cutouts"].images[whole.to_numpy()].sum(axis=(1, 2))
    expected = 20.0 + catalogue.loc[whole, "field"].to_numpy()  # every field's stars have their own brightness
    assert np.allclose(total, expected[:, None], atol=0.5)


def test_pictures_lie_in_class_folders_and_equal_the_arrays(sky):
    folder, _, packed = sky
    png = folder / "out/png/sky"
    rows = packed["cutouts"].rows
    assert sorted(str(path.relative_to(png)) for path in (png / "cutouts").rglob("*.png")) == sorted(
        f"cutouts/{label}/{identity}.png" for label, identity in zip(rows["label"], rows["id"], strict=True)
    )
    assert len(list(png.rglob("frames/*/*.png"))) == 9
    for image, field in enumerate(FIELDS):
        plot = cv2.imread(str(png / f"frames/r/frame-r-001000-2-{field:04d}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(plot, packed["frames"].images[image, :, :, 0])
        composite = cv2.imread(str(png / f"rgb/001000-2-{field:04d}.png"))[..., ::-1]
        assert np.array_equal(composite, packed["rgb"].images[image])
        assert np.array_equal(composite[..., 1], plot)  # the reference band's plot is the composite's green


def test_rendering_again_writes_the_same_bytes(sky):
    folder, _, _ = sky
    render(folder, out="again")
    first = hashes(folder / "out")
    assert len(first) == 9 + 3 + 9 + 3 * 4
    assert hashes(folder / "again") == first


def test_bad_frame_stops_or_is_skipped(tmp_path):
    catalogue = write_sky(tmp_path)
    bad = sdss_path(tmp_path / "frames", "i", 11)
    bad.write_bytes(bad.read_bytes()[:2000])
    assert_refused(tmp_path, "frame-i-001000-2-0011.fits.bz2: cannot be decompressed")
    packed = render(tmp_path, on_bad_file="skip")
    kept = catalogue[catalogue["field"] != 11]
    for kind, dataset in packed.items():
        assert dataset.rows["id"].tolist() == kept["objid"].tolist(), kind
        assert dataset.card.n_skipped == 1
        skipped = pd.read_csv(tmp_path / f"out/packed/sky_{kind}/skipped.csv")
        assert skipped["file"].tolist() == [str(bad)]
        assert "cannot be decompressed" in skipped["reason"][0]
        assert len(list((tmp_path / f"out/packed/sky_{kind}").iterdir())) == 4
    assert len(packed["frames"].images) == 2
    assert set(packed["frames"].rows["image"]) == {0, 1}
    inner = ~packed["cutouts"].rows["edge"]
    total = packed["cutouts"].images[inner.to_numpy()].sum(axis=(1, 2))
    assert np.allclose(total, 20.0 + packed["cutouts"].rows.loc[inner, ["field"]].to_numpy(), atol=0.5)
    plot = cv2.imread(str(tmp_path / "out/png/sky/frames/r/frame-r-001000-2-0012.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(packed["frames"].images[1, :, :, 0], plot)
    assert not list((tmp_path / "out/png").rglob("*0011.png"))


def test_missing_band(tmp_path):
    write_sky(tmp_path, (10,))
    sdss_path(tmp_path / "frames", "g", 10).unlink()
    assert_refused(tmp_path, "field 001000-2-0010 has no frame of band g")
    assert_refused(tmp_path, "every object was skipped", on_bad_file="skip")


def change(folder, **cells):
    """Change cells of the catalogue's first row; a Series replaces a column."""
    table = pd.read_csv(folder / "catalogue.csv", dtype=str)
    for column, value in cells.items():
        table.loc[0, column] = value
    table.to_csv(folder / "catalogue.csv", index=False)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"class": "COMET"}, "object 100 has the unknown class 'COMET'"),
        ({"objid": "1.24E+18"}, r"rounded id 1.24E\+18"),
        ({"objid": "101"}, "id 101 occurs more than once"),
        ({"objid": "../100"}, "'../100' in column 'objid' cannot be part of a file name"),
        ({"objid": " "}, "row 2 has no id"),
        ({"ra": "north"}, "object 100 has 'north' in column 'ra'"),
        ({"dec": ""}, "object 100 has .* in column 'dec'"),
        ({"field": "99"}, "object 100 lies in no frame of its field 1000-2-99"),
        ({"ra": "151.5"}, "object 100 lies outside its frame"),
    ],
)
def test_bad_catalogues_are_refused(tmp_path, cells, message):
    write_sky(tmp_path, (10,))
    change(tmp_path, **cells)
    assert_refused(tmp_path, f"catalogue.csv: .*{message}")


def test_misplaced_objects_are_skipped(tmp_path):
    catalogue = write_sky(tmp_path, (10,))
    change(tmp_path, ra="151.5")
    packed = render(tmp_path, on_bad_file="skip")
    for dataset in packed.values():
        assert dataset.rows["id"].tolist() == catalogue["objid"].tolist()[1:]
        assert dataset.card.n_skipped == 1
    total = packed["cutouts"].images[0].sum(axis=(0, 1))
    assert np.allclose(total, 30, atol=0.5)
    assert len(list((tmp_path / "out/png").rglob("cutouts/*/*.png"))) == 2


def test_objects_without_a_field_are_found_on_the_sky(tmp_path):
    write_sky(tmp_path, (10, 11))
    # Rows 84 to 95 of field 10 are rows 0 to 11 of field 11: the deeper of the two holds the object.
    places = [(60, 85, "001000-2-0010"), (60, 93, "001000-2-0011"), (60, 40, "001000-2-0010")]
    rows = []
    for number, (x, y, _) in enumerate(places):
        ra, dec = frame_wcs("r").all_pix2world(x, y, 0)
        rows.append([f"s{number}", ra, dec, "STAR"])
    table = pd.DataFrame(rows, columns=["objid", "ra", "dec", "class"])
    table.to_csv(tmp_path / "catalogue.csv", index=False)
    found = render(tmp_path)["cutouts"].rows
    assert found["group"].tolist() == [name for *_, name in places]
    assert found["field"].tolist() == [10, 11, 10]
    change(tmp_path, ra="10.0")
    with pytest.raises(DataError, match="object s0 lies in no frame of "):
        render(tmp_path, out="other")


def test_positions_in_pixels(tmp_path):
    for band in PARAMS.bands:
        wcs = frame_wcs(band)
        star = (*frame_wcs("r").all_pix2world(40.3, 30.8, 0), 30.0)
        write_frame(tmp_path / f"frames/mine-{band}.fits", star_frame(wcs, [star]), wcs)
    (tmp_path / "catalogue.csv").write_text("x,y,class\n40.3,30.8,STAR\n90,50,GALAXY\n")
    params = replace(PARAMS, position="xy", id_column=None, cutout_size_px=17)
    packed = render(tmp_path, params)
    rows, images = packed["cutouts"].rows, packed["cutouts"].images
    assert rows["id"].tolist() == ["1", "2"]
    assert rows["group"].tolist() == ["mine", "mine"]
    assert rows[["run", "camcol", "field"]].isna().all(axis=None)
    assert np.allclose(images[0].sum(axis=(0, 1)), 30, atol=0.5)
    assert [np.unravel_index(images[0, :, :, band].argmax(), (17, 17)) for band in range(3)] == [(8, 8)] * 3
    for band in PARAMS.bands:
        write_frame(tmp_path / f"frames/second-{band}.fits", np.ones((96, 128), np.float32), frame_wcs(band))
    with pytest.raises(DataError, match="gives x and y only, and the frames are of 2 fields"):
        render(tmp_path, params, out="other")


def test_pooled_plots_of_an_object_stay_together():
    for torn in ("image", "objid"):
        with pytest.raises(ValueError, match=rf"group_by {torn} tears an object's plots of several frame_bands apart"):
            replace(PARAMS, frame_bands=("r", "g"), group_by=torn)


def test_wrong_parameters_are_refused(tmp_path):
    write_sky(tmp_path, (10,))
    assert_refused(tmp_path, "on_bad_file: 'ignore' is unknown", on_bad_file="ignore", kind=ConfigError)
    for wrong, message in [
        ({"rgb_bands": ("r", "g")}, "rgb_bands must name three"),
        ({"colour_bands": ("r", "g", "u")}, "band 'u' is not among bands g, r, i"),
        ({"bands": ("g", "r", "i", "r")}, "twice"),
        ({"cutout_size_px": 4}, "cutout_size_px must lie"),
        ({"classes": ("a/b",)}, "no slashes"),
    ]:
        with pytest.raises(ValueError, match=message):
            replace(PARAMS, **wrong)


def test_the_datasets_have_the_names_that_render_writes(tmp_path):
    write_sky(tmp_path)
    render(tmp_path)
    assert {path.name for path in (tmp_path / "out/packed").iterdir()} == set(datasets_of("sky"))


def test_a_frame_of_another_band_under_the_name_is_refused(tmp_path):
    write_field(tmp_path / "frames", "gri", 10, [])
    write_sky_catalogue = "objid,ra,dec,run,camcol,field,class\n1,150.0,20.0,1000,2,10,STAR\n"
    (tmp_path / "catalogue.csv").write_text(write_sky_catalogue)
    sdss_path(tmp_path / "frames", "g", 10).rename(sdss_path(tmp_path / "frames", "r", 10))
    write_field(tmp_path / "other", "g", 10, [])
    sdss_path(tmp_path / "other", "g", 10).rename(sdss_path(tmp_path / "frames", "g", 10))
    assert_refused(tmp_path, "frame-r-001000-2-0010.fits.bz2: its header says FILTER g, not r")


@pytest.mark.real
def test_real_field_renders(real_data, tmp_path):
    folder = real_data("sdss_frames/003918-3-0213")
    catalogue = real_data("sdss_frames/003918-3-0213/star_galaxy_labels_x_lt_1228.csv")
    params = replace(
        PARAMS,
        folder=str(folder),
        catalogue=str(catalogue),
        id_column=None,
        position="xy",
        classes=("galaxy", "star"),
        bands=tuple("ugriz"),
        rgb_bands=tuple("rgu"),
        cutout_size_px=32,
    )
    run("real", params, "stop", png=tmp_path / "png", packed=tmp_path / "packed")
    packed = open_packed(tmp_path / "packed/real_cutouts")
    assert packed.images.shape == (390, 32, 32, 5)
    assert packed.rows["label"].value_counts().to_dict() == {"galaxy": 220, "star": 170}
    stars = packed.images[(packed.rows["label"] == "star") & ~packed.rows["edge"]]
    middle, ring = stars[:, 14:18, 14:18].mean(axis=(1, 2)), np.median(stars, axis=(1, 2))
    assert (middle[:, 2] > ring[:, 2]).mean() > 0.9  # light stands in the middle, not somewhere else
