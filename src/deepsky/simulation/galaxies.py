"""Colour pictures of simulated galaxies: their light through the atmosphere, on a noisy sky with neighbours."""

import cv2
import numpy as np
import numpy.typing as npt

from deepsky.simulation.galaxy_light import Plane, galaxy_light
from deepsky.simulation.jpegs import stretch
from deepsky.simulation.shapes import Shape

_QUALITY = 90
_NOISE = 0.021  # of one pixel; the background of the real pictures scatters by 3 to 4 of 255
_GRAIN_PX = 0.7  # the surveys' pictures are resampled: noise of neighbouring pixels is alike
_SKY = np.array([0.016, 0.016, 0.01], np.float32)
_N_NEIGHBOURS = 14.0
_NEIGHBOUR_COLOURS = np.array([[1.3, 0.75, 0.4], [1.1, 0.9, 0.6], [0.95, 1.0, 1.0], [0.75, 0.9, 1.3]], np.float32)


def draw_picture(shape: Shape, side_px: int, rng: np.random.Generator, *, zoom: float = 1.0) -> npt.NDArray[np.uint8]:
    """Draw one galaxy, roughly in the middle.

    Args:
        shape: what to draw.
        side_px: of the picture.
        rng: source of the place, the sky and all that the shape leaves open.
        zoom: how much more of the picture the galaxy fills than in the Galaxy Zoo challenge's pictures.

    Returns:
        uint8 (side_px, side_px, 3), red, green, blue; row 0 is the top.
    """
    light = np.zeros((side_px, side_px, 3), np.float32)
    off_px = np.clip(rng.normal(0, 0.008, 2), -0.02, 0.02) * side_px
    row, column = np.round(side_px / 2 + off_px).astype(int)
    radius_px = zoom * shape.radius * side_px
    psf_px = rng.uniform(0.0042, 0.0088) * side_px
    if shape.star > 0.5:
        _add(light, _star(radius_px, shape.brightness, rng), row, column)
    else:
        _add(light, cv2.GaussianBlur(galaxy_light(radius_px, shape, rng), (0, 0), psf_px), row, column)
    _add_neighbours(light, psf_px, rng)
    noise = cv2.GaussianBlur(rng.standard_normal(light.shape, dtype=np.float32), (0, 0), _GRAIN_PX)
    noise *= _NOISE * 2 * np.sqrt(np.pi) * _GRAIN_PX  # as scattered as it was before it was smoothed
    noise *= np.sqrt(1 + light)
    light += noise + _SKY
    planes = np.ascontiguousarray(np.moveaxis(light, -1, 0))  # sums over three planes take a third of the time
    return np.ascontiguousarray(stretch(np.moveaxis(planes, 0, -1)))


def jpeg(picture: npt.NDArray[np.uint8]) -> bytes:
    """Encode a red, green, blue picture."""
    encoded, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert encoded
    return data.tobytes()


def _add(light: Plane, stamp: Plane, row: int, column: int) -> None:
    """Add a stamp of odd side with its middle at a pixel; what reaches over the edge is cut off."""
    half, side = len(stamp) // 2, len(light)
    top, left = row - half, column - half
    inside = np.s_[max(top, 0) : min(row + half + 1, side), max(left, 0) : min(column + half + 1, side)]
    if inside[0].start < inside[0].stop and inside[1].start < inside[1].stop:
        light[inside] += stamp[
            inside[0].start - top : inside[0].stop - top, inside[1].start - left : inside[1].stop - left
        ]


def _add_neighbours(light: Plane, psf_px: float, rng: np.random.Generator) -> None:
    """Add stars and small galaxies all over the picture."""
    side = len(light)
    n = rng.poisson(_N_NEIGHBOURS)
    places = rng.uniform(0, side, (n, 2)).astype(int)
    peaks = 0.06 * (1 + rng.pareto(0.9, n)).clip(max=80)
    colours = _NEIGHBOUR_COLOURS[rng.integers(0, len(_NEIGHBOUR_COLOURS), n)]
    sizes_px = psf_px * np.where(rng.random(n) < 0.5, 1.0, rng.uniform(1.1, 2.5, n))
    ratios, angles = rng.uniform(0.4, 1.0, n), rng.uniform(0, np.pi, n)
    for place, peak, colour, size_px, ratio, angle in zip(
        places, peaks, colours, sizes_px, ratios, angles, strict=True
    ):
        half = int(4 * size_px) + 3
        y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        across /= max(ratio, psf_px / size_px)  # nothing is narrower than a star
        spot = peak * np.exp(-(np.hypot(along, across) ** 2) / (2 * size_px**2))
        _add(light, np.multiply.outer(spot, colour).astype(np.float32), *place)


def _star(radius_px: float, brightness: float, rng: np.random.Generator) -> Plane:
    """Draw a saturated star with its halo and four spikes."""
    half = int(8 * radius_px)
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32) / np.float32(radius_px)
    radius = np.hypot(x, y)
    halo = 3 * (1 + (radius / 0.15) ** 2) ** -1.6
    spikes = sum(np.exp(-np.abs(a) / 0.9 - (b / 0.05) ** 2) for a, b in ((x, y), (y, x)))
    colour = _NEIGHBOUR_COLOURS[rng.integers(0, len(_NEIGHBOUR_COLOURS))]
    return (brightness * np.multiply.outer(halo + 0.25 * spikes, colour)).astype(np.float32)
