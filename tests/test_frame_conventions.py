"""How observatories write coordinates, units and filters: what comes out is where and how bright astropy says it is."""

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.wcs import WCS

from deepsky.errors import DataError
from deepsky.imaging.astrometry import read_astrometry
from deepsky.imaging.frame_names import Identity, band_of, identify
from deepsky.imaging.frames import read_frame, read_header, read_outline
from deepsky.imaging.params import Reading
from deepsky.imaging.photometry import scale_of
from tests.small_frames import HEIGHT, WIDTH, frame_wcs, write_frame

PLAIN = {
    "NAXIS": 2, "NAXIS1": WIDTH, "NAXIS2": HEIGHT, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0,
    "CRVAL2": 20.0, "CRPIX1": 60.0, "CRPIX2": 50.0, "CD1_1": -1e-4, "CD1_2": 2e-5, "CD2_1": 3e-5, "CD2_2": 1e-4,
}  # fmt: skip
NO_CD = {"CD1_1": None, "CD1_2": None, "CD2_1": None, "CD2_2": None}
SIP = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 3, "B_ORDER": 3}
STRONG_SIP = SIP | {"A_3_0": 2e-4, "B_0_3": 2e-4}
CDELT = NO_CD | {"CDELT1": -1e-4, "CDELT2": 1e-4}
TPV = {"PV1_1": 1.0, "PV2_1": 1.0, "PV1_4": 0.5, "PV2_7": 30.0}
CONVENTIONS = {
    "plain": {},
    "declination first": {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": 20.0, "CRVAL2": 150.0},
    "galactic": {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"},
    "galactic, latitude first": {"CTYPE1": "GLAT-CAR", "CTYPE2": "GLON-CAR", "CRVAL1": 20.0, "CRVAL2": 150.0},
    "ecliptic": {"CTYPE1": "ELON-TAN", "CTYPE2": "ELAT-TAN"},
    "FK5": {"RADESYS": "FK5", "EQUINOX": 2000.0},
    "FK5 of another equinox": {"RADESYS": "FK5", "EQUINOX": 1975.0},
    "B1950 under the old names": {"RADECSYS": "FK4", "EPOCH": 1950.0},
    "B1950 by its equinox alone": {"EQUINOX": 1950.0},
    "old rotation": CDELT | {"CROTA2": 33.0},
    "old matrix": CDELT | {"PC001001": 0.9, "PC001002": 0.1, "PC002001": -0.1, "PC002002": 0.9},
    "arcseconds": CDELT
    | {"CDELT1": -0.36, "CDELT2": 0.36, "CRVAL1": 5.4e5, "CRVAL2": 7.2e4}
    | {"CUNIT1": "arcsec", "CUNIT2": "arcsec"},
    "degree": {"CUNIT1": "degree", "CUNIT2": "DEGREES"},
    "zenithal": {"CTYPE1": "RA---ZPN", "CTYPE2": "DEC--ZPN", "PV2_1": 1.0, "PV2_3": 42.0},
    "all-sky": CDELT | {"CTYPE1": "RA---AIT", "CTYPE2": "DEC--AIT", "CRVAL2": 0.0, "CDELT1": -3.5, "CDELT2": 3.5},
    "SIP": SIP | {"A_3_0": 1e-6, "B_0_3": 1e-6, "A_1_1": 1e-5},
    "SIP beyond fixed points": STRONG_SIP,
    "TPV": TPV | {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV"},
    "SCAMP's TAN": TPV,
    "axes of length 1": {"NAXIS": 4, "NAXIS3": 1, "NAXIS4": 1, "CTYPE3": "STOKES", "CTYPE4": "FREQ", "CRVAL4": 1.4e9},
}


def header_of(changes):
    return fits.Header({key: value for key, value in (PLAIN | changes).items() if value is not None})


def pixels_inside():
    return (grid.ravel() for grid in np.meshgrid(np.linspace(0, WIDTH - 1, 7), np.linspace(0, HEIGHT - 1, 5)))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_positions_are_within_a_tenth_of_a_pixel(tmp_path, convention):
    """Against astropy's high-level interface, which knows axes, units and frames by itself."""
    header = header_of(CONVENTIONS[convention])
    x_px, y_px = pixels_inside()
    truth = WCS(header).celestial.pixel_to_world(x_px, y_px).icrs
    on_sky = np.isfinite(truth.ra.deg)  # the corners of an all-sky map are not
    astrometry = read_astrometry(tmp_path, header)
    found = astrometry.to_pixels(truth.ra.deg[on_sky], truth.dec.deg[on_sky])
    assert np.hypot(found[0] - x_px[on_sky], found[1] - y_px[on_sky]).max() < 0.1
    ra_deg, dec_deg = (place[on_sky] for place in astrometry.to_sky(x_px, y_px))
    again = astrometry.to_pixels(ra_deg, dec_deg)
    assert np.hypot(again[0] - x_px[on_sky], again[1] - y_px[on_sky]).max() < 0.1
    assert np.abs(dec_deg - truth.dec.deg[on_sky]).max() < 1e-7


def test_the_sky_frame_matters():
    """The test above can tell: the same numbers in another frame are degrees away."""
    places = [read_astrometry("m", header_of(CONVENTIONS[name])).to_sky(9.0, 9.0) for name in ("plain", "galactic")]
    assert abs(places[0][1] - places[1][1]) > 1


def test_a_folded_distortion_has_no_pixel_and_no_traceback():
    fold = {"A_2_0": -0.05, "B_0_2": -0.05, "A_3_0": 0.0, "B_0_3": 0.0}
    astrometry = read_astrometry("m", header_of(STRONG_SIP | fold))
    places = astrometry.to_pixels(np.array([150.0, 151.0, 330.0]), np.array([20.0, 21.0, -20.0]))
    assert np.hypot(places[0][0] - 59, places[1][0] - 49) < 0.1
    assert np.isnan(places[0][1:]).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"},
        {"CTYPE1": "RA---TAN", "CTYPE2": "RA---TAN"},
        {"CD1_1": 1e-4, "CD1_2": 1e-4, "CD2_1": 1e-4, "CD2_2": 1e-4},
        {"CRVAL1": "abc"},
        {"CUNIT1": "m", "CUNIT2": "m"},
        {"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"},
        {"CPDIS1": "LOOKUP", "DP1": "NAXES: 2"},
        {"CTYPE1": "SLON-TAN", "CTYPE2": "SLAT-TAN"},
        {"A_ORDER": "x", "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"},
        {"RADESYS": "nonsense"},
    ],
)
def test_what_astropy_does_not_know_is_one_line(changes):
    with pytest.raises(DataError, match="sky coordinates") as error:
        read_astrometry("m.fits", header_of(changes))
    assert "\n" not in str(error.value)


# ---- units ----

AREA = (0.2 * units.arcsec) ** 2


@pytest.mark.parametrize(
    ("unit", "nmgy"),
    [
        *[(unit, 1) for unit in ("nanomaggy", "Nanomaggies", "NANOMAGGY", "nmgy", "NMGY", "nMgy", "nanomaggy/pixel")],
        ("maggies", 1e9),
        ("nJy", 10 ** (-0.4 * (31.4 - 22.5))),
        ("uJy", 10 ** (-0.4 * (23.9 - 22.5))),
        ("Jy", 10 ** (-0.4 * (8.9 - 22.5))),
        ("erg/s/cm2/Hz", 10 ** (-0.4 * (-48.6 - 22.5))),
        ("MJy/sr", 10 ** (-0.4 * (8.9 - 22.5)) * 1e6 * AREA.to_value("sr")),
        ("nmgy/arcsec2", AREA.to_value("arcsec2")),
    ],
)
def test_units_of_flux(unit, nmgy):
    assert scale_of("m", fits.Header({"BUNIT": unit}), 0.2, None) == pytest.approx(nmgy, rel=1e-3)


@pytest.mark.parametrize(
    ("keys", "zero_point"),
    [
        ({"BUNIT": "adu", "MAGZERO": 25.1}, 25.1),
        ({"MAGZP": "26.3"}, 26.3),
        ({"BUNIT": "counts", "PHOTZP": 30}, 30),
        ({"FLUXMAG0": 63095734448.0}, 27),
        ({"BUNIT": "ELECTRONS/S", "PHOTFLAM": 7.0723600e-20, "PHOTPLAM": 8045.0}, 25.9406),  # ACS F814W
    ],
)
def test_zero_points_of_headers(keys, zero_point):
    assert scale_of("m", fits.Header(keys), 0.2, None) == pytest.approx(10 ** (-0.4 * (zero_point - 22.5)), rel=2e-3)
    assert scale_of("m", fits.Header(keys), 0.2, 20.0) == pytest.approx(10)  # what a person says comes first


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "BUNIT is ''"),
        ({"BUNIT": "adu"}, "BUNIT is 'adu', and nothing in its header turns that into flux; give zero_points"),
        ({"BUNIT": "mag(AB)"}, "BUNIT is 'mag"),
        ({"BUNIT": "Jy/beam"}, "BUNIT is 'Jy/beam'"),
        ({"BUNIT": "electrons", "PHOTFLAM": 7e-20, "PHOTPLAM": 8045.0}, "BUNIT is 'electrons'"),  # of how many seconds?
        ({"MAGZERO": "bright"}, "no number MAGZERO"),
        ({"FLUXMAG0": 0.0}, "BUNIT is ''"),
    ],
)
def test_pixels_of_unknown_unit_are_one_line(keys, message):
    with pytest.raises(DataError, match=r"m\.fits") as error:
        scale_of("m.fits", fits.Header(keys), 0.2, None)
    assert message in str(error.value)


