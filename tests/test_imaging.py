import bz2

import cv2
import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import ICRS
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepsky.errors import DataError
from deepsky.imaging.astrometry import Astrometry, is_inside, read_astrometry
from deepsky.imaging.badfiles import BadFiles
from deepsky.imaging.composite import affine_between, align
from deepsky.imaging.conditions import conditions_of
from deepsky.imaging.cutouts import cut_objects
from deepsky.imaging.fields import FieldSearch, SkyField, assign_fields, read_field, require_bands
from deepsky.imaging.frame_names import band_of
from deepsky.imaging.frames import read_frame, read_header
from deepsky.imaging.lupton import lupton_rgb
from deepsky.imaging.params import Reading
from deepsky.imaging.stretch import StretchLimits, asinh_stretch, shrink_to_plot, sky_limits, to_gray
from tests.small_frames import HEIGHT, OFFSETS_PX, WIDTH, frame_wcs, star_frame, write_field, write_frame

FLUX = np.arange(HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
REAL = "sdss_frames/003918-3-0213"


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.count(";") >= 1  # the remedy
    return text


# ---- frames ----


@pytest.mark.parametrize("suffix", [".fits", ".fits.bz2", ".fits.gz"])
@pytest.mark.parametrize("unit", ["nanomaggy", "nanomaggies"])
def test_frame_reads_back(tmp_path, suffix, unit):
    path = write_frame(tmp_path / f"frame{suffix}", FLUX, frame_wcs("g"), FILTER="g", BUNIT=unit)
    frame = read_frame(path, band="g")
    assert frame.flux_nmgy.dtype == np.float32
    assert np.array_equal(frame.flux_nmgy, FLUX)
    assert frame.astrometry.pixel_scale_arcsec == pytest.approx(0.396, rel=1e-6)
    assert read_header(path)["FILTER"] == "g"


def test_frame_in_the_second_hdu(tmp_path):
    path = tmp_path / "frame.fits"
    image = fits.ImageHDU(FLUX, frame_wcs("g").to_header())
    image.header["BUNIT"] = "nanomaggy"
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
    assert np.array_equal(read_frame(path, band="g").flux_nmgy, FLUX)
    assert read_header(path)["NAXIS1"] == WIDTH


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"BUNIT": "counts"}, "BUNIT is 'counts'"),
        ({"BUNIT": None}, "BUNIT is ''"),
        ({"FILTER": "z"}, "its header says FILTER z, not g"),
        ({"RUN": 7}, "its header says RUN 7, not 1000"),
        ({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, "no sky coordinates"),
        ({"CTYPE1": None}, "sky coordinates"),
    ],
)
def test_wrong_header_is_refused(tmp_path, change, message):
    path = write_frame(tmp_path / "frame.fits.bz2", FLUX, frame_wcs("g"), **{"FILTER": "g", "RUN": 1000} | change)
    with pytest.raises(DataError, match=r"frame\.fits\.bz2") as error:
        read_frame(path, "g", sdss=(1000, 2, 12))
    assert message in one_line(error)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_pixel_is_named(tmp_path, value):
    flux = FLUX.copy()
    flux[5, 7] = flux[60, 2] = value
    path = write_frame(tmp_path / "frame.fits", flux, frame_wcs("g"))
    with pytest.raises(DataError, match=r"row 5, column 7.* first of 2") as error:
        read_frame(path, band="g")
    one_line(error)


