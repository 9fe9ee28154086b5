"""What a frozen backbone sees of the images, from each test view, and of random views of those to learn from."""

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from deepsky.datasets.packed import Packed
from deepsky.errors import DataError
from deepsky.files import Version, whole_folder
from deepsky.networks.augment import RandomView
from deepsky.networks.backbone import Backbone, average, build_features
from deepsky.networks.dropout import uniform_noise
from deepsky.networks.finetune import base_of
from deepsky.networks.inputs import ImageSpec, colour_pixels, image_input
from deepsky.networks.params import BatchSize
from deepsky.networks.precision import on_cpu
from deepsky.networks.registry import find_backbone
from deepsky.networks.views import views_of
from deepsky.parallel import KERAS_LOCK, is_helped, mapped
from deepsky.training.batch_size import images_per_step
from deepsky.training.predict import batches_of, image_spec, predict_batch, predict_batches
from deepsky.training.recipe import ViewSpec

# Views are drawn by step and row: another number of images per step would give other views.
VIEW_STEP = 32
FILES = ("sides", "views", "mirrored", "viewed")
KEY = "key.txt"  # beside them: a hash of all that they follow from
_AHEAD = 128  # batches of features


@dataclass(frozen=True)
class ViewFeatures:
    """Features of the images from every test view, and of random views of some; each array is one file NAME.npy.

    Attributes:
        sides: of every distinct image, (test_views, n_images, n_features), float32; the plain view comes first.
        views: (n_views, n_viewed, n_features), float32, a memory map.
        mirrored: whether each view is a mirror image, (n_views, n_viewed), bool.
        viewed: the image of each place among the views, ascending, (n_viewed,), int64.
    """

    sides: npt.NDArray[np.float32]
    views: npt.NDArray[np.float32]
    mirrored: npt.NDArray[np.bool_]
    viewed: npt.NDArray[np.int64]

    @property
    def plain(self) -> npt.NDArray[np.float32]:
        """Return the features of the plain images, (n_images, n_features)."""
        return self.sides[0]


def write_views(
    network: str,
    spec: ViewSpec,
    packed: Packed,
    weights_file: Path,
    images: npt.NDArray[np.int64],
    out: Path,
    *,
    batch_size: BatchSize,
    folder: Path | None = None,
) -> tuple[int, int, int]:
    """Let a frozen network see every image from each test view, and some of them from ``n_views`` random sides too.

    Args:
        network: a backbone of the registry.
        spec: size and views.
        packed: the dataset.
        weights_file: of the network.
        images: the distinct images that get random views, ascending.
        out: folder to write.
        batch_size: images per step, see ``batch_size.images_per_step``.
        folder: of the dataset, from which the workers of a cluster read the images; None: none is to help.

    Returns:
        The shape of the random views: (n_views, n_viewed, n_features).

    Raises:
        DataError: a feature is not finite, or quarter turns of images that are not square.
        ConfigError: the input size is too small for the architecture.
        WeightsError: the weights cannot be read or do not fit.
    """
    image = image_spec(packed)
    front, viewer = _build(network, image, spec, weights_file)
    n_at_once = images_per_step(batch_size, front)
    see = None
    if folder is not None and is_helped():
        see = partial(_see, network, image, spec, Version.of(weights_file), Version.of(folder / "images.npy"))
    images = images if spec.n_views else images[:0]
    shape = (spec.n_views, len(images), front.output_shape[1])
    with whole_folder(out) as whole:
        sides = _create(whole / "sides.npy", (spec.test_views, len(packed.images), shape[2]))
        for number, side in enumerate(views_of(packed.images, spec.test_views)):
            sides[number] = _side_seen(see, front, number, side, n_at_once)
            _check_finite(sides[number], np.arange(len(side)), out)
        sides.flush()
        np.save(whole / "viewed.npy", images, allow_pickle=False)
        views = _create(whole / "views.npy", shape)
        mirrored = np.zeros(shape[:2], bool)
        for number in range(spec.n_views):
            seen = _view_seen(see, viewer, number, packed.images, images, _views_per_step(n_at_once))
            _check_finite(seen, images, out)
            views[number], mirrored[number] = seen[:, :-1], seen[:, -1] > 0.5
        views.flush()
        np.save(whole / "mirrored.npy", mirrored, allow_pickle=False)
    return shape


def _create(path: Path, shape: tuple[int, ...]) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)


def read_views(folder: Path, n_images: int) -> ViewFeatures:
    """Open what ``write_views`` wrote of a dataset.

    Raises:
        DataError: the folder holds no such features, or those of another number of images.
    """
    remedy = "run dvc repro to write them again"
    try:
        sides, views, mirrored, viewed = (
            np.load(folder / f"{name}.npy", mmap_mode="r" if name in ("sides", "views") else None, allow_pickle=False)
            for name in FILES
        )
    except (OSError, ValueError) as error:
        raise DataError(folder, f"holds no features of views ({error})", remedy) from error
    fits = sides.ndim == 3 and views.shape == (len(mirrored), len(viewed), sides.shape[2])
    if not fits or sides.shape[1] != n_images or mirrored.shape != views.shape[:2]:
        raise DataError(folder, f"holds features {sides.shape} and {views.shape} for {n_images} images", remedy)
    return ViewFeatures(sides, views, mirrored, viewed)


