"""Colour JPEG cutouts of the simulated sky, as the SDSS and the Pan-STARRS services draw them."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from astropy.wcs import WCS

from deepsky.catalogue.survey import PIXEL_ARCSEC
from deepsky.simulation.fields import tan_wcs
from deepsky.simulation.frames import DETECTORS
from deepsky.simulation.light import Seeing, draw_light

_NONLINEARITY = 2.25
_QUALITY = 95


@dataclass(frozen=True)
class Channel:
    """One colour of a picture.

    Attributes:
        band: of u, g, r, i, z the one nearest to the filter.
        scale: weight of the filter's nanomaggies per pixel in the picture.
        noise_nmgy: standard deviation of the sky, nanomaggies per pixel of 1 square arcsec.
        photon_nmgy: variance that a nanomaggy of light adds, nanomaggies squared per nanomaggy.
    """

    band: str
    scale: float
    noise_nmgy: float
    photon_nmgy: float


def _sdss_channel(band: str, scale: float) -> Channel:
    detector = DETECTORS[band]
    return Channel(band, 0.4 * scale, detector.noise_nmgy / PIXEL_ARCSEC, detector.nmgy_per_count / detector.gain)


# Red, green and blue of the survey's own pictures; they reproduce its frame-irg JPEGs from the frames' nanomaggies.
SDSS_CHANNELS = (_sdss_channel("i", 5.0), _sdss_channel("r", 6.5), _sdss_channel("g", 9.0))
PANSTARRS_SEEING_ARCSEC = {"g": 1.31, "r": 1.19, "i": 1.11, "z": 1.07, "y": 1.02}


def _panstarrs_channel(filter_name: str, scale: float, depth_mag: float) -> Channel:
    """Noise per square arcsec from the five-sigma depth of a point source in the stacks."""
    sigma_arcsec = PANSTARRS_SEEING_ARCSEC[filter_name] / 2.355
    noise_nmgy = 10 ** (-0.4 * (depth_mag - 22.5)) / 5 / (4 * np.pi * sigma_arcsec**2) ** 0.5
    return Channel("z" if filter_name == "y" else filter_name, scale, noise_nmgy, 2e-4)


# The usual colour choice: the reddest, the middle and the bluest filter. Depths: Chambers et al. 2016, 3 pi stacks.
PANSTARRS_FILTERS = ("y", "i", "g")
PANSTARRS_CHANNELS = (
    _panstarrs_channel("y", 2.2, 21.3),
    _panstarrs_channel("i", 2.6, 23.1),
    _panstarrs_channel("g", 3.8, 23.3),
)


def colour_jpeg(
    sources: pd.DataFrame,
    mags: npt.NDArray[np.float64],
    channels: tuple[Channel, Channel, Channel],
    seeing: tuple[Seeing, Seeing, Seeing],
    wcs: WCS,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> bytes:
    """Draw, expose and stretch one picture.

    Args:
        sources: the sky around it, rows of the truth table.
        mags: AB magnitudes of the sources in the three filters, (n, 3).
        channels: red, green, blue.
        seeing: of each channel.
        wcs: of the picture, see `north_up`.
        shape: rows, columns.
        rng: source of the noise.
    """
    pixel_arcsec = float(np.sqrt(abs(np.linalg.det(wcs.wcs.cd)))) * 3600
    planes = []
    for index, (channel, exposure) in enumerate(zip(channels, seeing, strict=True)):
        noise = channel.noise_nmgy * pixel_arcsec
        flux_nmgy = 10 ** (-0.4 * (mags[:, index] - 22.5))
        light = draw_light(shape, wcs, sources, flux_nmgy, band=channel.band, seeing=exposure, noise_nmgy=noise)
        sigma = np.sqrt(noise**2 + channel.photon_nmgy * light)
        planes.append(channel.scale * (light + sigma * rng.standard_normal(shape, dtype=np.float32)))
    picture = stretch(np.stack(planes, axis=-1))
    encoded, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert encoded
    return data.tobytes()


def north_up(ra_deg: float, dec_deg: float, pixel_arcsec: float, shape: tuple[int, int]) -> WCS:
    """WCS of a picture with north up and east left; row 0 is its top."""
    cd = np.diag([-pixel_arcsec, -pixel_arcsec]) / 3600
    return tan_wcs(ra_deg, dec_deg, cd, ((shape[1] - 1) / 2, (shape[0] - 1) / 2))


def stretch(colours: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Compress the summed intensity by asinh and keep the colour, also where a channel saturates.

    Args:
        colours: scaled red, green and blue, (rows, columns, 3).

    Source:
        Lupton et al. 2004, PASP 116, 133, with the constants of the SDSS pictures.
    """
    intensity = colours.sum(axis=-1, keepdims=True)
    intensity = np.where(intensity == 0, np.float32(1e-12), intensity)
    shown = colours * (np.arcsinh(intensity * _NONLINEARITY) / (_NONLINEARITY * intensity))
    shown = shown / np.maximum(shown.max(axis=-1, keepdims=True), 1)
    return np.round(255 * np.clip(shown, 0, 1)).astype(np.uint8)


def panstarrs_mags(sources: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Approximate magnitudes in y, i and g of Pan-STARRS from those of SDSS, (n, 3).

    Source:
        Tonry et al. 2012, ApJ 750, 99, quadratic relations in g-r.
    """
    colour = (sources["g"] - sources["r"]).to_numpy(np.float64)
    y = sources["z"] + 0.031 - 0.106 * colour + 0.011 * colour**2
    i = sources["i"] + 0.004 - 0.014 * colour + 0.001 * colour**2
    g = sources["g"] - 0.011 - 0.125 * colour - 0.015 * colour**2
    return np.stack([y, i, g], axis=-1)
