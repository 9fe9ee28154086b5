"""How frames are read and pictures prepared, as params.yaml says it. Light: read before anything heavy is imported."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Position = Literal["radec", "xy"]
Denoise = Literal["none", "median", "bilateral", "nlm"]
# What a strength may be, by method.
_STRENGTHS: Mapping[str, tuple[float, float]] = {
    "none": (0.0, 0.0), "median": (3.0, 31.0), "bilateral": (1.0, 255.0), "nlm": (1.0, 100.0),
}  # fmt: skip

# On SDSS JPEGs these take the grain out of a disc and leave its spiral arms; median 5 and nlm 6 blur them.
GENTLE: Mapping[Denoise, float] = {"none": 0.0, "median": 3.0, "bilateral": 20.0, "nlm": 3.0}


@dataclass(frozen=True)
class Reading:
    """How frames and the catalogue of their objects are to be understood.

    Attributes:
        bands: those that are read; frames of others are left alone.
        position_band: the band of x and y, and whose frame must hold an object.
        position: ``radec``, right ascension and declination (ICRS), or ``xy``, pixels from 0.
        position_columns: the two columns of the catalogue that hold it; () stands for ra and dec, or x and y.
        filters: the band by the name of a filter (in FILTER, or a part of a file's name) that does not say it.
        zero_points: AB magnitude of one unit of a pixel, by band; other frames say themselves what their pixels hold.
    """

    bands: tuple[str, ...]
    position_band: str
    position: Position = "radec"
    position_columns: tuple[str, ...] = ()
    filters: Mapping[str, str] = field(default_factory=dict)
    zero_points: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.position_columns) not in (0, 2):
            raise ValueError(f"position_columns {list(self.position_columns)} must name two columns")
        for band in (self.position_band, *self.filters.values(), *self.zero_points):
            if band not in self.bands:
                raise ValueError(f"band {band!r} is not among bands {', '.join(self.bands)}")


def check_denoise(denoise: Denoise, strength: float) -> None:
    """Refuse a strength that the method does not know.

    Args:
        denoise: the method.
        strength: ``median``: side of the window, an odd number of pixels. ``bilateral``: differences, in gray levels
            of 255, that are smoothed away. ``nlm`` (non-local means): OpenCV's h, about the standard deviation of the
            noise in gray levels. ``none``: 0.

    Raises:
        ValueError: the strength is out of range.
    """
    lowest, highest = _STRENGTHS[denoise]
    if not lowest <= strength <= highest:
        wanted = f"between {lowest:g} and {highest:g}" if highest else "0"
        raise ValueError(f"denoise_strength of denoise {denoise} must be {wanted}, not {strength:g}")
    if denoise == "median" and strength % 2 != 1:
        raise ValueError(f"denoise_strength of denoise median must be an odd number of pixels, not {strength:g}")


def check_side(key: str, side_px: int | None) -> None:
    """Refuse a side of a picture that no network takes.

    Raises:
        ValueError: names the key.
    """
    if side_px is not None and not 8 <= side_px <= 4096:
        raise ValueError(f"{key} must lie between 8 and 4096, not {side_px}")
