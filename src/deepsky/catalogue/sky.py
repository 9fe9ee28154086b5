"""Directions on the sky as vectors, whose distances have no seam at ra 0 and no pole."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def unit_vectors(ra_deg: Array, dec_deg: Array) -> Array:
    """Give the unit vectors, (n, 3), towards n positions in degrees."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
