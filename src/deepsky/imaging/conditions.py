"""Under what conditions a frame was taken: its sky, and how wide a star is there."""

from dataclasses import dataclass
from math import nan

import cv2
import numpy as np

from deepsky.imaging.frames import Frame
from deepsky.imaging.photometry import FluxArray
from deepsky.imaging.stretch import sky_limits

_BRIGHT_SIGMA = 30.0
_AROUND_PX = 7  # a star's own peak is the highest so far around
_MOST_STARS, _FEWEST_STARS = 400, 5
_NARROW_PERCENT = 25  # galaxies and saturated stars are wider than the others
_FWHM_OF_SIGMA = 2.3548


@dataclass(frozen=True)
class Conditions:
    """The conditions of one frame.

    Attributes:
        sky: level of the sky that is left, nanomaggies per pixel.
        noise: its standard deviation from pixel to pixel, nanomaggies.
        psf: full width of a star at half its height, arcsec; NaN where there are too few.
    """

    sky: float
    noise: float
    psf: float


def conditions_of(frame: Frame) -> Conditions:
    """Measure sky and width of stars in a frame."""
    limits = sky_limits(frame.flux_nmgy)
    noise = limits.softening / 2
    sky = limits.black + limits.softening
    width_px = _star_width_px(frame.flux_nmgy - np.float32(sky), noise)
    return Conditions(sky, noise, width_px * frame.astrometry.pixel_scale_arcsec)


def _star_width_px(flux: FluxArray, noise: float) -> float:
    """Return the width of the narrower bright peaks.

    The logarithm of a Gaussian is a parabola, whose second difference tells the width wherever in a pixel its top is.
    """
    peaks = (flux > _BRIGHT_SIGMA * noise) & (flux == cv2.dilate(flux, np.ones((_AROUND_PX, _AROUND_PX), np.uint8)))
    peaks[[0, -1]] = peaks[:, [0, -1]] = False
    rows, columns = np.nonzero(peaks)
    brightest = np.argsort(-flux[rows, columns], kind="stable")[:_MOST_STARS]
    row, column = rows[brightest], columns[brightest]
    beside = np.stack([flux[row - 1, column], flux[row + 1, column], flux[row, column - 1], flux[row, column + 1]])
    whole = (beside > 0).all(axis=0)
    bend = 2 * np.log(flux[row, column][whole]) - np.log(beside[:, whole]).sum(axis=0) / 2
    variance_px = 1 / bend[bend > 0]
    if len(variance_px) < _FEWEST_STARS:
        return nan
    return float(_FWHM_OF_SIGMA * np.sqrt(np.percentile(variance_px, _NARROW_PERCENT)))
