"""Random views of the training images, inside the network's graph, and what a mirror image does to the answer.

The one affine resample is written out with gathers: ``keras.ops.image.affine_transform`` has no compiled form under
TensorFlow (XLA refuses it) and took six times as long under JAX.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import keras
from keras import ops

from deepsky.errors import DataError
from deepsky.networks.dropout import uniform_noise
from deepsky.networks.params import AugmentParams


@keras.saving.register_keras_serializable(package="deepsky")
class RandomView(keras.layers.Layer):
    """Show each image of a training batch from a random view; outside training, as it is.

    Views depend on seed, step and row only: they are the same under every backend, compiled or not. A layer counts in
    float32, also in a network of mixed precision: 16 bits hold neither places nor 256 shades.

    Args:
        augment: the values of an ``AugmentParams``.
        seed: of the views.
        top: the brightest that a pixel can be (255 or 1): brighter views are clipped there; None: flux has no top.
    """

    def __init__(self, augment: Mapping[str, Any], seed: int, top: float | None, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.augment, self.seed, self.top = AugmentParams(**augment), seed, top

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Start at step 0.

        Raises:
            DataError: images are not square.
        """
        if input_shape[1] != input_shape[2]:
            raise DataError("augment", f"images are {input_shape[1]} x {input_shape[2]} px", "resize them to squares")
        # "int": int64 under TensorFlow, which leaves an int32 on the host, where a compiled step cannot reach it.
        self._step = self.add_weight(shape=(), dtype="int", initializer="zeros", trainable=False, name="step")

    def go_to(self, step: int) -> None:
        """Let the next batch be that of another step."""
        self._step.assign(step)

    def call(self, pixels: Any, training: bool = False) -> tuple[Any, Any]:
        """Return the views, (n, size, size, channel), and 1 where a view is a mirror image, float32 (n,)."""
        n_images = ops.shape(pixels)[0]
        if not training:
            return pixels, ops.zeros((n_images,), "float32")
        noise = self._noise(n_images)
        mirrored = ops.cast(noise[:, 6] < 0.5, "float32") * float(self.augment.flip)
        spread = 2 * noise - 1
        if self.augment.moves:
            pixels = resample(pixels, *self._source_of(spread, mirrored, pixels.shape[1]))
        if self.augment.brightness:
            pixels = pixels * (1 + self.augment.brightness * spread[:, 0, None, None, None])
            pixels = pixels if self.top is None else ops.clip(pixels, 0.0, self.top)
        return pixels, mirrored

    def _noise(self, n_images: Any) -> Any:
        """Return the numbers that the views of a batch follow from, (n, 7), and go on to the next step."""
        noise = uniform_noise(self.seed, self._step, 7, n_images)
        self._step.assign_add(1)
        return noise

    def _source_of(self, spread: Any, mirrored: Any, size_px: int) -> tuple[Any, Any]:
        """Return from where each pixel of a view comes, column and row, (n, size, size) px: one matrix per image."""
        augment = self.augment
        angle = math.radians(augment.rotation_deg) * spread[:, 1, None, None]
        lean = ops.tan(math.radians(augment.shear_deg) * spread[:, 2, None, None])
        shrink = 1 / (1 + augment.zoom * spread[:, 3, None, None])
        moved = augment.shift * size_px * spread[:, 4:6, None, None]
        centre = (size_px - 1) / 2
        from_centre = ops.arange(size_px, dtype="float32") - centre
        row = from_centre[None, :, None]
        column = from_centre[None, None, :] * (1 - 2 * mirrored[:, None, None]) + lean * row
        cosine, sine = shrink * ops.cos(angle), shrink * ops.sin(angle)
        return (
            cosine * column - sine * row + centre + moved[:, 0],
            sine * column + cosine * row + centre + moved[:, 1],
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[tuple[int | None, ...], ...]:
        """Return the shapes of views and of mirrored."""
        return input_shape, (input_shape[0],)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "augment": asdict(self.augment), "seed": self.seed, "top": self.top}


