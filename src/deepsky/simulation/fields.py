"""Where the simulated survey points: runs, camera columns and fields, and the WCS of each band's frame."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS

from deepsky.catalogue.survey import BANDS, PIXEL_ARCSEC, UNIQUE_ROWS

REFERENCE_PIXEL = (1024.0, 744.0)  # 0-based column and row of CRPIX 1025, 745
_GROUP_SIZES = (2, 1, 1)  # of each run: a pair of overlapping neighbours, then two isolated fields
_LARGEST_BAND_SHIFT_PX = 14.0


@dataclass(frozen=True)
class Field:
    """One field: five frames, one per band.

    Attributes:
        run: imaging run, 1..9999.
        camcol: camera column, 1..6.
        field: number along the run; consecutive numbers of one run and camcol overlap.
        group: fields of one group share sky, those of different groups never do.
        ra_deg, dec_deg: sky at the r frame's reference pixel, ICRS.
        scan_deg: position angle of increasing rows at that pixel, east of north.
        shifts_px: per band, (columns, rows) by which its frame's reference pixel points past that of r.
    """

    run: int
    camcol: int
    field: int
    group: int
    ra_deg: float
    dec_deg: float
    scan_deg: float
    shifts_px: tuple[tuple[float, float], ...]

    @property
    def key(self) -> tuple[int, int, int]:
        """Run, camcol and field: the field's name."""
        return self.run, self.camcol, self.field


def plan_fields(n_fields: int, seed: int) -> list[Field]:
    """Lay fields out on the sky: of every four one overlapping pair and two isolated ones.

    Args:
        n_fields: how many, >= 1.
        seed: the same seed gives the same fields, and fewer fields are the first ones of more.

    Returns:
        The fields by group, then along the run.
    """
    runs = np.random.default_rng([seed, 0]).permutation(np.arange(94, 8163))
    fields: list[Field] = []
    group = 0
    while len(fields) < n_fields:
        cycle, position = divmod(group, len(_GROUP_SIZES))
        size = min(_GROUP_SIZES[position], n_fields - len(fields))
        fields += _plan_group(seed, group, cycle, int(runs[cycle]), position, size)
        group += 1
    return fields


def frame_wcs(field: Field, band: str) -> WCS:
    """TAN WCS of one frame; 0-based pixel (column 1024, row 744) is its reference pixel."""
    columns_px, rows_px = field.shifts_px[BANDS.index(band)]
    cd = _scan_matrix(field.scan_deg)
    base = tan_wcs(field.ra_deg, field.dec_deg, cd, REFERENCE_PIXEL)
    ra_deg, dec_deg = base.wcs_pix2world(REFERENCE_PIXEL[0] + columns_px, REFERENCE_PIXEL[1] + rows_px, 0)
    return tan_wcs(float(ra_deg), float(dec_deg), cd, REFERENCE_PIXEL)


def tan_wcs(ra_deg: float, dec_deg: float, cd_deg: npt.NDArray[np.float64], pixel: tuple[float, float]) -> WCS:
    """Gnomonic WCS that puts (ra_deg, dec_deg) on the 0-based (column, row) ``pixel``.

    Args:
        ra_deg: right ascension, ICRS.
        dec_deg: declination, ICRS.
        cd_deg: (2, 2) degrees per pixel; rows (east, north), columns (column, row).
        pixel: 0-based column and row.
    """
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [ra_deg, dec_deg]
    wcs.wcs.crpix = [pixel[0] + 1, pixel[1] + 1]
    wcs.wcs.cd = cd_deg
    wcs.wcs.set()
    return wcs


def _plan_group(seed: int, group: int, cycle: int, run: int, position: int, size: int) -> list[Field]:
    """One or two consecutive fields of a run; a run's third group follows the first far down its camcol."""
    rng = np.random.default_rng([seed, 1, cycle])  # what a run shares, the same for each of its groups
    camcols = rng.permutation(np.arange(1, 7))
    scan_deg, first_field = float(rng.uniform(20, 160)), int(rng.integers(11, 300))
    shifts_px = [tuple(rng.uniform(-_LARGEST_BAND_SHIFT_PX, _LARGEST_BAND_SHIFT_PX, 2)) for _ in BANDS]
    shifts_px[BANDS.index("r")] = (0.0, 0.0)
    camcol = int(camcols[position % 2])
    steps = 0 if position == 0 else int(rng.integers(12, 40)) + 20 * position
    # A low-discrepancy sequence keeps runs degrees apart, however many there are.
    start = tan_wcs(
        120 + 130 * ((0.5 + seed * 0.137 + cycle * 0.7548776662) % 1.0),
        2 + 50 * ((0.5 + seed * 0.291 + cycle * 0.5698402910) % 1.0),
        _scan_matrix(scan_deg),
        REFERENCE_PIXEL,
    )
    columns_px = 3820.0 * (camcol - 3.5)  # the camera's columns stand 25.2 arcmin apart
    fields = []
    for step in range(steps, steps + size):
        pixel = (REFERENCE_PIXEL[0] + columns_px, REFERENCE_PIXEL[1] + UNIQUE_ROWS * step)
        ra_deg, dec_deg = (float(value) for value in start.wcs_pix2world(*pixel, 0))
        angle_deg = scan_deg + (ra_deg - start.wcs.crval[0]) * np.sin(np.radians(dec_deg))  # meridians converge
        fields.append(
            Field(run, camcol, first_field + step, group, ra_deg, dec_deg, float(angle_deg), tuple(shifts_px))
        )
    return fields


def _scan_matrix(scan_deg: float) -> npt.NDArray[np.float64]:
    """CD matrix of a frame whose rows increase towards position angle ``scan_deg``; columns run 90 degrees behind."""
    sine, cosine = np.sin(np.radians(scan_deg)), np.cos(np.radians(scan_deg))
    return np.array([[-cosine, sine], [sine, cosine]]) * PIXEL_ARCSEC / 3600
