"""Magnitudes that a catalogue gives of its objects."""

import pandas as pd

_SDSS = ("u", "g", "r", "i", "z")
_FAINTEST = 40.0


def r_magnitudes(objects: pd.DataFrame) -> pd.Series | None:
    """Return the r magnitude of each object, NaN where there is none (SDSS writes -9999).

    Args:
        objects: a catalogue. A column ``r`` is a magnitude only where SDSS' five stand side by side.
    """
    if not set(_SDSS) <= set(objects.columns):
        return None
    magnitudes = pd.to_numeric(objects["r"], errors="coerce")
    return magnitudes.where((magnitudes > 0) & (magnitudes < _FAINTEST))