# ---- filters ----


@pytest.mark.parametrize(
    ("text", "bands", "band"),
    [
        ("g", "gri", "g"),
        ("g DECam SDSS c0001 4720.0 1520", "gri", "g"),
        ("HSC-G", "gri", "g"),
        ("G", "gri", "g"),
        ("r.00000", "gri", "r"),
        ("i.MP9702", "gri", "i"),
        ("SDSS r'", "gri", "r"),
        ("R", "rR", "R"),
        ("R", "BV", "R"),  # a standard band that the project does not have
        ("u DECam", "gri", "u"),
        ("F814W", "gri", "i"),  # by the map
        ("Halpha", "gri", None),
        ("", "gri", None),
    ],
)
def test_filters_as_observatories_write_them(text, bands, band):
    reading = Reading(tuple(bands), bands[0], filters={"F814W": "i"} if "i" in bands else {})
    assert band_of(fits.Header({"FILTER": text}), reading) == band
    assert band_of(fits.Header({"FILTER1": "CLEAR1L", "FILTER2": text}), reading) == band


@pytest.mark.parametrize(
    ("name", "text", "identity"),
    [
        ("m31-g.fits.fz", None, Identity("m31", "g")),
        ("M31_G.FIT", "g", Identity("M31", "g")),
        ("M31_R.fts.gz", None, Identity("M31", "r")),
        ("hst_10775_f814w_drz.fits", "F814W", Identity("hst_10775_drz", "i")),
        ("image.fits", "HSC-R", Identity("image", "r")),
        ("image.fits", "Halpha", Identity("image", "Halpha")),
        ("frame-r-001000-2-0012.fits.bz2", None, Identity("001000-2-0012", "r", (1000, 2, 12))),
    ],
)
def test_identities(tmp_path, name, text, identity):
    reading = Reading(("g", "r", "i"), "r", filters={"F814W": "i"})
    header = fits.Header({} if text is None else {"FILTER": text})
    assert identify(tmp_path / name, reading, lambda: header) == identity


