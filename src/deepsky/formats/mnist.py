"""MNIST, handwritten digits: a warm-up that shows that a set-up works.

It has no simulated stand-in: other digits, as scikit-learn's of 8 x 8 pixels, would pass for what they are not.
"""

from pathlib import Path

from deepsky.formats.format import Format, Objects
from deepsky.formats.keras_arrays import read_arrays
from deepsky.formats.params import PicturesParams
from deepsky.formats.part_folders import may_hold_pictures, read_pictures

CLASSES = tuple("0123456789")


def read(source: Path, params: PicturesParams) -> Objects:
    """Read ``mnist.npz`` as Keras stores it, or pictures: gray images of 28 x 28 pixels.

    Args:
        source: ``.npz`` with x_train, y_train, x_test and y_test; or a folder or zip of train/DIGIT/NAME.png and
            test/DIGIT/NAME.png (or .jpg).
        params: how to prepare the images.

    Raises:
        DataError: not such a source.

    Source:
        LeCun, Cortes & Burges, the MNIST database of handwritten digits.
    """
    if not may_hold_pictures(source):
        return read_arrays(source, params, (28, 28), CLASSES)
    return read_pictures(source, params, CLASSES, gray=True)


FORMAT = Format(read, gray=True, refused=("mirror", "turn"))
