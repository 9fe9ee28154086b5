"""Prepare a picture to learn from: its middle, in gray if asked, smoothed, and as large as the network wants it."""

from dataclasses import dataclass

import cv2
import numpy as np

from deepsky.imaging.params import Denoise
from deepsky.imaging.pictures import Picture, fit_picture, middle, to_gray

_BILATERAL_SIGMA_PX = 2.0
_NLM_PATCH_PX, _NLM_SEARCH_PX = 7, 21  # OpenCV's own defaults


@dataclass(frozen=True)
class Preparation:
    """How pictures are prepared; the same when they are packed and when a network is asked about new ones.

    Attributes:
        shape_px: (height, width) of the result; another aspect is squeezed.
        crop_px: side of the middle square that is kept before anything else; None keeps all.
        denoise: how the noise is smoothed, at the resolution that it came with.
        denoise_strength: see ``imaging.params.check_denoise``.
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
