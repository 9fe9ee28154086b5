"""Light of the simulated sky on a pixel grid: point sources, discs and bulges seen through the atmosphere."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import galsim
import numpy as np
import numpy.typing as npt
import pandas as pd
from astropy.wcs import WCS

# Median seeing of 19,022 SDSS objects, FWHM in arcsec; in r the 16th and 84th percentiles are 0.98 and 1.33.
SDSS_SEEING_ARCSEC = {"u": 1.37, "g": 1.27, "r": 1.15, "i": 1.08, "z": 1.10}
_SEEING_SCATTER = 0.13  # of the natural logarithm, common to a field's bands
_BAND_SCATTER = 0.02
_WING_SHARE = 0.03  # of the light of a point source, in a power-law wing
_WING_FWHM = 6.0  # in units of the narrow Gaussian's sigma
_REDDER_BULGE = {"u": 0.6, "g": 0.85, "r": 1.0, "i": 1.1, "z": 1.15}  # bulge fraction relative to that in r
# Folding 1 % of a galaxy's light and cutting its transform at 0.4 % stays far below the sky noise.
_ACCURACY = galsim.GSParams(folding_threshold=0.01, maxk_threshold=4e-3, maximum_fft_size=8192)
_NEGLIGIBLE = 0.06  # of the sky noise in one pixel: where a source's light is cut off
_LARGEST_HALF_PX = 300


@dataclass(frozen=True)
class Seeing:
    """A point source's profile: two Gaussians and a power-law wing, as the SDSS pipeline models it.

    Attributes:
        fwhm_arcsec: full width at half maximum, the pixel included.
        halo: central height of the wide Gaussian (of twice the sigma) over that of the narrow one.
    """

    fwhm_arcsec: float
    halo: float


class Shape(NamedTuple):
    """What a source looks like without atmosphere: columns of the sky's truth table; size 0 is a point."""

    size_arcsec: float
    bulge_size_arcsec: float
    axis_ratio: float
    pa_deg: float
    bulge_fraction: float


def draw_seeing(medians_arcsec: dict[str, float], rng: np.random.Generator) -> dict[str, Seeing]:
    """Draw one exposure's seeing around the median of each band."""
    night, halo = _SEEING_SCATTER * np.clip(rng.standard_normal(), -2, 2), rng.uniform(0.10, 0.18)
    return {
        band: Seeing(float(median * np.exp(night + _BAND_SCATTER * rng.standard_normal())), float(halo))
        for band, median in medians_arcsec.items()
    }


def draw_light(
    shape: tuple[int, int],
    wcs: WCS,
    sources: pd.DataFrame,
    flux_nmgy: npt.NDArray[np.float64],
    *,
    band: str,
    seeing: Seeing,
    noise_nmgy: float,
) -> npt.NDArray[np.float32]:
    """Draw the expected light of the sources, without sky and noise.

    Args:
        shape: rows, columns.
        wcs: TAN, square pixels.
        sources: rows of the sky's truth table; those that do not reach into the image are skipped.
        flux_nmgy: total flux of each source in this band, nanomaggies.
        band: of u, g, r, i, z the nearest; bulges are redder than discs.
        seeing: of this exposure.
        noise_nmgy: of one pixel's sky; sources are cut off where they are negligible against it.

    Returns:
        Nanomaggies per pixel, float32, (rows, columns).
    """
    light = np.zeros(shape, np.float32)
    to_pixels = np.linalg.inv(wcs.wcs.cd * 3600)
    pixel_arcsec = float(np.sqrt(abs(np.linalg.det(wcs.wcs.cd)))) * 3600
    image = galsim.Image(light, xmin=0, ymin=0, scale=pixel_arcsec)
    x_px, y_px = wcs.wcs_world2pix(sources[["ra", "dec"]].to_numpy(), 0).T
    limit = _NEGLIGIBLE * noise_nmgy / pixel_arcsec**2  # nanomaggies per square arcsec
    shapes = sources[list(Shape._fields)].to_numpy(np.float64)
    reach_px = _LARGEST_HALF_PX
    near = (x_px > -reach_px) & (x_px < shape[1] + reach_px) & (y_px > -reach_px) & (y_px < shape[0] + reach_px)
    for index in np.flatnonzero(near):
        source, flux = Shape(*shapes[index]), float(flux_nmgy[index])
        half_px = int(np.ceil(_reach_arcsec(source, flux, seeing, limit) / pixel_arcsec))
        half_px = min(max(half_px, 6), _LARGEST_HALF_PX)
        x, y = float(x_px[index]), float(y_px[index])
        stamp = galsim.BoundsI(round(x) - half_px, round(x) + half_px, round(y) - half_px, round(y) + half_px)
        stamp = stamp & image.bounds
        if stamp.isDefined():
            profile = _profile(source, band, to_pixels, seeing) * flux
            profile.drawImage(image=image[stamp], method="no_pixel", add_to_image=True, center=galsim.PositionD(x, y))
    return light


