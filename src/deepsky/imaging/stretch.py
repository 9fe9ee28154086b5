"""From flux to gray: the whole-frame plot of one band."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from deepsky.errors import DataError
from deepsky.imaging.frames import FluxArray

PLOT_WIDTH_PX, PLOT_HEIGHT_PX = 576, 432  # the reference study's "FITS plot"
_BLACK_SIGMA, _WHITE_SIGMA = -2.0, 2000.0


@dataclass(frozen=True)
class StretchLimits:
    """Where a stretch begins, bends and ends, in nanomaggies per pixel.

    Attributes:
        black: shown as 0.
        softening: above ``black``, where the curve turns from linear to logarithmic, > 0.
        white: shown as 1, above ``black``.
    """

    black: float
    softening: float
    white: float


def asinh_stretch(flux: FluxArray, limits: StretchLimits) -> FluxArray:
    """Compress flux to display range.

    Args:
        flux: nanomaggies, float32, (height, width) or (height, width, band), finite.
        limits: nanomaggies shown as black and white, and the softening between.

    Returns:
        Same shape, float32 in [0, 1], monotone in flux.

    Raises:
        DataError: flux is not finite; names the first bad pixel.

    Source:
        Lupton, Gunn & Szalay 1999, AJ 118, 1406.
    """
    if not np.isfinite(flux.sum(dtype=np.float64)):
        place = tuple(int(axis) for axis in np.argwhere(~np.isfinite(flux))[0])
        raise DataError("asinh_stretch", f"pixel {place} is {flux[place]}", "mask or repair it before the stretch")
    span = np.float32(np.arcsinh((limits.white - limits.black) / limits.softening))
    scaled = np.arcsinh((flux - np.float32(limits.black)) / np.float32(limits.softening)) / span
    return np.clip(scaled, 0, 1, out=scaled)


def sky_limits(flux: FluxArray) -> StretchLimits:
    """Choose the limits that put the sky noise of one image just above black, whatever its band and depth.

    Args:
        flux: nanomaggies, (height, width); every fourth row and column is looked at.

    Returns:
        Black 2 sigma below the median, softening 2 sigma, white 2000 sigma above.
    """
    sample = flux[::4, ::4] if min(flux.shape) >= 64 else flux
    low, median = (float(value) for value in np.percentile(sample, (15.87, 50)))
    sigma = max(median - low, 1e-6)  # the lower half only: stars lift the upper one
    return StretchLimits(median + _BLACK_SIGMA * sigma, -_BLACK_SIGMA * sigma, median + _WHITE_SIGMA * sigma)


def shrink_to_plot(flux: FluxArray) -> FluxArray:
    """Resize a frame (height, width) to the plot's 432 x 576 by area mean, which keeps faint stars' flux."""
    smaller = flux.shape[0] > PLOT_HEIGHT_PX and flux.shape[1] > PLOT_WIDTH_PX
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(flux, (PLOT_WIDTH_PX, PLOT_HEIGHT_PX), interpolation=how)


def to_gray(unit: FluxArray) -> npt.NDArray[np.uint8]:
    """Turn [0, 1] into rounded 0 to 255, same shape."""
    return (unit * np.float32(255) + np.float32(0.5)).astype(np.uint8)
