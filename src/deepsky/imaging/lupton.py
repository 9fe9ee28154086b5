"""Lupton's stretch: colour pictures of flux that keep their hue at every brightness."""

import numpy as np
import numpy.typing as npt

LUPTON_STRETCH_NMGY, LUPTON_Q = 0.5, 8.0


def lupton_rgb(
    flux: npt.NDArray[np.float32], stretch_nmgy: float = LUPTON_STRETCH_NMGY, q: float = LUPTON_Q
) -> npt.NDArray[np.uint8]:
    """Colour picture whose hue does not change with brightness; saturated pixels keep theirs.

    With I the mean of the three bands, each band is scaled by asinh(q I / stretch) / (q I); a pixel of which a band
    exceeds 1 is divided by its greatest band.

    Args:
        flux: nanomaggies of the red, green and blue band, (..., 3), for example (n, height, width, 3).
        stretch_nmgy: nanomaggies where the curve is still linear, > 0.
        q: how strongly bright pixels are compressed, > 0.

    Returns:
        uint8, the shape of ``flux``.

    Source:
        Lupton et al. 2004, PASP 116, 133.
    """
    red, green, blue = (np.ascontiguousarray(flux[..., band], np.float32) for band in range(3))
    intensity = red + green
    intensity += blue
    intensity *= np.float32(q / (3 * stretch_nmgy))
    np.abs(intensity, out=intensity)  # asinh(x) / x is even
    np.maximum(intensity, np.float32(1e-6), out=intensity)  # 0 / 0 has the limit 1
    scale = np.arcsinh(intensity)
    scale /= intensity
    scale *= np.float32(1 / stretch_nmgy)
    greatest = np.maximum(np.maximum(red, green), blue)
    greatest *= scale
    scale *= np.float32(255) / np.maximum(greatest, np.float32(1))
    rgb = np.empty(flux.shape, np.uint8)
    for band, values in enumerate((red, green, blue)):
        values *= scale
        np.maximum(values, np.float32(0), out=values)
        values += np.float32(0.5)
        rgb[..., band] = values
    return rgb
