"""Where a frame's pixels lie on the sky: any axis order, sky frame, projection and distortion that astropy reads."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.coordinates import ICRS, BaseCoordinateFrame, SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning, NoConvergence
from astropy.wcs.utils import proj_plane_pixel_area, wcs_to_celestial_frame

from deepsky.errors import DataError

# Surveys write keywords by their old names, RADECSYS and PC001001, and units as DEG. Not in a block of catch_warnings:
# what it sets holds for all threads, and may stay set when two of them leave it at a time.
warnings.filterwarnings("ignore", category=FITSFixedWarning)
FloatArray = npt.NDArray[np.float64]
# Catalogues count pixels from 0, 0.5 or 1, and fit centres of objects that the border cuts.
CENTRE_TOLERANCE_PX = 1.0

# Remarks, and what Pan-STARRS says of its camera and of the images in a stack.
_NOT_COORDINATES = re.compile(r"|COMMENT|HISTORY|(FPA|CHIP|CELL)\..*|(INP|SCL|ZPT|EXP|AIR)_\d{4}")
_NUMBER = re.compile(r"(CRVAL|CRPIX|CDELT|CROTA)[12]|(CD|PC)[12]_[12]")
_NEWTON_STEPS, _DIFFERENCE_PX, _EXACT_PX = 30, 0.01, 1e-4


@dataclass(frozen=True)
class Astrometry:
    """The way between the pixels of a frame and the sky.

    Pixels are 0-based, x = column, y = row. Positions on the sky are ICRS, in degrees.

    Attributes:
        wcs: celestial coordinates of two axes, in any order.
        sky: the frame of the sky that they are of.
    """

    wcs: WCS
    sky: BaseCoordinateFrame

    @property
    def pixel_scale_arcsec(self) -> float:
        """Side of a square of one pixel's area, arcsec."""
        return float(np.sqrt(proj_plane_pixel_area(self.wcs))) * 3600

    def to_sky(self, x_px: npt.ArrayLike, y_px: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return right ascension and declination of pixels; NaN where a projection ends."""
        world = self.wcs.all_pix2world(x_px, y_px, 0)
        longitude, latitude = world[self.wcs.wcs.lng], world[self.wcs.wcs.lat]
        if isinstance(self.sky, ICRS):
            return longitude, latitude
        icrs = SkyCoord(longitude, latitude, unit="deg", frame=self.sky).icrs
        return icrs.ra.deg, icrs.dec.deg

    def to_pixels(self, ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the pixels of positions, (n,); NaN where the frame's projection and distortion show no such place."""
        longitude, latitude = np.asarray(ra_deg, np.float64), np.asarray(dec_deg, np.float64)
        if not isinstance(self.sky, ICRS):
            own = SkyCoord(longitude, latitude, unit="deg", frame=ICRS()).transform_to(self.sky).spherical
            longitude, latitude = own.lon.deg, own.lat.deg
        world = (longitude, latitude) if self.wcs.wcs.lng == 0 else (latitude, longitude)
        try:
            x_px, y_px = self.wcs.all_world2pix(*world, 0)
        except NoConvergence:
            x_px, y_px = self._by_newton(*world)
        return x_px, y_px

    def depth(self, ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike, shape: tuple[int, int]) -> FloatArray:
        """Return the ``edge_distance`` of positions from the border of the image (height, width)."""
        return edge_distance(*self.to_pixels(ra_deg, dec_deg), shape)

    def _by_newton(self, *world: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Invert a distortion that is too strong for astropy's fixed-point iteration, where it can be inverted."""
        target = np.stack(self.wcs.wcs_world2pix(*world, 0))
        places = target.copy()
        with np.errstate(all="ignore"):
            for _ in range(_NEWTON_STEPS):
                missing = self._undistorted(places) - target
                right, up = (
                    (self._undistorted(places + step) - self._undistorted(places - step)) / (2 * _DIFFERENCE_PX)
                    for step in _DIFFERENCE_PX * np.eye(2)[..., np.newaxis]
                )
                determinant = right[0] * up[1] - right[1] * up[0]
                places = (
                    places
                    - np.stack([up[1] * missing[0] - up[0] * missing[1], right[0] * missing[1] - right[1] * missing[0]])
                    / determinant
                )
            error_px = np.hypot(*(self._undistorted(places) - target))
        places[:, ~(error_px < _EXACT_PX)] = np.nan
        return places[0], places[1]

    def _undistorted(self, places: FloatArray) -> FloatArray:
        return np.stack(self.wcs.pix2foc(*places, 0))


def read_astrometry(path: Path, header: fits.Header) -> Astrometry:
    """Build the celestial coordinates of a frame's header.

    Raises:
        DataError: it has none, or none that astropy knows; ``path`` only names the file.
    """
    try:
        # Of the hundreds of cards of a stack astropy would verify each, several times: 5 ms instead of 1.
        cards = [card for card in header.cards if not _NOT_COORDINATES.fullmatch(card.keyword)]
        for card in cards:  # wcslib takes what is no number for 0
            if _NUMBER.fullmatch(card.keyword) and not isinstance(card.value, int | float):
                raise ValueError(f"{card.keyword} is {card.value!r}")
        wcs = WCS(fits.Header(cards))
        if wcs.has_celestial:
            wcs = wcs if wcs.naxis == 2 else wcs.celestial
            if not proj_plane_pixel_area(wcs) > 0:
                raise ValueError("its pixels have no area on the sky")
            return Astrometry(wcs, wcs_to_celestial_frame(wcs))
    except Exception as error:  # wcslib has a dozen kinds, all of them "this header is no use"
        reason = re.sub(r"\s+", " ", str(error))[:200]
        raise DataError(path, f"its sky coordinates cannot be read ({reason})", "solve its WCS") from error
    raise DataError(path, "has no sky coordinates (CTYPE1, CTYPE2)", "solve its WCS and write it into the header")


def edge_distance(x_px: FloatArray, y_px: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Distance in pixels from points to the nearest border of an image (height, width); negative outside.

    Pixel centres are whole numbers, so the image spans -0.5 to width - 0.5. Points with no image (NaN) are at -inf.
    """
    height, width = shape
    nearest = np.min([x_px + 0.5, width - 0.5 - x_px, y_px + 0.5, height - 0.5 - y_px], axis=0)
    return np.where(np.isnan(nearest), -np.inf, nearest)


def is_inside(depth_px: FloatArray) -> npt.NDArray[np.bool_]:
    """Tell whose centres lie inside an image or at most 1 px beyond its border, by their ``edge_distance``."""
    return depth_px >= -CENTRE_TOLERANCE_PX
