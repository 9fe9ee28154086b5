"""Magnitudes that a catalogue gives of its objects."""

import numpy as np
import pandas as pd

SDSS_BANDS = ("u", "g", "r", "i", "z")
_FAINTEST = 40.0


def r_magnitudes(objects: pd.DataFrame) -> pd.Series:
    """Return the r magnitude of each object, NaN where it is not known (SDSS writes -9999).

    Args:
        objects: a catalogue. A column ``r`` is a magnitude only where SDSS' five stand side by side.
    """
    if not set(SDSS_BANDS) <= set(objects.columns):
        return pd.Series(np.nan, index=objects.index)
    magnitudes = pd.to_numeric(objects["r"], errors="coerce")
    return magnitudes.where((magnitudes > 0) & (magnitudes < _FAINTEST))
