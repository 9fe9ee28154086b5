"""The magnitudes that a catalogue gives beside its objects."""

import pandas as pd

_BANDS = "ugriz"


def with_magnitudes(objects: pd.DataFrame) -> pd.DataFrame:
    """Add mag_u to mag_z where a table has the columns u, g, r, i and z of SDSS, all of them numbers.

    A table with some of them is left as it is: its z may well be a redshift.
    """
    if not all(pd.api.types.is_numeric_dtype(objects.get(band)) for band in _BANDS):
        return objects
    return objects.assign(**{f"mag_{band}": objects[band].astype(float) for band in _BANDS})