# ---- files ----


def test_compressed_tiles_read_as_what_they_were(tmp_path):
    flux = np.random.default_rng(1).normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32)
    primary = fits.PrimaryHDU()
    primary.header["FILTER"], primary.header["BUNIT"] = "g DECam", "adu"
    image = fits.CompImageHDU(flux, frame_wcs("g").to_header(), compression_type="GZIP_1", quantize_level=0)
    fits.HDUList([primary, image]).writeto(tmp_path / "m1-g.fits.fz")
    reading = Reading(("g",), "g", zero_points={"g": 20.0})
    frame = read_frame(tmp_path / "m1-g.fits.fz", "g", reading)
    assert np.allclose(frame.flux_nmgy, flux * 10, rtol=1e-6)
    assert read_outline(tmp_path / "m1-g.fits.fz", "g", reading).shape == (HEIGHT, WIDTH)
    with pytest.raises(DataError, match="its header says FILTER g DECam, not r"):
        read_frame(tmp_path / "m1-g.fits.fz", "r", Reading(("g", "r"), "r", zero_points={"r": 20.0}))


def test_a_changed_pixel_is_told_by_its_sum(tmp_path):
    path = write_frame(tmp_path / "m1-g.fits", np.ones((HEIGHT, WIDTH), np.float32), frame_wcs("g"))
    with fits.open(path) as hdus:
        hdus.writeto(tmp_path / "m2-g.fits", checksum=True)
    content = bytearray((tmp_path / "m2-g.fits").read_bytes())
    read_frame(tmp_path / "m2-g.fits", "g")
    content[-2880] ^= 1
    (tmp_path / "m2-g.fits").write_bytes(content)
    with pytest.raises(DataError, match="do not add up to its DATASUM"):
        read_frame(tmp_path / "m2-g.fits", "g")


@pytest.mark.parametrize("name", ["/dev/zero", "pipe-g.fits"])
def test_what_is_no_file_is_not_read(tmp_path, name):
    import os

    if not name.startswith("/"):
        os.mkfifo(tmp_path / name)
    for read in (read_header, lambda path: read_frame(path, "g")):
        with pytest.raises(DataError, match="is no file"):
            read(tmp_path / name)
