"""Composites of frames: align bands on the sky and stack them."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from deepsky.errors import DataError
from deepsky.imaging.astrometry import Astrometry
from deepsky.imaging.frames import Frame
from deepsky.imaging.photometry import FluxArray
from deepsky.imaging.stretch import StretchLimits, asinh_stretch, shrink_to_plot, to_gray

_WORST_FIT_PX = 0.25


def affine_between(
    reference: Astrometry, other: Astrometry, shape: tuple[int, int], where: object
) -> npt.NDArray[np.float64]:
    """Fit the affine map from pixels of the reference band to pixels of another band, through the sky.

    Args:
        reference: coordinates of the band that stays.
        other: coordinates of the band to be moved.
        shape: (height, width) of the reference band.
        where: names the other band's file in errors.

    Returns:
        (2, 3): [x, y] of the other band = matrix @ [x, y, 1] of the reference band.

    Raises:
        DataError: no affine map fits within 0.25 px.
    """
    height, width = shape
    x_px, y_px = (grid.ravel() for grid in np.meshgrid(np.linspace(0, width - 1, 5), np.linspace(0, height - 1, 5)))
    target_px = np.stack(other.to_pixels(*reference.to_sky(x_px, y_px)), axis=1)
    design = np.stack([x_px, y_px, np.ones_like(x_px)], axis=1)
    solution = np.linalg.lstsq(design, target_px, rcond=None)[0] if np.isfinite(target_px).all() else None
    if solution is None or np.abs(design @ solution - target_px).max() > _WORST_FIT_PX:
        problem = "its sky coordinates do not match the reference band's by a shift, turn and scale"
        raise DataError(where, problem, "check the WCS, or resample the band first")
    return np.ascontiguousarray(solution.T)


def align(frame: Frame, reference: Frame) -> FluxArray:
    """Move a band onto the pixels of the reference band, each by its own world coordinates.

    Returns:
        Nanomaggies, float32, (height, width) of the reference; 0 where the band does not reach.

    Raises:
        DataError: see ``affine_between``.
    """
    if frame is reference:
        return frame.flux_nmgy
    height, width = reference.flux_nmgy.shape
    matrix = affine_between(reference.astrometry, frame.astrometry, (height, width), frame.path)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(frame.flux_nmgy, matrix, (width, height), flags=flags)


def plot_composite(bands: Sequence[Frame], limits: Sequence[StretchLimits], reference: Frame) -> npt.NDArray[np.uint8]:
    """Stack three bands' plots as red, green and blue, aligned on the reference band.

    Args:
        bands: red, green and blue.
        limits: each band's own stretch, as in its gray plot.
        reference: the band whose pixels the others are moved onto.

    Returns:
        uint8, (432, 576, 3), row 0 first as in the frame.
    """
    channels = [
        to_gray(asinh_stretch(shrink_to_plot(align(frame, reference)), own))
        for frame, own in zip(bands, limits, strict=True)
    ]
    return np.stack(channels, axis=-1)
