"""MNIST, handwritten digits: a warm-up that shows that a set-up works.

It has no simulated stand-in: other digits, as scikit-learn's of 8 x 8 pixels, would pass for what they are not.
"""

from pathlib import Path

from deepsky.datasets.collection import Collection, CollectionParams, Objects
from deepsky.datasets.keras_arrays import read_arrays

CLASSES = tuple("0123456789")


def read(source: Path, params: CollectionParams) -> Objects:
    """Read ``mnist.npz`` as Keras stores it, or a part of it: gray images of 28 x 28 pixels.

    Raises:
        DataError: not such a file.

    Source:
        LeCun, Cortes & Burges, the MNIST database of handwritten digits.
    """
    return read_arrays(source, params, (28, 28), CLASSES)


COLLECTION = Collection(read, gray=True, group_by="given", refused=("mirror", "turn"))
