"""A network that learns from the images themselves: from augmented views in training, from exact ones afterwards."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.networks.augment import AugmentParams, MirrorBack, RandomView
from deepsky.networks.heads import join
from deepsky.networks.inputs import ImageSpec, colour_pixels, image_input
from deepsky.networks.views import average_views, images_at_once, refuse_oblong
from deepsky.training.features import predict_batches
from deepsky.training.fit import on_cpu
from deepsky.training.image_batches import examples_of
from deepsky.training.image_fit import Phase, fit_images
from deepsky.training.job import Job
from deepsky.training.recipes import RecipeParams, check_views, swaps_of


@dataclass(frozen=True, kw_only=True)
class ImageJob(Job):
    """One training from images; raises ConfigError for views that change what the dataset's images are,
    and DataError for quarter turns of images that are not square.

    Attributes:
        params: of the recipe.
        build_tail: builds the tail once more, alike.
        phases: one after the other.
        top: the brightest pixel that the front gives; None: it has no bound.
    """

    params: RecipeParams
    build_tail: Callable[[], keras.Model]
    phases: tuple[Phase, ...]
    top: float | None

    def __post_init__(self) -> None:
        """Refuse views that the dataset's images do not allow."""
        check_views(self.params, self.packed.card)
        refuse_oblong(self.params.test_views, self.packed.images.shape)

    def fit(self, callbacks: Sequence[keras.callbacks.Callback]) -> pd.DataFrame:
        """Train the tail."""
        learner, tail = self.prepared()
        history = fit_images(learner, tail, examples_of(self.packed, self.split), self.phases, callbacks)
        if tail is not self.tail:
            self.tail.set_weights(tail.get_weights())
        return history

    def prepared(self) -> tuple[keras.Model, keras.Model]:
        """Return the network that is fitted and the tail in it.

        Under mixed precision this tail is a twin of the job's, which computes in 16 bits; its weights are float32 too.
        """
        if self.params.precision != "mixed":
            return self.learner(self.tail), self.tail
        with mixed_precision(True):
            twin = self.build_tail()
            twin.set_weights(self.tail.get_weights())
            return self.learner(twin), twin

    def learner(self, tail: keras.Model) -> keras.Model:
        """Return the network that is fitted: image -> answer, from random views in training."""
        image, pixels = self.front.inputs[0], self.front.outputs[0]
        if self.params.augment == AugmentParams():
            return keras.Model(image, tail(pixels), name="learner")
        view = RandomView(asdict(self.params.augment), self.params.seed, self.top, name="view")
        pixels, mirrored = view(pixels)
        answer, swaps = tail(pixels), list(swaps_of(self.packed.card))
        if self.params.augment.flip and swaps != sorted(swaps):
            answer = MirrorBack(swaps, name="mirror_back")([answer, mirrored])
        return keras.Model(image, answer, name="learner")

    def answers(self) -> npt.NDArray[np.float32]:
        """Predict from the images, as the saved network does."""
        n_at_once = images_at_once(self._whole, self.params.batch_size)
        return predict_batches(self._whole, self.packed.images, n_at_once)

    def plain_answers(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """Predict from the plain view."""
        if self.params.test_views == 1:
            return None
        core = join(self.front, self.tail, self.network)
        return predict_batches(core, self.packed.images, self.params.batch_size, chosen=images)

    def whole(self) -> keras.Model:
        """Return the network to save, which answers with the mean over the recipe's test views."""
        return self._whole

    @cached_property
    def _whole(self) -> keras.Model:
        core = join(self.front, self.tail, self.network)
        return average_views(core, self.params.test_views, swaps_of(self.packed.card), self.network)

    def summary(self, figures: Mapping[str, float]) -> str:
        """Return one line about a training."""
        measure = "val_accuracy" if self.packed.card.target == "class" else "val_rmse"
        n_epochs = sum(phase.params.epochs for phase in self.phases)
        return (
            f"{self.dataset} x {self.network} ({self.params.network}, {self.weights} weights): {measure} "
            f"{figures[measure]:.3f} at epoch {figures['kept_epoch']:.0f} of {n_epochs}, "
            f"fitted in {figures['training_s']:.1f} s"
        )

    def kept_epoch(self, history: pd.DataFrame) -> int:
        """Return the epoch whose weights stayed: one of the last phase."""
        n_before = sum(phase.params.epochs for phase in self.phases[:-1])
        return super().kept_epoch(history.iloc[n_before:])


def colour_front(spec: ImageSpec, size_px: int) -> keras.Model:
    """Build image -> RGB pixels in 0..255, (n, size_px, size_px, 3): what a backbone's tail starts from."""
    image = image_input(spec)
    return keras.Model(image, colour_pixels(image, spec, size_px), name="colour")


@contextmanager
def mixed_precision(wanted: bool) -> Iterator[None]:
    """Let what is built in the block compute in 16 bits: float16 on a GPU (all kinds have it), else bfloat16."""
    before = keras.config.dtype_policy()
    if wanted:
        keras.config.set_dtype_policy("mixed_bfloat16" if on_cpu() else "mixed_float16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