@lru_cache(maxsize=512)
def point_profile(seeing: Seeing, *, gaussians_only: bool = False) -> galsim.GSObject:
    """Give the profile of a point source of unit flux, in arcsec.

    Args:
        seeing: of the exposure.
        gaussians_only: build the wing of two Gaussians, whose transforms cost a twentieth of a Moffat's.
    """
    narrow, wide = 1.0, 4 * seeing.halo  # light: height times sigma squared
    core = (1 - _WING_SHARE) / (narrow + wide)
    shares = [(1.0, core * narrow), (2.0, core * wide)]  # sigma in units of the narrow Gaussian's, flux
    wing = [galsim.Moffat(beta=3.0, fwhm=_WING_FWHM, flux=_WING_SHARE, gsparams=_ACCURACY)]
    scale = seeing.fwhm_arcsec / _sum_of_gaussians(shares, wing).calculateFWHM()
    if gaussians_only:
        shares, wing = [*shares, (2.7, 0.6 * _WING_SHARE), (5.5, 0.4 * _WING_SHARE)], []
    return _sum_of_gaussians(shares, wing).dilate(scale)


def _sum_of_gaussians(shares: list[tuple[float, float]], others: list[galsim.GSObject]) -> galsim.GSObject:
    return galsim.Sum([galsim.Gaussian(sigma=sigma, flux=flux, gsparams=_ACCURACY) for sigma, flux in shares] + others)


def _profile(source: Shape, band: str, to_pixels: npt.NDArray[np.float64], seeing: Seeing) -> galsim.GSObject:
    """One source of unit flux as seen, along the image's axes, in arcsec."""
    if source.size_arcsec == 0:
        return point_profile(seeing)
    point = point_profile(seeing, gaussians_only=True)
    angle = np.radians(source.pa_deg)
    along_columns, along_rows = to_pixels @ [np.sin(angle), np.cos(angle)]
    beta = float(np.arctan2(along_rows, along_columns)) * galsim.radians
    share, ratio = source.bulge_fraction, source.axis_ratio
    bulge_share = 1.0 if share == 1 else min(1.0, share * _REDDER_BULGE[band])
    bulge_ratio = ratio if share == 1 else (1 + ratio) / 2  # a bulge in a disc is rounder than the disc
    parts = []
    # The sizes are those of the major axis; galsim's shear keeps the geometric mean of the axes.
    if bulge_share > 0:
        radius = source.bulge_size_arcsec * bulge_ratio**0.5
        bulge = galsim.DeVaucouleurs(half_light_radius=radius, flux=bulge_share, gsparams=_ACCURACY)
        parts.append(bulge.shear(q=bulge_ratio, beta=beta))
    if bulge_share < 1:
        radius = source.size_arcsec * ratio**0.5
        disc = galsim.Exponential(half_light_radius=radius, flux=1 - bulge_share, gsparams=_ACCURACY)
        parts.append(disc.shear(q=ratio, beta=beta))
    return galsim.Convolve([galsim.Sum(parts), point], gsparams=_ACCURACY)


def _reach_arcsec(source: Shape, flux: float, seeing: Seeing, limit: float) -> float:
    """Radius beyond which a source is fainter than ``limit`` (nanomaggies per square arcsec)."""
    wing_arcsec = _WING_FWHM * seeing.fwhm_arcsec / 2.5 / 1.02  # scale radius of the Moffat wing, FWHM / 1.02
    peak = _WING_SHARE * flux * 2 / (np.pi * wing_arcsec**2)
    reach = max(wing_arcsec * (peak / limit) ** (1 / 6), 2.2 * seeing.fwhm_arcsec)
    size, bulge_size = source.size_arcsec, source.bulge_size_arcsec
    if size == 0:
        return reach
    ratio, share = source.axis_ratio, source.bulge_fraction
    scale = size / 1.678
    disc = scale * np.log(max((1 - share) * flux / (2 * np.pi * scale**2 * ratio) / limit, 1.0))
    middle = share * flux / (7.215 * np.pi * bulge_size**2 * ratio)  # de Vaucouleurs at its half-light radius
    bulge = bulge_size * max(1 + np.log(max(middle / limit, 1e-3)) / 7.67, 0.0) ** 4
    return reach + max(disc, bulge)
