"""Images of a packed dataset as a person wants to see them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from deepsky.datasets.packed import DatasetCard
from deepsky.imaging.lupton import lupton_rgb


def shown(image: npt.NDArray[Any], card: DatasetCard) -> npt.NDArray[np.uint8]:
    """Return a picture of an image: itself, or of flux the colour picture of the card's colour bands.

    Args:
        image: (height, width, channel), one of a dataset's images.
        card: of that dataset.

    Returns:
        uint8, (height, width, 3), or (height, width) of one channel.
    """
    if card.kind == "flux":
        return lupton_rgb(image[..., [card.bands.index(band) for band in card.colour_bands]])
    return image[..., 0] if image.shape[2] == 1 else image
