"""CIFAR-10, small photographs of ten kinds of things: a warm-up that shows that a set-up works. It has no stand-in."""

from pathlib import Path

from deepsky.formats.format import Format, Objects
from deepsky.formats.keras_arrays import read_arrays
from deepsky.formats.params import PicturesParams
from deepsky.formats.part_folders import may_hold_pictures, read_pictures

# In the order of the published labels.
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def read(source: Path, params: PicturesParams) -> Objects:
    """Read the arrays of ``keras.datasets.cifar10``, or pictures.

    Args:
        source: ``.npz`` with x_train, y_train, x_test and y_test; or a folder or zip of train/CLASS/NAME.jpg and
            test/CLASS/NAME.jpg (or .png).
        params: how to prepare the images.

    Returns:
        The group of a row is its part (``group_by: given`` keeps the published test part); its id says where in that
        part it comes from.

    Raises:
        DataError: not such a source; a picture of an unknown part or class; two pictures of one name.

    Source:
        Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
    """
    if not may_hold_pictures(source):
        return read_arrays(source, params, (32, 32, 3), CLASSES)
    return read_pictures(source, params, CLASSES)


FORMAT = Format(read, refused=("turn",))
