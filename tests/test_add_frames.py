import os

import click
import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from ruamel.yaml import YAML

from deepsky.cli import cli
from deepsky.config import build
from deepsky.datasets.packed import open_packed
from deepsky.errors import ConfigError, DataError
from deepsky.formats.params import FramesParams
from deepsky.networks.heads import join, softmax_answer
from deepsky.networks.inputs import ImageSpec, stretched_front
from deepsky.stages import render
from deepsky.training.saved import ModelCard, save_network
from tests.small_frames import frame_wcs, sdss_path, star_frame, write_frame
from tests.test_add_images import project  # noqa: F401  # the fixture
from tests.test_render import write_sky
from tests.tiny_networks import tiny_tail

pytestmark = pytest.mark.usefixtures("project")
BANDS = ("--bands", "g,r,i", "--cutout-size-px", "16")


def add(folder, *options, catalogue="catalogue.csv", frames="frames"):
    arguments = ["add", "frames", "sky", str(folder / frames), str(folder / catalogue), *BANDS, *options]
    cli(arguments, standalone_mode=False)


def params_file(text):
    with open("params.yaml", "w") as file:  # noqa: PTH123
        file.write(text)


def entry():
    with open("params.yaml") as file:  # noqa: PTH123
        return YAML(typ="safe").load(file)["datasets"]["frames"]["sky"]


def test_it_says_what_it_took_and_what_it_left_out_and_why(tmp_path, capsys):
    write_sky(tmp_path)
    with (tmp_path / "catalogue.csv").open("a") as file:
        file.write("far,10.0,-5.0,1000,2,99,STAR\n")
    broken = sdss_path(tmp_path / "frames", "i", 11)
    broken.write_bytes(b"<html>503</html>")
    write_frame(tmp_path / "frames/m1.fits", star_frame(frame_wcs("r"), []), frame_wcs("r"), FILTER="Halpha")
    Table({"x": [1.0]}).write(tmp_path / "frames/objects.fits")
    Table({"x": [1.0]}).write(tmp_path / "frames/m1-r.cat.fits")  # named like a frame
    with pytest.raises(DataError, match=r"object far lies in no frame of its field 1000-2-99 of .* \(1 such\)"):
        add(tmp_path, "--id-column", "objid")
    params_file("on_bad_file: skip\n")
    add(tmp_path, "--id-column", "objid")
    said = capsys.readouterr().out
    for line in (
        "took 6 objects (4 GALAXY, 2 STAR) in 2 of 4 fields\n",
        "on an edge: 2 of them",
        f"frame left out: {broken}: is not a readable FITS file",
        "objects left out: 1, the first: object far lies in no frame",
        "left alone: Halpha (1), a table (1); --filter NAME=BAND",
        "next: make repro ONLY=sky_cutouts",
    ):
        assert line in said


def save_flux_network(path, bands):
    card = ModelCard(
        dataset="toy", network="tiny", weights="scratch", classes=("a", "b"), kind="flux", bands=bands,
        colour_bands=bands, image_shape=(16, 16, 3), pixel_scale_arcsec=None,
    )  # fmt: skip
    network = join(stretched_front(ImageSpec((16, 16, 3), "flux", bands, bands), 12), tiny_tail(softmax_answer(2)), "t")
    save_network(path, network, card)
    return network


