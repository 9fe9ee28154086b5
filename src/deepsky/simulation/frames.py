"""Frames of the simulated survey, laid out byte for byte as SDSS serves them: four HDUs of FITS, compressed by bz2."""

import bz2
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

from deepsky.catalogue.survey import FRAME_DELAY, FRAME_SHAPE
from deepsky.simulation.fields import Field

Header = tuple[tuple[str, object, str], ...]

_FITS_BLOCK = 2880
_BZ2_LEVEL = 1  # the archive's is 9; such files are a tenth to a quarter larger, but unpacked sooner
_FULL_WELL_COUNTS = 60000.0
_KEPT_BITS = np.uint32(0xFFFFC000)  # sign, exponent and 10 significant binary digits: SDSS' FLOATCOMPRESS
_ALLSKY_SHAPE = (192, 256)


@dataclass(frozen=True)
class Detector:
    """One band's CCD and sky.

    Attributes:
        nmgy_per_count: typical calibration.
        sky_nmgy: typical sky, nanomaggies per pixel.
        gain: electrons per count.
        dark_variance: of read-out and dark current, counts squared.
        camera_row: row of the band's CCDs in the camera.
    """

    nmgy_per_count: float
    sky_nmgy: float
    gain: float
    dark_variance: float
    camera_row: int

    @property
    def noise_nmgy(self) -> float:
        """Standard deviation of one pixel of empty sky, nanomaggies."""
        return self.nmgy_per_count * (self.sky_nmgy / self.nmgy_per_count / self.gain + self.dark_variance) ** 0.5


# The survey's typical figures; the dark variance is what its typical noise leaves after the sky's photons.
DETECTORS = {
    "u": Detector(0.00790, 0.227, 1.62, 9.2, 3),
    "g": Detector(0.00355, 0.299, 3.32, 0.4, 5),
    "r": Detector(0.00458, 0.710, 4.71, 1.8, 1),
    "i": Detector(0.00618, 1.30, 5.165, 7.7, 2),
    "z": Detector(0.0359, 2.60, 4.745, 2.6, 4),
}


def expose(light_nmgy: npt.NDArray[np.float32], field: Field, band: str, wcs: WCS, rng: np.random.Generator) -> bytes:
    """Read out, calibrate and write one frame.

    Args:
        light_nmgy: expected light without sky, nanomaggies per pixel, (1489, 2048).
        field: the field.
        band: one of u, g, r, i, z.
        wcs: of this band's frame.
        rng: source of the night's conditions and of the noise.

    Returns:
        The ``.fits.bz2`` file: calibrated sky-subtracted image, nanomaggies per count of each column, sky, asTrans.
    """
    detector = DETECTORS[band]
    calibration = _calibration(detector, rng)
    sky_grid, column_index, row_index = _sky(detector, float(calibration.mean()), rng)
    sky_counts = _interpolate(sky_grid, row_index, column_index)
    expected = (light_nmgy / calibration + sky_counts) * np.float32(detector.gain)
    electrons = rng.poisson(np.maximum(expected, 0))
    counts = electrons.astype(np.float32) / np.float32(detector.gain)
    counts += np.float32(detector.dark_variance**0.5) * rng.standard_normal(FRAME_SHAPE, dtype=np.float32)
    counts = np.minimum(np.round(counts), np.float32(_FULL_WELL_COUNTS))  # the CCDs count in whole numbers
    image = truncate_mantissa((counts - sky_counts) * calibration)
    header = _image_header(field, band, wcs, float(calibration.mean()))
    parts = (
        _hdu(header, image.astype(">f4").tobytes()),
        _hdu(_CALIBRATION_HEADER, calibration.astype(">f4").tobytes()),
        _sky_table(sky_grid, column_index, row_index),
        _astrans_table(field, band),
    )
    return bz2.compress(b"".join(parts), _BZ2_LEVEL)


