"""How bright and how large what stands in the middle of cutouts is, measured from their pixels."""

import numpy as np
import numpy.typing as npt

from deepsky.imaging.photometry import FluxArray

_APERTURE, _SKY = 0.25, 0.375  # radius of the aperture, and from where on there is sky; shares of the side
_SIGMA_OF_MAD = 1.4826
Array = npt.NDArray[np.float64]


def measure_middles(flux_nmgy: FluxArray) -> tuple[Array, Array]:
    """Measure what is in a circle in the middle of each cutout, a quarter of the side in radius, above the sky around.

    Sky and its noise are median and scaled median absolute deviation of the pixels farther out than 3/8 of the side.

    Args:
        flux_nmgy: one band, (n, size, size).

    Returns:
        The signal-to-noise ratio in the circle, (n,), its noise being that of the sky; and the radius in pixels of the
        circle that holds half of the light, (n,). NaN where the sky has no noise, or no light is above it.
    """
    size = flux_nmgy.shape[1]
    offsets = np.arange(size) - (size - 1) / 2
    radius = np.hypot(*np.meshgrid(offsets, offsets)).ravel()
    pixels = flux_nmgy.reshape(len(flux_nmgy), -1)
    outside = pixels[:, radius >= _SKY * size]
    sky = np.median(outside, axis=1, keepdims=True)
    noise = _SIGMA_OF_MAD * np.median(np.abs(outside - sky), axis=1).astype(np.float64)
    inwards = np.argsort(radius, kind="stable")[: int((radius <= _APERTURE * size).sum())]
    growth = np.cumsum(pixels[:, inwards] - sky, axis=1, dtype=np.float64)
    total = growth[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(noise > 0, total / (noise * np.sqrt(len(inwards))), np.nan)
    half = np.sqrt(((growth >= total[:, np.newaxis] / 2).argmax(axis=1) + 1) / np.pi)
    return ratio, np.where(total > 0, half, np.nan)
