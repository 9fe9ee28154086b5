"""Object-centred cutouts of several bands, each placed through its own world coordinates."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.errors import DataError
from deepsky.imaging.astrometry import Astrometry, FloatArray, edge_distance
from deepsky.imaging.frames import Frame
from deepsky.imaging.params import Position
from deepsky.imaging.photometry import FluxArray

_ROUNDING_PX = 1e-6  # of sky to pixel and back


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
        x_px, y_px = frame.astrometry.to_pixels(ra_deg, dec_deg)
        edge |= cut_positions(frame.flux_nmgy, x_px, y_px, target)
    return Cutouts(np.ascontiguousarray(np.moveaxis(flux_nmgy, 0, -1)), edge)


def cut_positions(flux_nmgy: FluxArray, x_px: FloatArray, y_px: FloatArray, target: FluxArray) -> npt.NDArray[np.bool_]:
    """Cut one band at pixel positions into ``target`` (n, size, size), C-contiguous float32.

    Returns:
        bool, (n,): True where a part lies outside the frame; there ``target`` is 0.
    """
    size_px = target.shape[1]
    half_px = (size_px - 1) / 2
    height, width = flux_nmgy.shape
    edge = reaches_over(edge_distance(x_px, y_px, (height, width)), size_px)
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


def reaches_over(depth_px: FloatArray, size_px: int) -> npt.NDArray[np.bool_]:
    """Tell which cutouts reach over the edge of an image, by the ``edge_distance`` of their centres."""
    # -0.5: at distance 0 from the border of the outermost pixel's centre nothing is missing yet.
    return depth_px - 0.5 < (size_px - 1) / 2 - _ROUNDING_PX


def sky_positions(objects: pd.DataFrame, reference: Astrometry, position: Position) -> tuple[FloatArray, FloatArray]:
    """Return right ascension and declination of objects, degrees.

    Args:
        objects: as ``catalogue.positions.with_positions`` gives them.
        reference: of the band whose pixels x and y count.
        position: what they are given by.
    """
    if position == "radec":
        return objects["ra"].to_numpy(), objects["dec"].to_numpy()
    return reference.to_sky(objects["x"].to_numpy(), objects["y"].to_numpy())


def outside(catalogue: object, identity: str, frame: Path) -> DataError:
    """Return the error of an object that does not lie in the frame of its field."""
    problem = f"object {identity} lies outside its frame {frame}"
    return DataError(catalogue, problem, "correct its position or drop the row")


def _within(places_px: FloatArray, length: int) -> npt.NDArray[np.bool_]:
    return (places_px >= -_ROUNDING_PX) & (places_px <= length - 1 + _ROUNDING_PX)