def truncate_mantissa(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Keep 10 significant binary digits of each number, which bz2 then compresses well."""
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) & _KEPT_BITS).view(np.float32)


def _calibration(detector: Detector, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Nanomaggies per count of each column, (2048,): the flat field makes them differ by some thousandths."""
    columns = np.arange(FRAME_SHAPE[1])
    wave = 0.003 * np.sin(2 * np.pi * (columns / rng.uniform(600, 3000) + rng.uniform()))
    night = rng.normal(1, 0.02)
    return (detector.nmgy_per_count * night * (1 + wave + rng.normal(0, 2e-4, len(columns)))).astype(np.float32)


def _sky(
    detector: Detector, nmgy_per_count: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Draw the sky in counts on a coarse grid (192, 256), and each column's and row's place on it."""
    level = detector.sky_nmgy / nmgy_per_count * rng.normal(1, 0.04)
    slope_rows, slope_columns = rng.normal(0, 0.003, 2)
    rows, columns = (np.linspace(-0.5, 0.5, n) for n in _ALLSKY_SHAPE)
    grid = (level * (1 + slope_rows * rows[:, None] + slope_columns * columns)).astype(np.float32)
    column_index = ((np.arange(FRAME_SHAPE[1]) - 3.5) / 8).astype(np.float32)
    row_index = ((np.arange(FRAME_SHAPE[0]) + 4.5) / 8).astype(np.float32)
    return grid, column_index, row_index


def _interpolate(
    grid: npt.NDArray[np.float32], row_index: npt.NDArray[np.float32], column_index: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Bilinear interpolation of the sky, clamped at the edges; the grid is a plane, so its first row and column do."""
    along_rows = np.interp(row_index, np.arange(grid.shape[0]), grid[:, 0])
    along_columns = np.interp(column_index, np.arange(grid.shape[1]), grid[0])
    return (along_rows[:, None] + along_columns - grid[0, 0]).astype(np.float32)


def _image_header(field: Field, band: str, wcs: WCS, nmgy_per_count: float) -> Header:
    """List the cards of a real frame that say something of the image, in its order."""
    mjd = observed_mjd(field.run)
    (cd1_1, cd1_2), (cd2_1, cd2_2) = wcs.wcs.cd
    frame = field.field + FRAME_DELAY[band]
    return (
        ("SIMPLE", True, ""), ("BITPIX", -32, "32 bit floating point"), ("NAXIS", 2, ""),
        ("NAXIS1", FRAME_SHAPE[1], ""), ("NAXIS2", FRAME_SHAPE[0], ""), ("EXTEND", True, "Extensions may be present"),
        ("BZERO", 0.0, "Set by MRD_SCALE"), ("BSCALE", 1.0, "Set by MRD_SCALE"),
        ("TAI", round(mjd * 86400 + frame * 35.8, 2), "1st row - seconds since Nov 17 1858"),
        ("RA", round(field.ra_deg, 5), "1st row - RA of telescope boresight"),
        ("DEC", round(field.dec_deg, 5), "1st row - Dec of telescope boresight"),
        ("SPA", round(field.scan_deg, 3), "1st row - Camera col PA wrt north"),
        ("DATE-OBS", str(date(1858, 11, 17) + timedelta(days=mjd)), "1st row - TAI date"),
        ("ORIGIN", "SDSS", "simulated"), ("TELESCOP", "2.5m", ""), ("TIMESYS", "TAI", ""),
        ("RUN", field.run, "Run number"), ("FRAME", frame, "Frame sequence number within the run"),
        ("CCDLOC", 10 * detector_row(band) + field.camcol, "Survey location of CCD (e.g., rowCol)"),
        ("FLAVOR", "science", "Flavor of this run"), ("EXPTIME", "53.907456", "Exposure time (seconds)"),
        ("SYSTEM", "FK5", "System of the TCC coordinates"), ("CCDMODE", "DRIFT", "'STARING' or 'DRIFT'"),
        ("C_OBS", 26322, "CCD row clock rate (usec/row)"),
        ("COLBIN", 1, "Binning perpendicular to the columns"),
        ("ROWBIN", 1, "Binning factor perpendicular to the rows"),
        ("CAMROW", detector_row(band), "Row in the imaging camera"), ("BADLINES", 0, "Number of bad lines in frame"),
        ("EQUINOX", 2000.0, ""), ("SOFTBIAS", 1000, 'software "bias" added to all DN'),
        ("BUNIT", "nanomaggy", "1 nanomaggy = 3.631e-6 Jy"), ("FILTER", band, "filter used"),
        ("CAMCOL", field.camcol, "column in the imaging camera"),
        ("RADECSYS", "ICRS", "International Celestial Ref. System"),
        ("CTYPE1", "RA---TAN", "Coordinate type"), ("CTYPE2", "DEC--TAN", "Coordinate type"),
        ("CUNIT1", "deg", "Units"), ("CUNIT2", "deg", "Units"),
        ("CRPIX1", wcs.wcs.crpix[0], "X of reference pixel"), ("CRPIX2", wcs.wcs.crpix[1], "Y of reference pixel"),
        ("CRVAL1", wcs.wcs.crval[0], "RA of reference pixel (deg)"),
        ("CRVAL2", wcs.wcs.crval[1], "Dec of reference pixel (deg)"),
        ("CD1_1", cd1_1, "RA deg per column pixel"), ("CD1_2", cd1_2, "RA deg per row pixel"),
        ("CD2_1", cd2_1, "Dec deg per column pixel"), ("CD2_2", cd2_2, "Dec deg per row pixel"),
        ("NMGY", float(f"{nmgy_per_count:.6g}"), "Calibration factor [nMgy per count]"),
        ("NMGYIVAR", 0.15, "Calibration factor inverse variance"), ("RERUN", "301", "rerun"),
    )  # fmt: skip


def detector_row(band: str) -> int:
    """Row of a band's CCDs in the camera, 1..5."""
    return DETECTORS[band].camera_row


def observed_mjd(run: int) -> int:
    """Day on which a run was taken; runs are numbered in order of time."""
    return 51075 + run * 4000 // 8162


_CALIBRATION_HEADER: Header = (
    ("XTENSION", "IMAGE", ""), ("BITPIX", -32, ""), ("NAXIS", 1, ""), ("NAXIS1", FRAME_SHAPE[1], ""),
    ("PCOUNT", 0, ""), ("GCOUNT", 1, ""),
)  # fmt: skip


def _sky_table(
    grid: npt.NDArray[np.float32], column_index: npt.NDArray[np.float32], row_index: npt.NDArray[np.float32]
) -> bytes:
    header = (
        *_table_header(4 * (grid.size + column_index.size + row_index.size), 3),
        ("TTYPE1", "ALLSKY", ""), ("TTYPE2", "XINTERP", ""), ("TTYPE3", "YINTERP", ""),
        ("TFORM1", f"{grid.size}E", ""), ("TFORM2", f"{column_index.size}E", ""), ("TFORM3", f"{row_index.size}E", ""),
        ("TDIM1", f"( {grid.shape[1]}, {grid.shape[0]})", ""),
    )  # fmt: skip
    return _hdu(header, b"".join(part.astype(">f4").tobytes() for part in (grid, column_index, row_index)))


def _astrans_table(field: Field, band: str) -> bytes:
    """Write the drift scan's astrometric transformation; here the scan is straight, so the distortions are zero."""
    row = np.zeros(
        1,
        [("RUN", ">i4"), ("RERUN", "S3"), ("CAMCOL", ">i4"), ("FILTER", "S1"), ("NODE", ">f8"), ("INCL", ">f8"),
         ("NAXIS", ">i4", (2,)), ("FIELD", ">i4"), *((name, ">f8") for name in _ASTRANS_TERMS),
         ("MUERR", ">f4"), ("NUERR", ">f4")],
    )  # fmt: skip
    row["RUN"], row["RERUN"], row["CAMCOL"], row["FILTER"] = field.run, b"301", field.camcol, band.encode()
    row["NODE"], row["NAXIS"], row["FIELD"] = 95.0, FRAME_SHAPE[::-1], field.field
    row["B"] = row["F"] = 0.396 / 3600
    row["MJD"], row["AIRMASS"], row["MUERR"], row["NUERR"] = observed_mjd(field.run), 1.2, 0.04, 0.03
    assert row.dtype.names is not None
    forms = ["J", "3A", "J", "A", "D", "D", "2J", "J", *["D"] * len(_ASTRANS_TERMS), "E", "E"]
    header = _table_header(row.dtype.itemsize, len(forms))
    header += tuple((f"TTYPE{n}", name, "") for n, name in enumerate(row.dtype.names, 1))
    header += tuple((f"TFORM{n}", form, "") for n, form in enumerate(forms, 1))
    return _hdu(header, row.tobytes())


_ASTRANS_TERMS = (
    "A", "B", "C", "D", "E", "F", "DROW0", "DROW1", "DROW2", "DROW3", "DCOL0", "DCOL1", "DCOL2", "DCOL3",
    "CSROW", "CSCOL", "CCROW", "CCCOL", "RICUT", "MJD", "AIRMASS",
)  # fmt: skip


def _table_header(row_bytes: int, n_columns: int) -> Header:
    return (
        ("XTENSION", "BINTABLE", ""), ("BITPIX", 8, ""), ("NAXIS", 2, ""), ("NAXIS1", row_bytes, ""),
        ("NAXIS2", 1, ""), ("PCOUNT", 0, ""), ("GCOUNT", 1, ""), ("TFIELDS", n_columns, ""),
    )  # fmt: skip


def _hdu(header: Header, data: bytes) -> bytes:
    """Header and data, each padded to whole FITS blocks; astropy's writer would drop BZERO and change RADECSYS."""
    cards = fits.Header([fits.Card(*card) for card in header]).tostring().encode("ascii")
    return cards + data + bytes(-len(data) % _FITS_BLOCK)
