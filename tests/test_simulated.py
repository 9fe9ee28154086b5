import bz2
import io
import warnings
from functools import cache

import cv2
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.stats import sigma_clipped_stats
from astropy.wcs import WCS, FITSFixedWarning
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter, zoom

from deepsky.catalogue.survey import BANDS, FRAME_SHAPE, PIXEL_ARCSEC
from deepsky.errors import DataError
from deepsky.simulation.archive import SimulatedArchive
from deepsky.simulation.fields import frame_wcs
from deepsky.simulation.frames import DETECTORS, expose
from deepsky.simulation.jpegs import SDSS_CHANNELS, stretch
from deepsky.simulation.light import SDSS_SEEING_ARCSEC
from deepsky.simulation.params import CatalogueParams
from deepsky.simulation.sky import CLASSES

PARAMS = CatalogueParams("simulated", seed=5, n_fields=4, n_per_class_per_field=13)
# The survey's typical sky noise, nanomaggies per pixel, and the median seeing of 19,022 objects.
TYPICAL_NOISE_NMGY = {"u": 0.041, "g": 0.018, "r": 0.027, "i": 0.043, "z": 0.152}
TYPICAL_SEEING_ARCSEC = {"u": 1.37, "g": 1.27, "r": 1.15, "i": 1.08, "z": 1.10}
REAL_FIELD = "sdss_frames/003918-3-0213"


@pytest.fixture(scope="module")
def archive():
    return SimulatedArchive(PARAMS)


@pytest.fixture(scope="module")
def key(archive):
    """The first field: the lower one of an overlapping pair."""
    return next(iter(archive.fields))


@pytest.fixture(scope="module")
def frames(archive, key):
    return {band: fits.open(io.BytesIO(bz2.decompress(archive.frame(*key, band)))) for band in BANDS}


@cache
def read_frame(path):
    return fits.open(io.BytesIO(bz2.decompress(path.read_bytes())))


def wcs_of(header):
    with warnings.catch_warnings():  # real headers spell RADESYS in the old way, and so do ours
        warnings.simplefilter("ignore", FITSFixedWarning)
        return WCS(header)


def stamp(image, x, y, half=12):
    column, row = round(float(x)), round(float(y))
    return image[row - half : row + half + 1, column - half : column + half + 1].astype(float)