@pytest.mark.parametrize(
    ("suffix", "damage", "message"),
    [
        (".fits.bz2", lambda content: content[: len(content) // 2], "cannot be decompressed"),
        (".fits.bz2", lambda content: b"not bzip2" + content, "cannot be decompressed"),
        (".fits.gz", lambda content: content[: len(content) // 2], "cannot be decompressed"),
        (".fits", lambda content: content[:9000], "cut short"),
        (".fits", lambda content: content[:100], "not a readable FITS"),
        (".fits", lambda content: b"<html>503</html>", "not a FITS file"),
        (".fits.bz2", lambda content: bz2.compress(b"<html>503</html>"), "not a FITS file"),
        (".fits", lambda content: b"", "not a FITS file"),
        (
            ".fits",
            lambda content: content.replace(b"NAXIS1  =                  128", b"NAXIS1  = 'abc'             "),
            "FITS",
        ),
        (
            ".fits",
            lambda content: content.replace(b"BITPIX  =                  -32", b"BITPIX  =                    7"),
            "damaged",
        ),
    ],
)
def test_bad_bytes_are_refused(tmp_path, suffix, damage, message):
    path = write_frame(tmp_path / f"frame{suffix}", FLUX, frame_wcs("g"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="frame") as error:
        read_frame(path, band="g")
    assert message in one_line(error)


@pytest.mark.parametrize("content", [b"", b"<html>503</html>" * 500])
def test_header_of_bad_bytes_is_refused(tmp_path, content):
    (tmp_path / "frame.fits").write_bytes(content)
    with pytest.raises(DataError, match="not a readable FITS") as error:
        read_header(tmp_path / "frame.fits")
    one_line(error)


def test_no_image_is_refused(tmp_path):
    cube = write_frame(tmp_path / "cube.fits", np.zeros((2, 8, 8), np.float32))
    with pytest.raises(DataError, match="3 axes of 8 x 8 x 2"):
        read_frame(cube, band="g")
    table = fits.BinTableHDU.from_columns([fits.Column("a", "D", array=np.arange(3.0))])
    table.writeto(tmp_path / "table.fits")
    with pytest.raises(DataError, match="a table"):
        read_frame(tmp_path / "table.fits", band="g")


# ---- stacks of Pan-STARRS ----

STACKS = "multisurvey_cutouts_ra27.95_dec0.26"
STACK = {"BUNIT": None, "EXPTIME": 43.0, "BSOFTEN": 12.5, "BOFFSET": -3.75, "HIERARCH FPA.FILTER": "r.00000"}
NMGY_PER_COUNT = 10 ** (-0.4 * 2.5) / 43  # zero points of 25 mag and, for nanomaggies, 22.5


def asinh_scaled(counts):
    """What the survey stores, by its own definition: asinh magnitudes of (counts - BOFFSET) / BSOFTEN."""
    return 2.5 / np.log(10) * np.arcsinh((counts - STACK["BOFFSET"]) / (2 * STACK["BSOFTEN"]))


def stack_counts():
    return np.random.default_rng(2).normal(0, 1, (HEIGHT, WIDTH)) * np.logspace(0, 5, WIDTH)


def test_asinh_scaled_stack_reads_back(tmp_path):
    counts = stack_counts()
    path = write_frame(tmp_path / "1-r.fits", asinh_scaled(counts), frame_wcs("r"), **STACK)
    frame = read_frame(path, band="r")
    assert frame.flux_nmgy.dtype == np.float32
    assert np.allclose(frame.flux_nmgy / NMGY_PER_COUNT, counts, rtol=1e-6, atol=1e-4)
    assert np.abs(frame.flux_nmgy / NMGY_PER_COUNT - counts).max() < 1e-6 * np.abs(counts).max()
    with pytest.raises(DataError, match=r"its header says FILTER r\.00000, not i"):
        read_frame(path, band="i")


def test_linear_stack_of_16_bits_with_a_mask(tmp_path):
    """Scaled integers with BLANK, as the survey's own files have them, and no asinh keys."""
    path, stored = tmp_path / "1-g.fits", np.arange(HEIGHT * WIDTH, dtype=np.int16).reshape(HEIGHT, WIDTH)
    hdu = fits.PrimaryHDU(stored, frame_wcs("g").to_header())
    hdu.header["HIERARCH FPA.TELESCOPE"] = "PS1"
    hdu.header["EXPTIME"] = 43.0
    hdu.writeto(path)
    content = path.read_bytes()
    keys = b"".join(b"%-80b" % card for card in (b"BSCALE  =  0.5", b"BZERO   =  10.0", b"BLANK   =  7"))
    end = content.index(b"END" + b" " * 77)
    path.write_bytes(content[:end] + keys + content[end : end + 80] + content[end + 80 + len(keys) :])
    expected = (stored * 0.5 + 10.0) * NMGY_PER_COUNT
    expected[0, 7] = 0
    assert read_frame(path, band="g").flux_nmgy == pytest.approx(expected, rel=1e-6)


def test_masked_pixels_of_a_stack_are_sky(tmp_path):
    counts = stack_counts()
    counts[: HEIGHT // 2] = np.nan
    path = write_frame(tmp_path / "1-r.fits", asinh_scaled(counts), frame_wcs("r"), **STACK)
    flux = read_frame(path, band="r").flux_nmgy
    assert (flux[: HEIGHT // 2] == 0).all()
    assert np.allclose(flux[HEIGHT // 2 :] / NMGY_PER_COUNT, counts[HEIGHT // 2 :], rtol=1e-6, atol=1e-4)
    counts[-1, -1] = np.nan
    path = write_frame(tmp_path / "2-r.fits", asinh_scaled(counts), frame_wcs("r"), **STACK)
    with pytest.raises(DataError, match=r"2-r.fits: 6145 of its 12288 pixels are masked \(NaN\)") as error:
        read_frame(path, band="r")
    one_line(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"EXPTIME": None}, "no number EXPTIME"),
        ({"EXPTIME": "NaN"}, "no number EXPTIME"),
        ({"EXPTIME": 0.0}, "EXPTIME is 0.0"),
        ({"BSOFTEN": "soft"}, "no number BSOFTEN"),
        ({"BOFFSET": None}, "BUNIT is ''"),  # one of the two keys says nothing
    ],
)
def test_stack_without_its_numbers_is_refused(tmp_path, change, message):
    path = write_frame(tmp_path / "1-r.fits", FLUX, frame_wcs("r"), **STACK)
    with fits.open(path, mode="update") as hdus:
        for key, value in change.items():
            hdus[0].header.pop(key)
            if value is not None:
                hdus[0].header[key] = value
    with pytest.raises(DataError, match=r"1-r\.fits") as error:
        read_frame(path, band="r")
    assert message in one_line(error)


def test_stack_beyond_all_numbers_is_refused(tmp_path):
    flux = np.zeros((HEIGHT, WIDTH))
    flux[3, 4] = 1e4  # 10 ** 4000
    path = write_frame(tmp_path / "1-r.fits", flux, frame_wcs("r"), **STACK)
    with pytest.raises(DataError, match=r"row 3, column 4.* is inf"):
        read_frame(path, band="r")


def photometry(frame, scale_arcsec, radius_arcsec):
    """Flux in nanomaggies around the brightest source, above the level at 20 to 28 arcsec."""
    smooth = cv2.GaussianBlur(frame.flux_nmgy, (0, 0), 1.5)
    y, x = np.unravel_index(smooth.argmax(), smooth.shape)
    rows, columns = np.indices(smooth.shape)
    distance = np.hypot(rows - y, columns - x) * scale_arcsec
    level = np.median(frame.flux_nmgy[(distance > 20) & (distance < 28)])
    return float((frame.flux_nmgy[distance < radius_arcsec] - level).sum())


@pytest.mark.real
@pytest.mark.parametrize("band", ["g", "r", "i", "z"])
def test_real_stack_has_the_flux_that_sdss_saw(real_data, band):
    path = real_data(f"{STACKS}/PS1_{band}.fits")
    assert band_of(read_header(path), Reading(("u", "g"), "g")) == band
    stack, frame = read_frame(path, band=band), read_frame(real_data(f"{STACKS}/SDSS_{band}.fits"), band=band)
    assert stack.astrometry.pixel_scale_arcsec == pytest.approx(0.25, rel=1e-4)
    for radius_arcsec in (8, 15):
        ratio = photometry(stack, 0.25, radius_arcsec) / photometry(frame, 0.396, radius_arcsec)
        assert 0.9 < ratio < 1.1
    # The galaxy that the cutouts were asked for, in their middle by the stack's own coordinates.
    x_px, y_px = stack.astrometry.to_pixels(27.952, 0.2635)
    assert (float(x_px), float(y_px)) == pytest.approx((119.5, 119.5), abs=1)


# ---- fields ----


def test_own_cutout_or_deepest_field_whatever_the_number_of_fields(tmp_path):
    """Against the plain search over all fields and objects, on frames that overlap, some around ra 0 and the pole."""
    rng, fields, rows = np.random.default_rng(7), [], []
    for number in range(24):
        centre = [(150.0, 20.0), (0.0, -5.0), (40.0, 89.99)][number % 3]
        wcs = frame_wcs("r")
        wcs.wcs.crval = [(centre[0] + rng.normal(0, 0.004)) % 360, min(centre[1] + rng.normal(0, 0.004), 90)]
        path = write_frame(tmp_path / f"f{number}-r.fits", np.zeros((HEIGHT, WIDTH), np.float32), wcs)
        fields.append(SkyField(f"f{number}", None, {"r": path}))
        for ra, dec in np.transpose(wcs.all_pix2world(rng.uniform(-60, WIDTH, 9), rng.uniform(-40, HEIGHT, 9), 0)):
            rows.append((f"o{len(rows)}", ra, dec))
    objects = pd.DataFrame(rows, columns=["id", "ra", "dec"])
    depths = []
    for field in fields:
        astrometry = read_astrometry(field.paths["r"], read_header(field.paths["r"]))
        depths.append(astrometry.depth(objects["ra"].to_numpy(), objects["dec"].to_numpy(), (HEIGHT, WIDTH)))
    expected = np.where(np.max(depths, axis=0) >= -1, np.argmax(depths, axis=0), -1)
    assert {-1, *range(5)} <= set(expected.tolist())
    second_best = (np.array(depths) >= 0) & (np.arange(len(fields))[:, np.newaxis] != expected)
    own, row = np.argwhere(second_best)[0]  # another field holds the object better, but this one is its own
    objects.loc[row, "id"], expected[row] = f"f{own}", own
    found = assign_fields(objects, fields, Reading(("r",), "r"), tmp_path / "catalogue.csv", BadFiles("stop"))
    assert np.array_equal(found, expected)


def find_fields(folder, bands, **reading):
    return FieldSearch(Reading(tuple(bands), bands[0], **reading)).below(folder)


def read_bands(folder, bands):
    return read_field(find_fields(folder, bands)[0], Reading(tuple(bands), bands[0]))


def test_fields_by_name(tmp_path):
    write_field(tmp_path, "gr", 12, [])
    fields = find_fields(tmp_path, ("g", "r"))
    assert [(field.name, field.sdss, sorted(field.paths)) for field in fields] == [
        ("001000-2-0012", (1000, 2, 12), ["g", "r"])
    ]
    assert sorted(find_fields(tmp_path, ("r",))[0].paths) == ["r"]  # other bands are left alone
    with pytest.raises(DataError, match=r"001000-2-0012 has no frame of band u, i") as error:
        require_bands(fields[0], ("u", "g", "i"))
    one_line(error)


def test_fields_of_other_names(tmp_path):
    for name, header in [
        ("m31_g_deep.fits", {}),
        ("m31_r_deep.fits.gz", {}),
        ("g-r.fits", {}),  # the last part that is a band
        ("r.fits", {}),
        ("unnamed.fits", {"FILTER": "g"}),
        ("other.fits", {"FILTER": "Halpha"}),
    ]:
        write_frame(tmp_path / name, FLUX, frame_wcs("g"), **header)
    found = {field.name: sorted(field.paths) for field in find_fields(tmp_path, ("g", "r"))}
    assert found == {"m31_deep": ["g", "r"], "g": ["r"], "r": ["r"], "unnamed": ["g"]}


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no frames"):
        find_fields(tmp_path, ("g",))
    write_frame(tmp_path / "image.fits", FLUX, frame_wcs("g"))
    with pytest.raises(DataError, match=r"image.fits: .*which band") as error:
        find_fields(tmp_path, ("g",))
    one_line(error)
    for folder in "ab":
        write_frame(tmp_path / folder / "image-g.fits", FLUX, frame_wcs("g"))
    (tmp_path / "image.fits").unlink()
    with pytest.raises(DataError, match="second frame of band g"):
        find_fields(tmp_path, ("g",))


def test_mixed_shapes_are_refused(tmp_path):
    write_frame(tmp_path / "m31-g.fits", FLUX, frame_wcs("g"))
    write_frame(tmp_path / "m31-r.fits", FLUX[:-1], frame_wcs("r"))
    with pytest.raises(DataError, match=r"m31-r.fits: its shape \(95, 128\) differs from \(96, 128\)") as error:
        read_bands(tmp_path, "gr")
    one_line(error)


# ---- stretch ----


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(np.float32, (7, 9), elements=st.floats(-1e4, 1e4, width=32)),
    st.floats(0.001, 10),
)
def test_stretch_is_bounded_and_monotone(flux, softening):
    unit = asinh_stretch(flux, StretchLimits(-softening, softening, 1000 * softening))
    assert unit.dtype == np.float32
    assert unit.min() >= 0
    assert unit.max() <= 1
    order = np.argsort(flux, axis=None)
    assert (np.diff(unit.ravel()[order]) >= 0).all()
    assert to_gray(unit).dtype == np.uint8


def test_sky_and_width_of_stars_are_measured_wherever_in_a_pixel_they_are(tmp_path):
    rng, wcs, sigma_px = np.random.default_rng(4), frame_wcs("r"), 1.4
    places = [
        (x + rng.random(), y + rng.random()) for x in range(10, WIDTH - 10, 20) for y in range(10, HEIGHT - 10, 20)
    ]
    stars = [(*wcs.all_pix2world(x, y, 0), 50.0 + 50 * rng.random()) for x, y in places]
    flux = star_frame(wcs, stars, sigma_px=sigma_px) + np.float32(0.25)
    frame = read_frame(write_frame(tmp_path / "frame-r.fits", flux, wcs, FILTER="r"), "r")
    found = conditions_of(frame)
    assert found.sky == pytest.approx(0.25, abs=0.005)
    assert found.noise == pytest.approx(0.01, rel=0.2)
    assert found.psf == pytest.approx(2.3548 * sigma_px * 0.396, rel=0.03)
    few = read_frame(write_frame(tmp_path / "few-r.fits", star_frame(wcs, stars[:3]), wcs, FILTER="r"), "r")
    assert np.isnan(conditions_of(few).psf)


def test_stretch_refuses_bad_pixels():
    flux = np.zeros((4, 5), np.float32)
    flux[2, 3] = np.nan
    with pytest.raises(DataError, match=r"\(2, 3\) is nan"):
        asinh_stretch(flux, StretchLimits(0, 1, 2))


def test_plot_shows_the_same_gray_for_every_depth():
    sky = np.random.default_rng(1).normal(0, 0.02, (1489, 2048)).astype(np.float32)
    plots = []
    for scale in (1, 20):
        small = shrink_to_plot(sky * np.float32(scale))
        plots.append(to_gray(asinh_stretch(small, sky_limits(small))))
    assert plots[0].shape == (432, 576)
    assert np.abs(plots[0].astype(int) - plots[1]).max() <= 1
    assert 10 < plots[0].mean() < 60  # noise shows, just above black


def test_shrinking_keeps_the_mean_flux():
    flux = np.zeros((1489, 2048), np.float32)
    flux[700, 900] = 100
    assert shrink_to_plot(flux).mean() == pytest.approx(flux.mean(), rel=1e-3)


# ---- colour ----


def test_lupton_is_its_formula_and_keeps_the_hue():
    flux = np.random.default_rng(2).normal(0.2, 0.3, (3, 16, 16, 3)).astype(np.float32)
    flux[0, 0, 0] = 0
    intensity = flux.mean(axis=-1, keepdims=True).astype(float)
    intensity[intensity == 0] = 1e-9
    expected = np.maximum(flux * np.arcsinh(8 * intensity / 0.5) / (8 * intensity), 0)
    expected = 255 * expected / np.maximum(expected.max(axis=-1, keepdims=True), 1)
    rgb = lupton_rgb(flux)
    assert rgb.dtype == np.uint8
    assert np.abs(rgb - expected).max() <= 0.51
    assert np.array_equal(lupton_rgb(flux[1]), rgb[1])


def test_saturated_pixels_keep_their_hue():
    ratio = np.array([1.0, 0.5, 0.25], np.float32)
    rgb = lupton_rgb(np.multiply.outer(np.array([1e3, 1e5], np.float32), ratio))
    assert rgb.tolist() == [[255, 128, 64], [255, 128, 64]]


def centroid(image, x, y, half=5):
    """Flux-weighted (x, y) offset from whole pixel (x, y)."""
    window = image[y - half : y + half + 1, x - half : x + half + 1].astype(float)
    around = image[max(y - 12, 0) : y + 13, max(x - 12, 0) : x + 13]
    window = np.clip(window - np.median(around), 0, None)
    offsets = np.arange(-half, half + 1)
    return np.array([window.sum(0) @ offsets, window.sum(1) @ offsets]) / window.sum()


STARS_PX = [(40.3, 30.8), (90.7, 60.2), (64.0, 48.0)]  # in band r


def three_bands(tmp_path):
    stars = [(*frame_wcs("r").all_pix2world(x, y, 0), 50.0) for x, y in STARS_PX]
    write_field(tmp_path, "gri", 0, stars)
    return read_bands(tmp_path, "gri"), stars


def test_bands_align_on_the_reference(tmp_path):
    frames, _ = three_bands(tmp_path)
    for band in "gi":
        moved = align(frames[band], frames["r"])
        for x, y in STARS_PX:
            place = round(x), round(y)
            offset = centroid(moved, *place) - centroid(frames["r"].flux_nmgy, *place)
            assert np.hypot(*offset) < 0.1, band
        unmoved = centroid(frames[band].flux_nmgy, 64, 48) - centroid(frames["r"].flux_nmgy, 64, 48)
        assert np.hypot(*unmoved) > 0.5  # the test can tell


def on_sky(wcs):
    return Astrometry(wcs, ICRS())


def test_affine_maps_pixels_through_the_sky():
    matrix = affine_between(on_sky(frame_wcs("r")), on_sky(frame_wcs("i")), (HEIGHT, WIDTH), "i.fits")
    assert np.allclose(matrix, [[1, 0, OFFSETS_PX["i"][0]], [0, 1, OFFSETS_PX["i"][1]]], atol=1e-4)


def test_far_away_band_is_refused():
    elsewhere = frame_wcs("i")
    elsewhere.wcs.crval = [330.0, -20.0]
    with pytest.raises(DataError, match=r"i.fits: its sky coordinates"):
        affine_between(on_sky(frame_wcs("r")), on_sky(elsewhere), (HEIGHT, WIDTH), "i.fits")


@pytest.mark.real
def test_real_composite_aligns_better_than_the_surveys_jpeg(real_data):
    for band in "irg":
        real_data(f"{REAL}/frame-{band}-003918-3-0213.fits.bz2")
    jpeg = cv2.imread(str(real_data(f"{REAL}/frame-irg-003918-3-0213.jpg")))[::-1, :, ::-1]  # row 0 is at its bottom
    frames = read_bands(real_data(REAL), "irg")
    stacked = np.stack([align(frames[band], frames["r"]) for band in "irg"], axis=-1)
    r = frames["r"].flux_nmgy
    alone = (r == cv2.dilate(r, np.ones((25, 25)))) & (r > 2) & (r < 20)  # bright, unsaturated, 12 px from a brighter
    rows, columns = np.nonzero(alone[30:-30, 30:-30])
    assert len(rows) >= 25

    def spread_px(picture):
        """Greatest distance between the three channels' centroids, of every star."""
        places = [
            [centroid(picture[..., band], x + 30, y + 30, half=4) for band in range(3)]
            for y, x in zip(rows, columns, strict=True)
        ]
        return np.array([max(np.hypot(*(a - b)) for a in star for b in star) for star in places])

    ours, surveys = spread_px(stacked), spread_px(jpeg)
    unaligned = spread_px(np.stack([frames[band].flux_nmgy for band in "irg"], axis=-1))
    assert ours.max() < 0.5
    assert np.median(ours) < np.median(surveys) < np.median(unaligned)


# ---- cutouts ----


def test_objects_stand_in_the_middle_of_every_band(tmp_path):
    frames, stars = three_bands(tmp_path)
    ra, dec = np.array(stars)[:, :2].T
    cutouts = cut_objects([frames[band] for band in "gri"], ra, dec, 17)
    assert cutouts.flux_nmgy.shape == (3, 17, 17, 3)
    assert cutouts.flux_nmgy.dtype == np.float32
    assert not cutouts.edge.any()
    for flux in cutouts.flux_nmgy:
        for band in range(3):
            assert np.hypot(*centroid(flux[..., band], 8, 8)) < 0.1
    assert np.allclose(cutouts.flux_nmgy.sum(axis=(1, 2)), 50, atol=1)  # flux is kept


@pytest.mark.parametrize(
    ("x", "y", "edge"), [(8, 8, False), (7.9, 8, True), (WIDTH - 9, HEIGHT - 9, False), (60, HEIGHT - 8.9, True)]
)
def test_edge_is_told_and_left_empty(tmp_path, x, y, edge):
    path = write_frame(tmp_path / "a-r.fits", np.ones((HEIGHT, WIDTH), np.float32), frame_wcs("r"))
    frame = read_frame(path, band="r")
    ra, dec = frame.astrometry.to_sky([x], [y])
    cutouts = cut_objects([frame], ra, dec, 17)
    assert bool(cutouts.edge[0]) is edge
    assert np.count_nonzero(cutouts.flux_nmgy == 0) == (17 if edge else 0)


def test_objects_far_outside_are_told(tmp_path):
    path = write_frame(tmp_path / "a-r.fits", np.ones((HEIGHT, WIDTH), np.float32), frame_wcs("r"))
    frame = read_frame(path, band="r")
    ra, dec = frame.astrometry.to_sky([5.0, -1.4, -2.0, 5000.0], [5.0, 20.0, 20.0, 20.0])
    ra, dec = np.append(ra, 330.0), np.append(dec, -20.0)  # the other side of the sky has no pixel at all
    assert is_inside(frame.astrometry.depth(ra, dec, (HEIGHT, WIDTH))).tolist() == [True, True, False, False, False]
    cutouts = cut_objects([frame], ra, dec, 8)
    assert cutouts.edge.tolist() == [False, True, True, True, True]
    assert not cutouts.flux_nmgy[3:].any()


def test_cutouts_do_not_depend_on_the_others(tmp_path):
    wcs = frame_wcs("r")
    path = write_frame(tmp_path / "a-r.fits", star_frame(wcs, [(150.0, 20.0, 9.0)]), wcs)
    frame = read_frame(path, band="r")
    ra, dec = wcs.all_pix2world(np.linspace(3, 120, 12), np.linspace(3, 90, 12), 0)
    whole = cut_objects([frame], ra, dec, 16)
    alone = cut_objects([frame], ra[4:5], dec[4:5], 16)
    assert np.array_equal(whole.flux_nmgy[4:5], alone.flux_nmgy)
