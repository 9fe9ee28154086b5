"""Object-centred cutouts of several bands, each placed through its own world coordinates."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from deepsky.imaging.fields import CENTRE_TOLERANCE_PX, edge_distance
from deepsky.imaging.frames import FluxArray, Frame

_ROUNDING_PX = 1e-6  # of sky to pixel and back
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cutouts:
    """The cutouts of n objects.

    Attributes:
        flux_nmgy: nanomaggies, float32, (n, size, size, band); 0 outside the frame.
        edge: bool, (n,): a part lies outside the frame of at least one band.
    """

    flux_nmgy: FluxArray
    edge: npt.NDArray[np.bool_]


def cut_objects(frames: Sequence[Frame], ra_deg: FloatArray, dec_deg: FloatArray, size_px: int) -> Cutouts:
    """Cut every object out of every band, its centre in the middle of the cutout.

    The middle is the pixel coordinate (size - 1) / 2; flux between pixels is interpolated linearly.

    Args:
        frames: the bands, in the order of the last axis.
        ra_deg: right ascensions, (n,).
        dec_deg: declinations, (n,).
        size_px: side of the square cutout, native pixels.
    """
    flux_nmgy = np.zeros((len(frames), len(ra_deg), size_px, size_px), np.float32)
    edge = np.zeros(len(ra_deg), np.bool_)
    for frame, target in zip(frames, flux_nmgy, strict=True):
        x_px, y_px = frame.wcs.all_world2pix(ra_deg, dec_deg, 0)
        edge |= cut_positions(frame.flux_nmgy, x_px, y_px, target)
    return Cutouts(np.ascontiguousarray(np.moveaxis(flux_nmgy, 0, -1)), edge)


def cut_positions(flux_nmgy: FluxArray, x_px: FloatArray, y_px: FloatArray, target: FluxArray) -> npt.NDArray[np.bool_]:
    """Cut one band at pixel positions into ``target`` (n, size, size), C-contiguous float32.

    Returns:
        bool, (n,): True where a part lies outside the frame; there ``target`` is 0.
    """
    size_px = target.shape[1]
    half_px = (size_px - 1) / 2
    # -0.5: at distance 0 from the border of the outermost pixel's centre nothing is missing yet.
    edge = edge_distance(x_px, y_px, flux_nmgy.shape) - 0.5 < half_px - _ROUNDING_PX
    size = (size_px, size_px)
    for center, patch in zip(np.stack([x_px, y_px], axis=1).tolist(), target, strict=True):
        if center[0] == center[0] and center[1] == center[1]:  # NaN: this band has no such place
            cv2.getRectSubPix(flux_nmgy, size, center, patch)
    offsets_px = np.arange(size_px) - half_px
    for number in np.flatnonzero(edge):  # OpenCV repeats the border there
        rows_px, columns_px = y_px[number] + offsets_px, x_px[number] + offsets_px
        target[number][~_within(rows_px, flux_nmgy.shape[0])] = 0
        target[number][:, ~_within(columns_px, flux_nmgy.shape[1])] = 0
    return edge


def sky_positions(frame: Frame, x_px: FloatArray, y_px: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Turn 0-based pixel columns and rows of one band into right ascension and declination, degrees."""
    ra_deg, dec_deg = frame.wcs.all_pix2world(x_px, y_px, 0)
    return ra_deg, dec_deg


def inside(frame: Frame, ra_deg: FloatArray, dec_deg: FloatArray) -> npt.NDArray[np.bool_]:
    """Tell which objects' centres lie inside a frame or at most 1 px beyond its border, bool (n,)."""
    x_px, y_px = frame.wcs.all_world2pix(ra_deg, dec_deg, 0)
    return edge_distance(x_px, y_px, frame.flux_nmgy.shape) >= -CENTRE_TOLERANCE_PX


def _within(places_px: FloatArray, length: int) -> npt.NDArray[np.bool_]:
    return (places_px >= -_ROUNDING_PX) & (places_px <= length - 1 + _ROUNDING_PX)