def test_frames_and_tables_of_other_habits(tmp_path):
    """Filters to map, counts with zero points, sexagesimal positions under other names, in a FITS table."""
    for band, name in {"g": "F475W", "r": "F606W", "i": "F814W"}.items():
        wcs = frame_wcs(band)
        star = (*map(float, frame_wcs("r").all_pix2world(40.3, 30.8, 0)), 300.0)
        path = tmp_path / f"frames/m51_{name.lower()}_drz.fits"
        write_frame(path, star_frame(wcs, [star]), wcs, FILTER2=name, FILTER1="CLEAR1L", BUNIT="electrons")
    places = SkyCoord.from_pixel([40.3, 60.0], [30.8, 50.0], frame_wcs("r"))
    ra, dec = places.to_string("hmsdms", precision=4), None
    ra, dec = zip(*(each.split() for each in ra), strict=True)
    Table({"RAJ2000": ra, "DEJ2000": dec, "CLASS": ["STAR", "GALAXY"]}).write(tmp_path / "objects.fits")
    filters = [option for each in ("F475W=g", "f606w=r", "F814W=i") for option in ("--filter", each)]
    columns = ("--position-columns", "RAJ2000,DEJ2000")
    with pytest.raises(DataError, match="columns are RAJ2000, DEJ2000; name two as position_columns"):
        add(tmp_path, *filters, catalogue="objects.fits")
    with pytest.raises(DataError, match=r"BUNIT is 'electrons', and nothing .*give zero_points"):
        add(tmp_path, *filters, *columns, catalogue="objects.fits")
    with pytest.raises(ConfigError, match="band 'y' is not among bands g, r, i"):
        add(tmp_path, *filters, *columns, "--zero-point", "y=20", catalogue="objects.fits")
    add(tmp_path, *filters, *columns, "--zero-point", "25", "--zero-point", "i=20", catalogue="objects.fits")
    assert entry()["filters"] == {"F475W": "g", "f606w": "r", "F814W": "i"}
    assert entry()["zero_points"] == {"g": 25.0, "r": 25.0, "i": 20.0}
    params = build(entry(), FramesParams, "sky")
    render.run("sky", params, "stop", png=tmp_path / "png", packed=tmp_path / "packed")
    packed = open_packed(tmp_path / "packed/sky_cutouts")
    assert packed.rows["group"].tolist() == ["m51_drz"] * 2
    assert packed.images[0].sum(axis=(0, 1)) == pytest.approx([30, 30, 3000], rel=0.02)
    network = save_flux_network(tmp_path / "model.h5", params.bands)
    seen = [*filters, *columns, "--zero-point", "25", "--zero-point", "i=20", "--csv", "answers.csv"]
    arguments = ["predict", tmp_path / "model.h5", tmp_path / "frames", "--catalogue", tmp_path / "objects.fits", *seen]
    cli(list(map(str, arguments)), standalone_mode=False)
    answers = pd.read_csv("answers.csv")[["p_a", "p_b"]].to_numpy()
    np.testing.assert_allclose(answers, network.predict(packed.images, verbose=0), atol=1e-5)
    assert np.abs(answers[0] - answers[1]).max() > 1e-3  # the two objects differ


def test_what_hangs_or_hides_is_no_frame(tmp_path):
    write_sky(tmp_path, (10,))
    hidden = tmp_path / "frames/.trash/m1-g.fits"
    hidden.parent.mkdir()
    hidden.write_text("old")
    (tmp_path / "frames/._m1-r.fits").write_text("macOS")
    os.mkfifo(tmp_path / "frames/m1-r.fits")
    with pytest.raises(DataError, match=r"m1-r\.fits: is no file"):
        add(tmp_path, "--id-column", "objid")
    (tmp_path / "frames/m1-r.fits").rename(tmp_path / "frames/readme.pipe")
    (tmp_path / "frames/endless").symlink_to("/dev/zero")
    add(tmp_path, "--id-column", "objid")
    copied = {path.name for path in (tmp_path / "project/data/external/sky/frames").rglob("*") if path.is_file()}
    assert copied == {f"frame-{band}-001000-2-0010.fits.bz2" for band in "gri"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("ra,dec,class\n10:00:02.9,+20:61:00,STAR\n10:00:02.9,+20:01:00,GALAXY\n", "object 1 has .* which is no angle"),
        ("ra,dec,class\n10:00:02.9,20.0,STAR\n150.0,20.0,GALAXY\n", r"object 2 has '150.0' .* \(a plain number among"),
        ("ra,dec,class\n20.0,150.0,STAR\n20.0,150.0,GALAXY\n", "object 1 has dec 150 .* name the right columns"),
        ("ra,dec,class\n25:00:00,20.0,STAR\n1:00:00,20.0,GALAXY\n", "object 1 has '25:00:00' .* which is no angle"),
        ("ra,RA,dec,class\n1,1,2,STAR\n1,1,2,GALAXY\n", "lies in no frame"),
        ("Ra,RA,dec,class\n1,1,2,STAR\n1,1,2,GALAXY\n", "column 'ra' may be Ra or RA"),
        ("ra,dec,class\n1,2,STAR\n", "holds the one class 'STAR'"),
        ("ra,dec,kind\n1,2,STAR\n", "column 'class' is missing; its columns are ra, dec, kind"),
    ],
)
def test_positions_that_are_none_are_one_line(tmp_path, table, message):
    write_sky(tmp_path, (10,))
    (tmp_path / "catalogue.csv").write_text(table)
    with pytest.raises(DataError, match=message) as error:
        add(tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "project/data").exists()


def test_two_frames_of_one_band_obey_on_bad_file(tmp_path, capsys):
    write_sky(tmp_path, (10,))
    again = tmp_path / "frames/copy" / sdss_path(tmp_path, "g", 10).name
    again.parent.mkdir()
    again.write_bytes(sdss_path(tmp_path / "frames", "g", 10).read_bytes())
    with pytest.raises(DataError, match="second frame of band g"):
        add(tmp_path, "--id-column", "objid")
    params_file("on_bad_file: skip\n")
    add(tmp_path, "--id-column", "objid")
    assert "second frame of band g" in capsys.readouterr().out


@pytest.mark.parametrize("option", [("--filter", "F814W"), ("--zero-point", "g=bright")])
def test_options_of_no_meaning_are_refused(tmp_path, option):
    with pytest.raises(click.BadParameter):
        add(tmp_path, *option)
