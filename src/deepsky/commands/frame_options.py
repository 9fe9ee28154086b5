"""How a person says, on the command line, what frames and catalogues are like."""

from collections.abc import Mapping, Sequence
from typing import Any

from deepsky.config import build
from deepsky.imaging.params import Reading


def reading_of(options: Mapping[str, Any], bands: Sequence[str]) -> Reading:
    """Build a reading from options.

    Args:
        options: see ``reading_entry``.
        bands: to read.

    Raises:
        ConfigError: an option does not fit.
    """
    reading: Reading = build(reading_entry(options, bands), Reading, "options")
    return reading


def reading_entry(options: Mapping[str, Any], bands: Sequence[str]) -> dict[str, Any]:
    """Return the keys of a ``Reading`` as params.yaml has them.

    Args:
        options: its fields but ``bands``. A zero point for "" is that of every band; no ``position_band`` stands for
            r, or the first band.
        bands: to read.
    """
    zero_points = dict(options.get("zero_points") or {})
    of_all = dict.fromkeys(bands, zero_points.pop("")) if "" in zero_points else {}
    return {
        "bands": list(bands),
        "position_band": options.get("position_band") or ("r" if "r" in bands else bands[0]),
        "position": options.get("position", "radec"),
        "position_columns": list(options.get("position_columns") or ()),
        "filters": dict(options.get("filters") or {}),
        "zero_points": of_all | zero_points,
    }
