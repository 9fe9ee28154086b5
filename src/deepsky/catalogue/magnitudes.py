"""Magnitudes that a catalogue gives of its objects."""

import pandas as pd

SDSS_BANDS = ("u", "g", "r", "i", "z")
MAGNITUDES = tuple(f"{band}_mag" for band in SDSS_BANDS)
_FAINTEST = 40.0


def with_magnitudes(objects: pd.DataFrame) -> pd.DataFrame:
    """Add MAGNITUDES, NaN where there is none (SDSS writes -9999); a table's own columns of these names go.

    Args:
        objects: a catalogue. Its columns are magnitudes only where SDSS' five stand side by side: a z alone may be a
            redshift. Else there are no MAGNITUDES.
    """
    others = objects.drop(columns=list(MAGNITUDES), errors="ignore")
    if not set(SDSS_BANDS) <= set(objects.columns):
        return others
    numbers = {f"{band}_mag": pd.to_numeric(objects[band], errors="coerce") for band in SDSS_BANDS}
    return others.assign(**{name: one.where((one > 0) & (one < _FAINTEST)) for name, one in numbers.items()})