@dataclass(frozen=True)
class _Batch:
    """A batch of images that a worker of a cluster looks at.

    Attributes:
        side: which test view; None: a random one.
        images: which images.
        n_at_once: images that make a batch.
        step: of the first random view: as many steps were looked at before, whoever did.
    """

    side: int | None
    images: slice | npt.NDArray[np.int64]
    n_at_once: int
    step: int = 0


See = Callable[[_Batch], npt.NDArray[np.float32]]


def _side_seen(
    see: See | None, front: keras.Model, number: int, side: npt.NDArray[Any], batch_size: int
) -> npt.NDArray[np.float32]:
    """Return the features of all images from one test view; by workers, where some can ``see``."""
    if see is None:
        return predict_batches(front, side, batch_size)
    batches, n_at_once = batches_of(len(side), batch_size)
    return _all_seen(see, [_Batch(number, rows, n_at_once) for rows in batches])


def _view_seen(
    see: See | None,
    viewer: keras.Model,
    number: int,
    images: npt.NDArray[Any],
    chosen: npt.NDArray[np.int64],
    batch_size: int,
) -> npt.NDArray[np.float32]:
    """Return the features of one random view of each chosen image; by workers, where some can ``see``."""
    first_step = number * math.ceil(len(chosen) / VIEW_STEP)
    if see is None or not len(chosen):
        viewer.get_layer("view").go_to(first_step)
        return predict_batches(viewer, images, batch_size, chosen=chosen)
    batches, n_at_once = batches_of(len(chosen), batch_size)
    steps = itertools.count(first_step, math.ceil(n_at_once / VIEW_STEP))
    return _all_seen(see, [_Batch(None, chosen[rows], n_at_once, next(steps)) for rows in batches])


def _views_per_step(batch_size: int) -> int:
    """Return how many random views make a batch: on a CPU those of one step, whatever the batch of plain images is."""
    return VIEW_STEP if on_cpu() else max(1, batch_size // VIEW_STEP) * VIEW_STEP


def _all_seen(see: See, batches: list[_Batch]) -> npt.NDArray[np.float32]:
    with closing(mapped(see, batches, n_ahead=_AHEAD, locally="here")) as parts:
        return np.concatenate(list(parts))


def _see(
    network: str, image: ImageSpec, spec: ViewSpec, weights: Version, pixels: Version, batch: _Batch
) -> npt.NDArray[np.float32]:
    """Return the features of a batch; in a worker, which builds the network once and keeps it until the next."""
    images = np.load(pixels.found(), mmap_mode="r", allow_pickle=False)
    with KERAS_LOCK:
        front, viewer = _built(network, image, spec, weights)
        if batch.side is not None:
            return predict_batch(front, views_of(images, spec.test_views)[batch.side][batch.images], batch.n_at_once)
        assert viewer is not None
        viewer.get_layer("view").go_to(batch.step)
        return predict_batch(viewer, images[batch.images], batch.n_at_once)


@lru_cache(maxsize=1)
def _built(network: str, image: ImageSpec, spec: ViewSpec, weights: Version) -> tuple[keras.Model, keras.Model | None]:
    return _build(network, image, spec, weights.found())


def _build(
    network: str, image: ImageSpec, spec: ViewSpec, weights_file: Path
) -> tuple[keras.Model, keras.Model | None]:
    """Build image -> features, and image -> those of a random view where there are some."""
    backbone = find_backbone(network)
    front = build_features(backbone, image, spec.input_size_px, weights_file, fast=True, precision=spec.precision)
    return front, _build_viewer(backbone, image, spec, base_of(front)) if spec.n_views else None


class _AlwaysRandomView(RandomView):
    """Random views outside training too: ``predict`` overrides the ``training=True`` of a call.

    A batch may hold the images of several steps of VIEW_STEP.
    """

    def call(self, pixels: Any, training: bool = True) -> tuple[Any, Any]:
        return super().call(pixels, training=True)

    def _noise(self, n_images: Any) -> Any:
        noise = uniform_noise(self.seed, self._step, 7, n_images, per_step=VIEW_STEP)
        self._step.assign_add((n_images + VIEW_STEP - 1) // VIEW_STEP)
        return noise


def _build_viewer(backbone: Backbone, spec: ImageSpec, views: ViewSpec, base: keras.Model) -> keras.Model:
    """Build image -> features of a random view, and in one more column 1 where it is a mirror image."""
    image = image_input(spec)
    pixels = colour_pixels(image, spec, views.input_size_px)
    view, mirrored = _AlwaysRandomView(asdict(views.augment), views.seed, 255.0, name="view")(pixels)
    maps = base(backbone.scale(view), training=False)
    pooled = average(maps)
    flag = keras.layers.Reshape((1,), name="mirrored")(mirrored)
    return keras.Model(image, keras.layers.Concatenate(name="seen")([pooled, flag]), name="viewer")


def _check_finite(features: npt.NDArray[np.float32], images: Sequence[int] | npt.NDArray[np.int64], out: Path) -> None:
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise DataError(out, f"features of image {images[bad[0]]} are not finite", "look for NaN pixels in that image")
