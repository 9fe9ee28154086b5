"""A network that looks at an image from several sides and answers with the mean: exact views, nothing is resampled."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from deepsky.errors import DataError
from deepsky.networks.augment import swapped

# (quarter turns, mirror image) of the views of each number; mirror images stand last.
VIEWS: dict[int, tuple[tuple[int, bool], ...]] = {
    1: ((0, False),),
    2: ((0, False), (0, True)),
    4: tuple((turns, False) for turns in range(4)),
    8: tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4)),
}


def average_views(core: keras.Model, n_views: Literal[1, 2, 4, 8], swaps: Sequence[int], name: str) -> keras.Model:
    """Build image -> mean answer over views of it.

    All views of a batch go through the core together, as a batch of n_views times the images: the core stands in the
    graph once, and needs n_views times the memory.

    Args:
        core: image -> answer.
        n_views: 1: as it is; 2: and its mirror image; 4: turned by 0, 90, 180 and 270 degrees; 8: all of these.
        swaps: for each output of the core the one that a mirror image turns it into, as ``mirror_swaps`` gives it.
        name: of the model.

    Raises:
        DataError: images are not square, and 4 or 8 views want quarter turns.
    """
    if n_views == 1:
        return core
    image = keras.Input(core.input_shape[1:], dtype=core.inputs[0].dtype, name="image")
    views = DihedralViews(n_views, name="views")(image)
    return keras.Model(image, MeanOfViews(n_views, swaps, name="mean_of_views")(core(views)), name=name)


@keras.saving.register_keras_serializable(package="deepsky")
class DihedralViews(keras.layers.Layer):
    """Turn images and mirror them: (n, size, size, channel) -> (n_views * n, size, size, channel), view by view."""

    def __init__(self, n_views: int, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.n_views = n_views

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Refuse images that a quarter turn does not fit.

        Raises:
            DataError: they are not square.
        """
        refuse_oblong(self.n_views, input_shape)

    def call(self, image: Any) -> Any:
        """Return all views, in the image's dtype."""
        return ops.concatenate([_view(image, *view) for view in VIEWS[self.n_views]], axis=0)

    def compute_output_spec(self, image: Any) -> keras.KerasTensor:
        """Keep integers integers."""
        return keras.KerasTensor((None, *image.shape[1:]), dtype=image.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "n_views": self.n_views}


def views_of(images: npt.NDArray[Any], n_views: int) -> list[npt.NDArray[Any]]:
    """Return what ``DihedralViews`` makes of images, view by view; nothing is copied.

    Args:
        images: (n, height, width, channel).
        n_views: as for ``average_views``.

    Raises:
        DataError: images are not square, and 4 or 8 views want quarter turns.
    """
    refuse_oblong(n_views, images.shape)
    mirrored_too = {False: images, True: images[:, :, ::-1]}
    return [np.rot90(mirrored_too[mirrored], turns, axes=(1, 2)) for turns, mirrored in VIEWS[n_views]]


def mean_of_views(answers: Sequence[npt.NDArray[np.float32]], swaps: Sequence[int]) -> npt.NDArray[np.float32]:
    """Average the answers about each view, (n, output), as ``MeanOfViews`` does."""
    views = VIEWS[len(answers)]
    plain = [one[:, list(swaps)] if mirrored else one for one, (_, mirrored) in zip(answers, views, strict=True)]
    return np.mean(plain, axis=0, dtype=np.float32)


def images_at_once(model: keras.Model, batch_size: int) -> int:
    """Return how many images make a batch for a model of ``average_views``: all views of them are in memory."""
    n_views = next((layer.n_views for layer in model.layers if isinstance(layer, DihedralViews)), 1)
    return max(1, batch_size // n_views)


def refuse_oblong(n_views: int, shape: Sequence[int | None]) -> None:
    """Refuse quarter turns of images that are not square.

    Args:
        n_views: as for ``average_views``.
        shape: of a batch of images, (n, height, width, channel).

    Raises:
        DataError: they are not square, and 4 or 8 views want quarter turns.
    """
    if n_views >= 4 and shape[1] != shape[2]:
        raise DataError(
            "test_views", f"images are {shape[1]} x {shape[2]} px", "pack square cutouts, or set it to 1 or 2"
        )


def _view(image: Any, turns: int, mirrored: bool) -> Any:
    """Return images mirrored left-right, then turned counterclockwise."""
    image = ops.flip(image, axis=2) if mirrored else image
    if turns % 2:
        image = ops.flip(ops.transpose(image, (0, 2, 1, 3)), axis=1)
    return ops.flip(image, axis=(1, 2)) if turns >= 2 else image


@keras.saving.register_keras_serializable(package="deepsky")
class MeanOfViews(keras.layers.Layer):
    """Average the answers about all views of an image: (n_views * n, output) -> (n, output), in float32."""

    def __init__(self, n_views: int, swaps: Sequence[int], **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.n_views, self.swaps = n_views, [int(place) for place in swaps]

    def call(self, answers: Any) -> Any:
        """Return the mean, answers about mirror images swapped back."""
        n_plain = sum(not mirrored for _, mirrored in VIEWS[self.n_views])
        views = ops.reshape(answers, (self.n_views, -1, answers.shape[-1]))
        if n_plain < self.n_views:
            views = ops.concatenate([views[:n_plain], swapped(views[n_plain:], self.swaps)], axis=0)
        return ops.mean(views, axis=0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return an answer for each image."""
        return (None, *input_shape[1:])

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "n_views": self.n_views, "swaps": self.swaps}
