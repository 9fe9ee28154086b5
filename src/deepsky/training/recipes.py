"""Section ``recipes``: one dataset, one network and one way of training, with every number of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.datasets.packed import DatasetCard
from deepsky.errors import ConfigError
from deepsky.networks.augment import AugmentParams, mirror_swaps
from deepsky.networks.heads import Answer, sigmoid_answer, softmax_answer, tree_answer
from deepsky.training.fit import FitParams, TrainParams

MAX_VIEWS = 64
# The numbers of test views that have mirror images and quarter turns among them, and how far any image may be turned.
MIRRORING, TURNING, TURN_DEG = (2, 8), (4, 8), 30.0


@dataclass(frozen=True, kw_only=True)
class RecipeParams(FitParams):
    """What every recipe that learns from images has.

    Attributes:
        dataset: name of a dataset.
        network: a key of the registries.
        input_size_px: side of the square the images are resized to.
        augment: how the training images are changed, anew in every epoch.
        test_views: rotated and mirrored views whose answers are averaged when the network is used; 1: the plain one.
        class_weights: ``balanced``: every class weighs the same in the loss, however many training rows it has.
        mixup: alpha of the Beta distribution by which pairs of training images are blended; 0: none.
        precision: ``mixed`` computes in 16 bits in training, where the network's weights and answers stay in 32.
        answer: ``softmax`` for classes; for vote fractions ``sigmoid`` (each by itself) or ``tree`` (sums hold).
    """

    dataset: str
    network: str
    input_size_px: int
    augment: AugmentParams
    test_views: Literal[1, 2, 4, 8]
    class_weights: Literal["none", "balanced"]
    mixup: float
    precision: Literal["float32", "mixed"]
    answer: Literal["softmax", "sigmoid", "tree"]

    def __post_init__(self) -> None:
        """Refuse what cannot be built, and what means nothing for vote fractions."""
        super().__post_init__()
        _check_size(self.input_size_px)
        if not 0 <= self.mixup <= 10:  # so that NaN fails too
            raise ValueError(f"mixup {self.mixup} does not lie in [0, 10]")
        if self.answer != "softmax" and (self.class_weights != "none" or self.label_smoothing):
            raise ValueError(f"answer {self.answer} has no classes: set class_weights: none and label_smoothing: 0")


@dataclass(frozen=True, kw_only=True)
class FineTuneParams(RecipeParams):
    """Entry of ``recipes.fine_tune``: a pretrained backbone is trained on.

    Attributes:
        norm: how batch norms work in training: ``inference`` keeps the pretrained statistics, ``batch`` normalises by
            the batch and lets them move.
        hidden_units: width of each hidden layer between the backbone and the answer.
        dropout: share of these layers' outputs left out in training; without such layers, of the backbone's.
        head_epochs: passes in which only the head learns; they come before the ``epochs`` of the whole.
        head_learning_rate: step size in these passes, constant.
        unfreeze: what of the backbone learns after them: ``all``, or its last blocks, so many.
    """

    norm: Literal["inference", "batch"]
    hidden_units: tuple[int, ...]
    dropout: float
    head_epochs: int
    head_learning_rate: float
    unfreeze: Literal["all"] | int

    def __post_init__(self) -> None:
        """Refuse a head that cannot be built or trained."""
        super().__post_init__()
        _check_head(self.hidden_units, self.dropout)
        if self.head_epochs < 0:
            raise ValueError(f"head_epochs {self.head_epochs} is below 0")
        if not self.head_learning_rate > 0:
            raise ValueError(f"head_learning_rate {self.head_learning_rate} is not above 0")
        if self.unfreeze != "all" and self.unfreeze < 0:
            raise ValueError(f"unfreeze {self.unfreeze} is below 0")


@dataclass(frozen=True, kw_only=True)
class FromScratchParams(RecipeParams):
    """Entry of ``recipes.from_scratch``: any network, from random weights.

    Attributes:
        hidden_units: as for ``recipes.fine_tune``, where the network is a backbone; the others end in layers of their
            own and take none.
        dropout: likewise.
    """

    hidden_units: tuple[int, ...] = ()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a head that cannot be built."""
        super().__post_init__()
        _check_head(self.hidden_units, self.dropout)


