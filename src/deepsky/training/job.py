"""One training: what is fitted, on what, and how the network that comes out answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.calibration import fit_temperature
from deepsky.datasets.packed import Packed
from deepsky.errors import ConfigError, DataError
from deepsky.networks.augment import MirrorBack, RandomView
from deepsky.networks.heads import join
from deepsky.networks.params import AugmentParams
from deepsky.networks.precision import computing_in
from deepsky.networks.views import average_views, images_at_once, mean_of_views, refuse_oblong
from deepsky.training.answers import check_views, swaps_of
from deepsky.training.batches import TrainBatches
from deepsky.training.examples import Examples, examples_of
from deepsky.training.fit import Phase, fit_phases
from deepsky.training.predict import ROWS_AT_ONCE, predict_batches
from deepsky.training.recipe import Recipe
from deepsky.training.view_batches import ViewBatches
from deepsky.training.view_features import ViewFeatures


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training of one recipe; ``build.make_job`` makes it.

    It raises ConfigError for views that change what the dataset's images are, or an end that cannot be calibrated, and
    DataError for quarter turns of images that are not square or features of another number of test views.

    Attributes:
        run: its name.
        recipe: how the network learns.
        own_head: whether the network ends in layers of its own.
        weights: what it started from; ``scratch`` where it drew them itself.
        packed: the dataset.
        split: ``train``, ``val`` or ``test`` of each row of the dataset, (n_rows,).
        front: image -> inputs of the tail; nothing in it trains.
        tail: inputs -> answer; trained in place.
        build_tail: builds the tail once more, alike.
        phases: of the fit, one after the other.
        top: the brightest pixel that the front gives; None: it has no bound.
        views: what the front made of the images, where only a head learns; else None.
    """

    run: str
    recipe: Recipe
    own_head: bool
    weights: Literal["imagenet", "custom", "random", "scratch"]
    packed: Packed
    split: npt.NDArray[np.str_]
    front: keras.Model
    tail: keras.Model
    build_tail: Callable[[], keras.Model]
    phases: tuple[Phase, ...]
    top: float | None
    views: ViewFeatures | None = None

    def __post_init__(self) -> None:
        """Refuse views that the images do not allow, features of other test views, and an end to be calibrated."""
        check_views(self.recipe, self.packed.card)
        refuse_oblong(self.recipe.test_views, self.packed.images.shape)
        if self.views is not None and len(self.views.sides) != self.recipe.test_views:
            problem = f"were seen from {len(self.views.sides)} sides, test_views is {self.recipe.test_views}"
            raise DataError(f"features of {self.recipe.dataset}", problem, "run dvc repro to write them again")
        if self.recipe.calibrate != "none":
            self._softmax()

    def examples(self) -> Examples:
        """Return what is learned from: the images, or their plain features."""
        return examples_of(self.packed, self.split, None if self.views is None else self.views.plain)

    def batches(self, recipe: Recipe, first_epoch: int = 0) -> TrainBatches:
        """Return the train rows in steps.

        Args:
            recipe: of a phase.
            first_epoch: whose order comes first; counts from 0.
        """
        if self.views is None:
            return TrainBatches(self.examples(), recipe, first_epoch)
        return ViewBatches(self.examples(), recipe, self.views, swaps_of(self.packed.card), first_epoch)

    def fit(self, callbacks: Sequence[keras.callbacks.Callback]) -> pd.DataFrame:
        """Train the tail; return the history, one row per epoch."""
        learner, tail = self.prepared()
        history = fit_phases(learner, tail, self.examples(), self.phases, self.batches, callbacks)
        if tail is not self.tail:
            self.tail.set_weights(tail.get_weights())
        return history

    def prepared(self) -> tuple[keras.Model, keras.Model]:
        """Return the network that is fitted and the tail in it.

        Under mixed precision this tail is a twin of the job's, which computes in 16 bits; its weights are float32 too.
        """
        if self.views is not None:
            return self.tail, self.tail
        if self.recipe.precision != "mixed":
            return self._learner(self.tail), self.tail
        with computing_in("mixed"):
            twin = self.build_tail()
            twin.set_weights(self.tail.get_weights())
            return self._learner(twin), twin

    def _learner(self, tail: keras.Model) -> keras.Model:
        """Return the network that is fitted: image -> answer, from random views in training."""
        image, pixels = self.front.inputs[0], self.front.outputs[0]
        if self.recipe.augment == AugmentParams():
            return keras.Model(image, tail(pixels), name="learner")
        view = RandomView(asdict(self.recipe.augment), self.recipe.seed, self.top, name="view")
        pixels, mirrored = view(pixels)
        answer, swaps = tail(pixels), list(swaps_of(self.packed.card))
        if self.recipe.augment.flip and swaps != sorted(swaps):
            answer = MirrorBack(swaps, name="mirror_back")([answer, mirrored])
        return keras.Model(image, answer, name="learner")

    def calibrate(self) -> float | None:
        """Divide the fitted network's logits by the temperature that the val rows ask for, if the recipe says so.

        The number goes into kernel and bias of the last layer; no layer is added, and every answer stays what it was.

        Returns:
            The temperature; None: the recipe leaves the network as it is.

        Raises:
            ConfigError: the network does not end in a dense softmax layer.
        """
        if self.recipe.calibrate == "none":
            return None
        last = self._softmax()
        rows = np.flatnonzero(self.split == "val")
        image = self.packed.rows["image"].to_numpy(np.int64)[rows]
        temperature = fit_temperature(self.answers()[image], self.packed.labels[rows])
        for weight in last.weights:
            weight.assign(weight / temperature)
        return temperature

    def _softmax(self) -> keras.layers.Dense:
        """Return the layer that the network ends in."""
        last = self.tail
        while isinstance(last, keras.Model):
            last = last.outputs[0]._keras_history.operation
        if not isinstance(last, keras.layers.Dense) or last.activation is not keras.activations.softmax:
            problem = f"the network ends in {last.name}, which is no dense softmax layer"
            raise ConfigError(f"run {self.run}: calibrate", problem, "set calibrate: none")
        return last

    def answers(self) -> npt.NDArray[np.float32]:
        """Return what the whole network says of every distinct image, (n_images, n_outputs)."""
        if self.views is None:
            n_at_once = images_at_once(self.whole, self.recipe.batch_size)
            return predict_batches(self.whole, self.packed.images, n_at_once)
        return mean_of_views([self._of_features(side) for side in self.views.sides], swaps_of(self.packed.card))

    def plain_answers(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """Return the answers of some images from one view, (n, n_outputs); None where ``answers`` are just these."""
        if self.recipe.test_views == 1:
            return None
        if self.views is None:
            core = join(self.front, self.tail, self.run)
            return predict_batches(core, self.packed.images, self.recipe.batch_size, chosen=images)
        return self._of_features(self.views.plain[images])

    def _of_features(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return predict_batches(self.tail, features, max(ROWS_AT_ONCE, self.recipe.batch_size))

    @cached_property
    def whole(self) -> keras.Model:
        """Return the network to save: image -> answer, the mean over the recipe's test views."""
        core = join(self.front, self.tail, self.recipe.network)
        return average_views(core, self.recipe.test_views, swaps_of(self.packed.card), self.recipe.network)

    def kept_epoch(self, history: pd.DataFrame) -> int:
        """Return the epoch whose weights stayed: one of the last phase."""
        own = history.iloc[sum(phase.recipe.epochs for phase in self.phases[:-1]) :]
        last = int(own["epoch"].iloc[-1])
        watched = own[self.recipe.monitor]
        best = watched.idxmin() if self.recipe.monitor == "val_loss" else watched.idxmax()
        return last if self.recipe.keep == "last" else int(own.loc[best, "epoch"])

    def summary(self, figures: Mapping[str, float]) -> str:
        """Return one line about a training."""
        measure = "val_accuracy" if self.packed.card.target == "class" else "val_rmse"
        n_epochs = sum(phase.recipe.epochs for phase in self.phases)
        return (
            f"{self.run} ({self.recipe.network}, {self.weights} weights): {measure} {figures[measure]:.3f} "
            f"at epoch {figures['kept_epoch']:.0f} of {n_epochs}, fitted in {figures['training_s']:.1f} s"
        )