def gaussian_fit(cutout):
    """Centre (x, y) and FWHM in pixels by adaptive Gaussian moments."""
    y, x = np.mgrid[: cutout.shape[0], : cutout.shape[1]]
    centre_y, centre_x = np.unravel_index(cutout.argmax(), cutout.shape)
    variance = 2.0
    for _ in range(40):
        weight = cutout * np.exp(-((x - centre_x) ** 2 + (y - centre_y) ** 2) / (2 * variance))
        centre_x, centre_y = (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()
        seen = (weight * ((x - centre_x) ** 2 + (y - centre_y) ** 2)).sum() / weight.sum() / 2
        variance = 1 / (1 / seen - 1 / variance) if seen < variance else 1.3 * variance
    return centre_x, centre_y, 2.355 * variance**0.5


def half_maximum_width(cutout):
    """FWHM in pixels: of the disc as large as the area above half the peak, in the middle of a finer grid."""
    fine = zoom(cutout, 8, order=3, grid_mode=True, mode="nearest")
    middle = fine.shape[0] // 2
    core = fine[middle - 24 : middle + 24, middle - 24 : middle + 24]
    return 2 * np.sqrt((core > core.max() / 2).sum() / np.pi) / 8


def sky_noise(image):
    return sigma_clipped_stats(np.asarray(image[100:1400, 100:1900:3], float), sigma=3)[2]


def n_detected(image):
    """Count the peaks above five sigma, smoothed by about the seeing."""
    smooth = gaussian_filter(np.asarray(image, float), 1.4)
    sigma = 1.4826 * np.median(np.abs(smooth - np.median(smooth)))
    return int(((maximum_filter(smooth, 7) == smooth) & (smooth - np.median(smooth) > 5 * sigma)).sum())


def isolated(archive, key, band, labels, *, brightest=16.0, faintest=19.0):
    """Catalogued sources of a field, far from its edges, with their pixel places in one band."""
    sources = archive.sources(*key)
    sources = sources[sources["catalogued"] & sources["class"].isin(labels)]
    x, y = frame_wcs(archive.fields[key], band).wcs_world2pix(sources[["ra", "dec"]], 0).T
    inside = (x > 40) & (x < FRAME_SHAPE[1] - 40) & (y > 40) & (y < FRAME_SHAPE[0] - 40)
    keep = inside & sources["r"].between(brightest, faintest).to_numpy()
    return sources[keep].assign(x=x[keep], y=y[keep])


def test_frames_are_laid_out_like_the_survey(frames, archive, key):
    run, camcol, field = key
    for band, hdus in frames.items():
        image, calibration, sky, astrans = hdus
        assert image.data.dtype == np.dtype(">f4")
        assert image.data.shape == FRAME_SHAPE
        assert calibration.data.shape == (2048,)
        assert sky.data["ALLSKY"].shape == (1, 192, 256)
        assert astrans.data["FILTER"][0] == band
        bits = np.ascontiguousarray(image.data, np.float32).view(np.uint32)
        assert not (bits & 0x3FFF).any()  # 10 significant binary digits
        header = image.header
        expected = {"RUN": run, "CAMCOL": camcol, "FILTER": band, "RERUN": "301", "BUNIT": "nanomaggy"}
        expected |= {"CRPIX1": 1025.0, "CRPIX2": 745.0, "CTYPE1": "RA---TAN", "EXPTIME": "53.907456"}
        assert {name: header[name] for name in expected} == expected
        assert header["NMGY"] == pytest.approx(calibration.data.mean(), rel=1e-4)
        assert calibration.data.std() > 0
    shifts = [frames[band][0].header["FRAME"] - field for band in BANDS]
    assert shifts == [4, 8, 0, 2, 6]


def test_pixels_are_whole_counts(frames):
    image, calibration, sky, _ = frames["r"]
    table = sky.data[0]
    rows, columns = np.meshgrid(table["YINTERP"], table["XINTERP"], indexing="ij")
    level = map_coordinates(table["ALLSKY"].astype(float), [rows, columns], order=1, mode="nearest")
    counts = image.data / calibration.data + level
    assert np.abs(counts - np.round(counts))[np.abs(image.data) < 0.1].max() < 0.04


@pytest.mark.parametrize("band", BANDS)
def test_sky_noise_is_the_typical_one(frames, band):
    image = frames[band][0].data
    assert sky_noise(image) == pytest.approx(TYPICAL_NOISE_NMGY[band], rel=0.10)
    assert DETECTORS[band].noise_nmgy == pytest.approx(TYPICAL_NOISE_NMGY[band], rel=0.02)
    assert abs(np.median(image)) < 0.2 * TYPICAL_NOISE_NMGY[band]


@pytest.mark.real
@pytest.mark.parametrize("band", BANDS)
def test_frames_show_about_as_many_sources_as_a_real_one(frames, real_data, band):
    real = read_frame(real_data(f"{REAL_FIELD}/frame-{band}-003918-3-0213.fits.bz2"))
    assert 0.35 < n_detected(frames[band][0].data) / n_detected(real[0].data) < 1.5


def test_light_brings_its_own_noise(archive, key):
    """Two exposures of an even light differ by the photons of light and sky together."""
    field, light_nmgy = archive.fields[key], 2.0
    wcs = frame_wcs(field, "r")
    light = np.full(FRAME_SHAPE, light_nmgy, np.float32)
    image = fits.open(io.BytesIO(bz2.decompress(expose(light, field, "r", wcs, np.random.default_rng(1)))))[0].data
    detector = DETECTORS["r"]
    counts = (light_nmgy + detector.sky_nmgy) / detector.nmgy_per_count
    expected = detector.nmgy_per_count * (counts / detector.gain + detector.dark_variance) ** 0.5
    assert sky_noise(image) == pytest.approx(expected, rel=0.04)
    assert expected > 1.5 * detector.noise_nmgy
    assert image.mean() == pytest.approx(light_nmgy, rel=0.002)


@pytest.mark.parametrize("band", BANDS)
def test_point_sources_have_the_width_of_the_seeing(archive, key, frames, band):
    points = isolated(archive, key, band, ["STAR", "QSO"])
    image = frames[band][0].data
    cutouts = [stamp(image, x, y) for x, y in zip(points["x"], points["y"], strict=True)]
    bright = [cutout for cutout in cutouts if cutout.max() > 25 * TYPICAL_NOISE_NMGY[band]]
    assert len(bright) >= 3
    widths = [half_maximum_width(cutout) * PIXEL_ARCSEC for cutout in bright]
    assert np.median(widths) == pytest.approx(archive.seeing(*key)[band].fwhm_arcsec, rel=0.05)


def test_seeing_scatters_about_the_measured_medians():
    fields = SimulatedArchive(CatalogueParams("simulated", 1, 200, 1))
    nights = [fields.seeing(*key) for key in fields.fields]
    for band in BANDS:
        fwhm_arcsec = [night[band].fwhm_arcsec for night in nights]
        assert np.median(fwhm_arcsec) == pytest.approx(TYPICAL_SEEING_ARCSEC[band], rel=0.05)
    low, high = np.percentile([night["r"].fwhm_arcsec for night in nights], [16, 84])
    assert 0.93 < low < 1.05
    assert 1.25 < high < 1.40


def test_objects_stand_where_the_wcs_says_in_every_band(archive, key, frames):
    shifts = []
    for band in BANDS:
        points = isolated(archive, key, band, ["STAR", "QSO"], faintest=17.8)
        wcs = wcs_of(frames[band][0].header)
        x, y = wcs.all_world2pix(points[["ra", "dec"]], 0).T
        offsets = []
        for column, row in zip(x, y, strict=True):
            centre_x, centre_y, _ = gaussian_fit(stamp(frames[band][0].data, column, row))
            offsets.append((centre_x - 12 + round(column) - column, centre_y - 12 + round(row) - row))
        assert np.abs(np.median(offsets, axis=0)).max() < 0.1
        reference = isolated(archive, key, "r", ["STAR", "QSO"], faintest=17.8)
        shifts.append(np.hypot(points["x"] - reference["x"], points["y"] - reference["y"]).max())
    assert max(shifts) > 4  # the bands of one field are not aligned
    north = np.linalg.inv(wcs.wcs.cd) @ [0, 1]
    assert abs(north[0]) > 0.05 * abs(north[1])  # nor north-up


def test_quasars_and_stars_differ_by_colour_only_and_galaxies_in_size(archive, key, frames):
    widths = {}
    for label in CLASSES:
        sources = isolated(archive, key, "r", [label], faintest=18.5)
        image = frames["r"][0].data
        widths[label] = np.median(
            [gaussian_fit(stamp(image, *place))[2] for place in zip(sources["x"], sources["y"], strict=True)]
        )
    assert widths["QSO"] == pytest.approx(widths["STAR"], rel=0.05)
    assert widths["GALAXY"] > 1.3 * widths["STAR"]


@pytest.mark.parametrize("band", ["g", "z"])
def test_frames_hold_the_light_that_the_truth_says(archive, key, frames, band):
    ratios = []
    for source in isolated(archive, key, band, CLASSES, faintest=17.8).to_dict("records"):
        cutout = stamp(frames[band][0].data, source["x"], source["y"], half=18)
        ratios.append(cutout.sum() / 10 ** (-0.4 * (source[band] - 22.5)))
    assert len(ratios) > 8
    assert np.median(ratios) == pytest.approx(1, abs=0.05)


def test_neighbouring_fields_show_the_same_objects(archive, key, frames):
    run, camcol, field = key
    upper = archive.fields[run, camcol, field + 1]
    image = fits.open(io.BytesIO(bz2.decompress(archive.frame(*upper.key, "r"))))[0].data
    sources = archive.sources(*key)
    sources = sources[sources["r"].between(16, 20.5)]
    low = frame_wcs(archive.fields[key], "r").wcs_world2pix(sources[["ra", "dec"]], 0)
    high = frame_wcs(upper, "r").wcs_world2pix(sources[["ra", "dec"]], 0)
    shared = (low[:, 1] < 1470) & (high[:, 1] > 20) & (low[:, 0] > 30) & (low[:, 0] < 2018)
    assert shared.sum() >= 3
    assert np.abs(low[shared] - high[shared] - [0, 1361]).max() < 4
    for below, above in zip(low[shared], high[shared], strict=True):
        fluxes = [stamp(data, *place, half=6).sum() for data, place in ((frames["r"][0].data, below), (image, above))]
        assert fluxes[0] == pytest.approx(fluxes[1], rel=0.25, abs=2)
    noise = frames["r"][0].data[1365:1485, 100:1900], image[4:124, 100:1900]
    correlation = np.corrcoef(np.clip(noise[0], -0.05, 0.05).ravel(), np.clip(noise[1], -0.05, 0.05).ravel())[0, 1]
    assert abs(correlation) < 0.1  # two exposures, not one cut in two


def test_a_frame_does_not_depend_on_what_was_asked_before(archive, key):
    first = archive.frame(*key, "g")
    assert SimulatedArchive(PARAMS).frame(*key, "g") == first


def test_unknown_field_is_refused(archive):
    with pytest.raises(DataError, match="no such field"):
        archive.frame(1, 1, 1, "r")


def decode(jpeg):
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def serve(archive, service, ra_deg, dec_deg):
    if service == "sdss":
        return archive.sdss_jpeg(ra_deg, dec_deg, scale=0.4, width=240, height=240)
    return archive.panstarrs_jpeg(ra_deg, dec_deg, size=240)


@pytest.mark.parametrize("service", ["sdss", "panstarrs"])
def test_jpegs_show_the_object_in_the_middle_north_up(archive, key, service):
    pixel_arcsec = {"sdss": 0.4, "panstarrs": 0.25}[service]
    for source in isolated(archive, key, "r", ["STAR", "GALAXY"], faintest=18.5).to_dict("records")[:6]:
        ra_deg, dec_deg = source["ra"], source["dec"]
        assert serve(archive, service, ra_deg, dec_deg) == serve(archive, service, ra_deg, dec_deg)
        picture = decode(serve(archive, service, ra_deg, dec_deg))
        assert picture.shape == (240, 240, 3)
        middle = picture[108:132, 108:132].astype(float).sum(axis=-1)
        x, y, _ = gaussian_fit(np.clip(middle - np.median(picture.sum(axis=-1)), 0, None))
        assert (x, y) == pytest.approx((11.5, 11.5), abs=0.6)
        # Aimed 10 arcsec south and west, the object appears above and to the left: north up, east left.
        aside = decode(
            serve(archive, service, ra_deg - 10 / 3600 / np.cos(np.radians(dec_deg)), dec_deg - 10 / 3600)
        ).astype(float)
        shift = round(10 / pixel_arcsec)
        found = aside.sum(axis=-1)[120 - shift - 8 : 120 - shift + 8, 120 - shift - 8 : 120 - shift + 8]
        assert found.max() > 0.8 * middle.max()


@pytest.mark.parametrize("service", ["sdss", "panstarrs"])
def test_jpeg_colours_follow_the_classes(archive, key, service):
    blueness = {}
    for label in ("GALAXY", "QSO"):
        sources = isolated(archive, key, "r", [label]).to_dict("records")
        middles = [decode(serve(archive, service, s["ra"], s["dec"]))[117:123, 117:123].mean((0, 1)) for s in sources]
        blueness[label] = np.median([middle[2] / middle[0] for middle in middles])
    assert blueness["QSO"] > 1.3 * blueness["GALAXY"]


def test_services_look_through_their_own_air(archive, key):
    source = isolated(archive, key, "r", ["STAR"]).iloc[0]
    corner = [
        decode(serve(archive, service, source["ra"], source["dec"]))[:40, :40] for service in ("sdss", "panstarrs")
    ]
    assert not np.array_equal(*corner)


@pytest.mark.real
@pytest.mark.parametrize("band", BANDS)
def test_layout_is_that_of_a_real_frame(frames, real_data, band):
    ours = frames[band]
    real = read_frame(real_data(f"{REAL_FIELD}/frame-{band}-003918-3-0213.fits.bz2"))
    assert len(ours) == len(real)
    for mine, theirs in zip(ours, real, strict=True):
        assert type(mine) is type(theirs)
    assert ours[0].data.dtype == real[0].data.dtype
    assert ours[0].data.shape == real[0].data.shape
    keys = [key for key in real[0].header if key in ours[0].header and key]
    assert list(ours[0].header) == keys  # none invented, and in the same order
    for key in keys:
        assert type(ours[0].header[key]) is type(real[0].header[key]), key
    for key in ("CAMROW", "EXPTIME", "BUNIT", "FILTER", "CRPIX1", "CRPIX2", "CTYPE1", "RERUN"):
        assert ours[0].header[key] == real[0].header[key]
    assert ours[0].header["FRAME"] % 1000 - ours[3].data["FIELD"][0] == real[0].header["FRAME"] - 213
    for number in (1, 2, 3):
        assert ours[number].data.dtype == real[number].data.dtype
    assert list(ours[2].columns.names) == list(real[2].columns.names)
    np.testing.assert_array_equal(ours[2].data["XINTERP"], real[2].data["XINTERP"])
    np.testing.assert_array_equal(ours[2].data["YINTERP"], real[2].data["YINTERP"])
    assert sky_noise(ours[0].data) == pytest.approx(sky_noise(real[0].data), rel=0.30)


@pytest.mark.real
def test_seeing_and_profile_are_those_of_real_stars(archive, key, frames, real_data):
    labels = pd.read_csv(real_data(f"{REAL_FIELD}/star_galaxy_labels_x_lt_1228.csv"))
    stars = labels.loc[labels["class"] == "star", ["x", "y"]].to_numpy()
    hdus = read_frame(real_data(f"{REAL_FIELD}/frame-r-003918-3-0213.fits.bz2"))
    places = wcs_of(hdus[0].header).all_pix2world(stars, 0)
    for band in BANDS:
        hdus = read_frame(real_data(f"{REAL_FIELD}/frame-{band}-003918-3-0213.fits.bz2"))
        real, wcs = hdus[0].data, wcs_of(hdus[0].header)
        theirs = profile_of(real, wcs.all_world2pix(places, 0), TYPICAL_NOISE_NMGY[band])
        points = isolated(archive, key, band, ["STAR", "QSO"], faintest=18.5)
        ours = profile_of(frames[band][0].data, points[["x", "y"]].to_numpy(), TYPICAL_NOISE_NMGY[band])
        assert theirs[0] == pytest.approx(SDSS_SEEING_ARCSEC[band], rel=0.12)
        assert ours[1] == pytest.approx(theirs[1], abs=0.06)


def profile_of(image, places, noise):
    """Median FWHM in arcsec of the bright stars at (x, y), and the share of light within 1 FWHM of that within 4."""
    widths, shares = [], []
    y, x = np.mgrid[:31, :31]
    for column, row in places:
        if not (20 < column < FRAME_SHAPE[1] - 20 and 20 < row < FRAME_SHAPE[0] - 20):
            continue
        cutout = stamp(image, column, row, half=15)
        if cutout.max() < 40 * noise or cutout[13:18, 13:18].max() < cutout.max():
            continue
        centre_x, centre_y, _ = gaussian_fit(cutout)
        fwhm_px = half_maximum_width(cutout)
        radius = np.hypot(x - centre_x, y - centre_y)
        widths.append(fwhm_px * PIXEL_ARCSEC)
        shares.append(cutout[radius < fwhm_px].sum() / cutout[radius < 4 * fwhm_px].sum())
    assert len(widths) >= 3
    return np.median(widths), np.median(shares)


@pytest.mark.real
def test_colour_recipe_reproduces_the_surveys_own_picture(real_data):
    jpeg = cv2.imread(str(real_data(f"{REAL_FIELD}/frame-irg-003918-3-0213.jpg")))[::-1, :, ::-1] / 255
    rows, columns = slice(600, 1200), slice(600, 1400)
    y, x = np.mgrid[rows, columns]
    planes, reference, flux_r = [], None, None
    for channel in sorted(SDSS_CHANNELS, key=lambda channel: "rig".index(channel.band)):
        hdus = read_frame(real_data(f"{REAL_FIELD}/frame-{channel.band}-003918-3-0213.fits.bz2"))
        image, wcs = hdus[0].data.astype(np.float32), wcs_of(hdus[0].header)
        reference = reference or wcs
        places = reference.wcs_pix2world(np.c_[x.ravel(), y.ravel()], 0)
        place_x, place_y = wcs.wcs_world2pix(places, 0).T
        planes.append(map_coordinates(image, [place_y, place_x], order=1).reshape(x.shape))
    flux_r = planes[0]
    scales = {channel.band: channel.scale for channel in SDSS_CHANNELS}
    ours = stretch(np.stack([plane * scales[b] for plane, b in zip(planes, "rig", strict=True)], -1)[..., [1, 0, 2]])
    for low, high in ((0.15, 0.25), (0.4, 0.6), (1.0, 2.0)):
        chosen = (flux_r > low) & (flux_r < high)
        assert (
            np.abs(np.median(ours[chosen] / 255, axis=0) - np.median(jpeg[rows, columns][chosen], axis=0)).max() < 0.03
        )