@dataclass(frozen=True, kw_only=True)
class FrozenParams(TrainParams):
    """Entry of ``recipes.frozen``: a head on what a frozen backbone sees of the images and of their augmented views.

    It has no mixup, for what is cached are no pixels to blend; no precision, for a head is too small to gain by 16
    bits. ``dropout`` stands behind hidden layers only: without any it does nothing.

    Attributes:
        dataset: name of a dataset.
        network: a pretrained backbone.
        input_size_px: side of the square the images are resized to.
        augment: how the views of training images differ from the plain one.
        n_views: augmented views of each training image; each epoch draws one of them, or the plain one as often as
            each. 0: the plain one, always.
        test_views: rotated and mirrored views whose answers are averaged when the network is used; 1: the plain one.
        class_weights: ``balanced``: every class weighs the same in the loss, however many training rows it has.
    """

    dataset: str
    network: str
    input_size_px: int
    augment: AugmentParams
    n_views: int
    test_views: Literal[1, 2, 4, 8]
    class_weights: Literal["none", "balanced"]

    def __post_init__(self) -> None:
        """Refuse more views than a disk holds."""
        super().__post_init__()
        _check_size(self.input_size_px)
        if not 0 <= self.n_views <= MAX_VIEWS:
            raise ValueError(f"n_views must lie between 0 and {MAX_VIEWS}, not {self.n_views}")


def answer_of(params: RecipeParams, card: DatasetCard) -> Answer:
    """Return the last layer that a recipe's network ends in.

    Raises:
        ConfigError: ``answer`` does not fit the dataset's target.
    """
    if card.target == "class":
        if params.answer != "softmax":
            raise ConfigError(
                f"recipe of {params.dataset}", f"answer {params.answer} is for vote fractions", "set answer: softmax"
            )
        return softmax_answer(len(card.classes))
    if params.answer == "softmax":
        raise ConfigError(
            f"recipe of {params.dataset}", "answer softmax is for classes", "set answer: tree or answer: sigmoid"
        )
    return tree_answer() if params.answer == "tree" else sigmoid_answer(len(COLUMNS))


def swaps_of(card: DatasetCard) -> Sequence[int]:
    """Return which place of the answer each place takes in a mirror image."""
    if card.target == "fractions":  # no question of the tree asks which way a galaxy turns
        return range(len(COLUMNS))
    return mirror_swaps(card.classes, card.mirrored)


def check_views(params: RecipeParams | FrozenParams, card: DatasetCard) -> None:
    """Refuse views that show something else than the dataset's images do: a mirrored digit is none.

    Raises:
        ConfigError: the recipe mirrors or turns what must not be.
    """
    n_views, turn_deg = params.test_views, params.augment.rotation_deg
    for change, done, what, remedy in (
        ("mirror", params.augment.flip, "flip true", "set flip: false"),
        ("mirror", n_views in MIRRORING, f"test_views {n_views}", "set test_views: 1"),
        ("turn", turn_deg > TURN_DEG, f"rotation_deg {turn_deg:g}", f"set it to {TURN_DEG:g} or less"),
        ("turn", n_views in TURNING, f"test_views {n_views}", "set test_views: 1"),
    ):
        if done and change in card.refused:
            problem = f"{what} would {change} images that then no longer show what their labels say"
            raise ConfigError(f"recipe of {params.dataset}", problem, remedy)


def _check_head(hidden_units: Sequence[int], dropout: float) -> None:
    if any(units < 1 for units in hidden_units):
        raise ValueError(f"hidden_units {list(hidden_units)} must all be above 0")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout {dropout} does not lie in [0, 1)")


def _check_size(input_size_px: int) -> None:
    if not 8 <= input_size_px <= 1024:
        raise ValueError(f"input_size_px must lie between 8 and 1024, not {input_size_px}")