def resample(images: Any, column: Any, row: Any) -> Any:
    """Read images at other places, bilinear.

    Beyond the edge lies the image's own reflection: sky with sky's noise. A constant would be black corners, and the
    nearest pixel streaks, both of which a network can learn instead of galaxies.

    Args:
        images: (n, size, size, channel).
        column: of each pixel to read, (n, size, size), in px; 0 is the centre of the first.
        row: likewise.
    """
    size_px, n_channels = images.shape[1], images.shape[3]
    column, row = _reflected(column, size_px), _reflected(row, size_px)
    left, above = (ops.clip(ops.floor(place), 0, size_px - 2) for place in (column, row))
    right, below = (column - left)[..., None], (row - above)[..., None]  # shares of the far neighbours
    first = ops.arange(ops.shape(images)[0], dtype="int32")[:, None, None] * size_px**2
    corner = first + ops.cast(above, "int32") * size_px + ops.cast(left, "int32")
    flat = ops.reshape(images, (-1, n_channels))
    upper = ops.take(flat, corner, axis=0) * (1 - right) + ops.take(flat, corner + 1, axis=0) * right
    corner = corner + size_px
    lower = ops.take(flat, corner, axis=0) * (1 - right) + ops.take(flat, corner + 1, axis=0) * right
    return upper * (1 - below) + lower * below


def _reflected(place: Any, size_px: int) -> Any:
    """Bring places beyond the edges back inside: the image goes on as its mirror image, edge pixels twice."""
    folded = ops.mod(place + 0.5, 2.0 * size_px)
    return ops.clip(ops.minimum(folded, 2.0 * size_px - folded) - 0.5, 0.0, size_px - 1.0)


@keras.saving.register_keras_serializable(package="deepsky")
class MirrorBack(keras.layers.Layer):
    """Turn the answers about mirror images into answers about the images.

    Args:
        swaps: for each output the one that a mirror image turns it into, as ``mirror_swaps`` gives it.
    """

    def __init__(self, swaps: Sequence[int], **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.swaps = [int(place) for place in swaps]

    def call(self, inputs: Sequence[Any]) -> Any:
        """Return the answers (n, output), given the answers and 1 for each mirror image, (n,)."""
        answer, mirrored = inputs
        back = self._turned(answer, mirrored)
        # Under TensorFlow Keras takes the loss from the logits that a softmax leaves here. From probabilities alone,
        # which it clips, a confident wrong answer would have no gradient.
        logits = getattr(answer, "_keras_logits", None)
        if logits is not None:
            back._keras_logits = self._turned(logits, mirrored)
        return back

    def _turned(self, answer: Any, mirrored: Any) -> Any:
        return ops.where(mirrored[:, None] > 0.5, swapped(answer, self.swaps), answer)

    def compute_output_shape(self, input_shape: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """Return the answer's."""
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "swaps": self.swaps}


def swapped(answer: Any, swaps: Sequence[int]) -> Any:
    """Return answers (..., output) with their outputs swapped; most datasets have nothing to swap."""
    if list(swaps) == sorted(swaps):
        return answer
    return ops.take(answer, ops.convert_to_tensor(list(swaps), dtype="int32"), axis=-1)


def mirror_swaps(classes: Sequence[str], mirrored: Sequence[tuple[str, str]]) -> list[int]:
    """Return for each class the place of the class that a mirror image of it shows, mostly its own.

    Args:
        classes: in the order of the outputs.
        mirrored: pairs of classes that a mirror image turns into each other.

    Raises:
        DataError: a pair names a class that is not there, or that is in another pair.
    """
    partner = {one: other for pair in mirrored for one, other in (pair, pair[::-1])}
    for name in partner:
        if name not in classes:
            raise DataError(
                "classes", f"a mirror image shows {name!r}, which is not among them", "pack it too, or set flip: false"
            )
    if len(partner) != 2 * len(mirrored):
        raise DataError("mirrored", f"{list(mirrored)} names a class twice", "name each in one pair")
    return [list(classes).index(partner.get(name, name)) for name in classes]
