"""How pictures may be prepared, as params.yaml says it. Light: it is read before anything heavy is imported."""

from collections.abc import Mapping
from typing import Literal

Denoise = Literal["none", "median", "bilateral", "nlm"]
# What a strength may be, by method.
_STRENGTHS: Mapping[str, tuple[float, float]] = {
    "none": (0.0, 0.0), "median": (3.0, 31.0), "bilateral": (1.0, 255.0), "nlm": (1.0, 100.0),
}  # fmt: skip


def check_denoise(denoise: Denoise, strength: float) -> None:
    """Refuse a strength that the method does not know.

    Args:
        denoise: the method.
        strength: ``median``: side of the window, an odd number of pixels. ``bilateral``: differences, in gray levels
            of 255, that are smoothed away. ``nlm`` (non-local means): OpenCV's h, about the standard deviation of the
            noise in gray levels. ``none``: 0. On SDSS JPEGs 3, 20 and 3 take the grain out of a disc and leave its
            spiral arms; median 5 and nlm 6 blur them.

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
