"""Prepare a picture to learn from: its middle, in gray if asked, smoothed, and as large as the network wants it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from deepsky.imaging.pictures import Picture, fit_picture, middle, to_gray

Denoise = Literal["none", "median", "bilateral", "nlm"]
# What a strength may be, by method.
_STRENGTHS: Mapping[str, tuple[float, float]] = {
    "none": (0.0, 0.0), "median": (3.0, 31.0), "bilateral": (1.0, 255.0), "nlm": (1.0, 100.0),
}  # fmt: skip
_BILATERAL_SIGMA_PX = 2.0
_NLM_PATCH_PX, _NLM_SEARCH_PX = 7, 21  # OpenCV's own defaults


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


@dataclass(frozen=True)
class Preparation:
    """How pictures are prepared; the same when they are packed and when a network is asked about new ones.

    Attributes:
        shape_px: (height, width) of the result; another aspect is squeezed.
        crop_px: side of the middle square that is kept before anything else; None keeps all.
        denoise: how the noise is smoothed, at the resolution that it came with.
        denoise_strength: see ``check_denoise``.
        gray: one channel of luminance instead of three of colour.
    """

    shape_px: tuple[int, int]
    crop_px: int | None = None
    denoise: Denoise = "none"
    denoise_strength: float = 0.0
    gray: bool = False

    def apply(self, where: object, picture: Picture) -> Picture:
        """Prepare one picture.

        Args:
            where: names the picture in errors.
            picture: uint8, (height, width, 3), red, green, blue; or (height, width, 1), which stays gray.

        Returns:
            uint8, (*shape_px, 1 or 3).

        Raises:
            DataError: the picture is smaller than ``crop_px``.
        """
        picture = middle(where, picture, self.crop_px)
        if self.gray and picture.shape[2] == 3:
            picture = to_gray(picture)
        return fit_picture(_denoised(picture, self.denoise, self.denoise_strength), self.shape_px)


def _denoised(picture: Picture, denoise: Denoise, strength: float) -> Picture:
    """Smooth (height, width, 1 or 3); OpenCV drops a single channel's axis, which comes back here."""
    if denoise == "none":
        return picture
    picture = np.ascontiguousarray(picture)
    if denoise == "median":
        smooth = cv2.medianBlur(picture, int(strength))
    elif denoise == "bilateral":
        smooth = cv2.bilateralFilter(picture, -1, strength, _BILATERAL_SIGMA_PX)
    elif picture.shape[2] == 1:
        smooth = cv2.fastNlMeansDenoising(picture, None, strength, _NLM_PATCH_PX, _NLM_SEARCH_PX)
    else:
        # In place of red and blue: the method weighs lightness against colour, and expects OpenCV's order.
        smooth = cv2.fastNlMeansDenoisingColored(
            np.ascontiguousarray(picture[..., ::-1]), None, strength, strength, _NLM_PATCH_PX, _NLM_SEARCH_PX
        )[..., ::-1]
    return smooth.reshape(picture.shape)
