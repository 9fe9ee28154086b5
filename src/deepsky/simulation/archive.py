"""The simulated archive: serves what SDSS and Pan-STARRS serve, from a seed instead of the network."""

import numpy as np
import pandas as pd

from deepsky.catalogue.sky import unit_vectors
from deepsky.catalogue.survey import BANDS, FRAME_SHAPE
from deepsky.errors import DataError
from deepsky.simulation.fields import Field, frame_wcs, plan_fields
from deepsky.simulation.frames import DETECTORS, expose
from deepsky.simulation.jpegs import (
    PANSTARRS_CHANNELS,
    PANSTARRS_FILTERS,
    PANSTARRS_SEEING_ARCSEC,
    SDSS_CHANNELS,
    colour_jpeg,
    north_up,
    panstarrs_mags,
)
from deepsky.simulation.light import SDSS_SEEING_ARCSEC, Seeing, draw_light, draw_seeing
from deepsky.simulation.params import CatalogueParams
from deepsky.simulation.sky import draw_sky

PANSTARRS_PIXEL_ARCSEC = 0.25
# What a random stream is for; with the survey's seed and the name of what is drawn it seeds the stream.
_SDSS_NIGHT, _PANSTARRS_NIGHT, _FRAME, _SDSS_JPEG, _PANSTARRS_JPEG = 10, 11, 12, 13, 14


class SimulatedArchive:
    """One simulated survey. Every answer depends on the parameters and the question alone, never on their order."""

    def __init__(self, params: CatalogueParams) -> None:
        """Draw the sky.

        Args:
            params: the same as the catalogue's.
        """
        self._seed = params.seed
        self.fields = {field.key: field for field in plan_fields(params.n_fields, params.seed)}
        sky = draw_sky(params)
        self._groups = {int(group): sources for group, sources in sky.groupby("group")}
        self._centres = unit_vectors(
            np.array([field.ra_deg for field in self.fields.values()]),
            np.array([field.dec_deg for field in self.fields.values()]),
        )

    def frame(self, run: int, camcol: int, field: int, band: str) -> bytes:
        """Expose one band's frame of one field: a ``.fits.bz2`` file.

        Raises:
            DataError: the survey has no such field.
        """
        where = self._field(run, camcol, field)
        sources, wcs = self._groups[where.group], frame_wcs(where, band)
        light = draw_light(
            FRAME_SHAPE,
            wcs,
            sources,
            10 ** (-0.4 * (sources[band].to_numpy(np.float64) - 22.5)),
            band=band,
            seeing=self.seeing(run, camcol, field)[band],
            noise_nmgy=DETECTORS[band].noise_nmgy,
        )
        rng = np.random.default_rng([self._seed, _FRAME, *where.key, BANDS.index(band)])
        return expose(light, where, band, wcs, rng)

    def sdss_jpeg(self, ra_deg: float, dec_deg: float, *, scale: float, width: int, height: int) -> bytes:
        """Draw a colour cutout as SDSS' service does: north up, i, r and g as red, green and blue.

        Args:
            ra_deg: of the middle.
            dec_deg: of the middle.
            scale: arcsec per pixel.
            width: pixels.
            height: pixels.
        """
        where = self._nearest(ra_deg, dec_deg)
        night = self.seeing(*where.key)
        sources = self._groups[where.group]
        wcs = north_up(ra_deg, dec_deg, scale, (height, width))
        rng = self._rng_at(_SDSS_JPEG, ra_deg, dec_deg)
        mags = sources[["i", "r", "g"]].to_numpy(np.float64)
        seeing = (night["i"], night["r"], night["g"])
        return colour_jpeg(sources, mags, SDSS_CHANNELS, seeing, wcs, (height, width), rng)

    def panstarrs_jpeg(self, ra_deg: float, dec_deg: float, *, size: int) -> bytes:
        """Draw a colour cutout as STScI's service does: north up, 0.25 arcsec/px, y, i and g as red, green, blue.

        Args:
            ra_deg: of the middle.
            dec_deg: of the middle.
            size: width and height, pixels.
        """
        where = self._nearest(ra_deg, dec_deg)
        night = draw_seeing(PANSTARRS_SEEING_ARCSEC, np.random.default_rng([self._seed, _PANSTARRS_NIGHT, *where.key]))
        y, i, g = (night[name] for name in PANSTARRS_FILTERS)
        sources = self._groups[where.group]
        wcs = north_up(ra_deg, dec_deg, PANSTARRS_PIXEL_ARCSEC, (size, size))
        rng = self._rng_at(_PANSTARRS_JPEG, ra_deg, dec_deg)
        return colour_jpeg(sources, panstarrs_mags(sources), PANSTARRS_CHANNELS, (y, i, g), wcs, (size, size), rng)

    def seeing(self, run: int, camcol: int, field: int) -> dict[str, Seeing]:
        """Give the true seeing of each band of one field."""
        where = self._field(run, camcol, field)
        return draw_seeing(SDSS_SEEING_ARCSEC, np.random.default_rng([self._seed, _SDSS_NIGHT, *where.key]))

    def sources(self, run: int, camcol: int, field: int) -> pd.DataFrame:
        """Give the truth of one field and its overlapping neighbours: rows of `draw_sky`."""
        return self._groups[self._field(run, camcol, field).group]

    def _field(self, run: int, camcol: int, field: int) -> Field:
        if (run, camcol, field) not in self.fields:
            raise DataError(
                f"simulated survey, run {run}, camcol {camcol}, field {field}",
                "no such field",
                "make the catalogue with the same parameters (dvc repro catalogue)",
            )
        return self.fields[run, camcol, field]

    def _nearest(self, ra_deg: float, dec_deg: float) -> Field:
        cosine = self._centres @ unit_vectors(np.array([ra_deg]), np.array([dec_deg]))[0]
        return list(self.fields.values())[int(cosine.argmax())]

    def _rng_at(self, purpose: int, ra_deg: float, dec_deg: float) -> np.random.Generator:
        place = (round((ra_deg % 360) * 1e7), round((dec_deg + 90) * 1e7))
        return np.random.default_rng([self._seed, purpose, *place])
