"""A recipe: one dataset, one network and how it learns. It reads params.yaml's keys and needs no Keras."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from deepsky.networks.params import AugmentParams, Precision

Learn = Literal["head", "all"] | int
Start = Literal["pretrained", "scratch"]
Answer = Literal["softmax", "sigmoid", "tree"]
Monitor = Literal["val_loss", "val_accuracy"]
PLAIN = AugmentParams()
MAX_VIEWS = 64
# What no training needs more of; larger numbers are slips of the keyboard.
MAX_EPOCHS, MAX_BATCH, MAX_UNITS, MAX_RATE = 100_000, 65_536, 65_536, 1_000.0

_RANGES = (
    ("seed", 0, 2**32 - 1), ("input_size_px", 8, 1024), ("epochs", 1, MAX_EPOCHS), ("batch_size", 1, MAX_BATCH),
    ("n_views", 0, MAX_VIEWS), ("head_epochs", 0, MAX_EPOCHS), ("l2", 0, MAX_RATE), ("weight_decay", 0, MAX_RATE),
    ("mixup", 0, 10),
)  # fmt: skip

# Which keys matter to which recipes. A recipe neither logs nor depends on the others.
_ALWAYS = (
    "dataset", "network", "start", "learn", "answer", "input_size_px", "test_views", "seed", "optimizer",
    "learning_rate", "schedule", "weight_decay", "momentum", "batch_size", "epochs", "patience", "keep", "precision",
)  # fmt: skip
_CLASSES_ONLY = ("class_weights", "label_smoothing", "monitor", "calibrate")
_HEAD = ("hidden_units", "activation", "dropout", "batch_norm", "l2", "n_views")
_PIXELS = ("augment", "mixup")
_BACKBONE_LEARNS = ("hidden_units", "dropout")
_FROM_PRETRAINED = ("norm", "head_epochs", "head_learning_rate")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The search that a run's numbers come from.

    Attributes:
        study: its name.
        trial: number of the trial in it.
        run: the run that was searched from, and with which this one is compared.
    """

    study: str
    trial: int
    run: str

    def __post_init__(self) -> None:
        """Refuse a trial that no study has."""
        if self.trial < 0:
            raise ValueError(f"trial {self.trial} is below 0")


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """What a frozen network is shown of a dataset: heads that learn from the same share its features.

    Attributes:
        input_size_px: side of the square the images are resized to.
        test_views: how many rotated and mirrored views of every image.
        n_views: how many random views of every training image; augment and seed say which.
        augment: how far they stray.
        seed: of the random views; 0 where there are none.
        precision: that the network computes in.
    """

    input_size_px: int
    test_views: int = 1
    n_views: int = 0
    augment: AugmentParams = PLAIN
    seed: int = 0
    precision: Precision = "float32"

    @property
    def name(self) -> str:
        """Return the name of its folder."""
        plain = f"{self.input_size_px}px"
        if self == ViewSpec(input_size_px=self.input_size_px):
            return plain
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{plain}-{self.test_views}x{self.n_views}-{digest[:8]}"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one network learns one dataset: the keys of ``train``, ``networks.NETWORK`` and ``runs.RUN``.

    Attributes:
        dataset: name of a dataset.
        network: a key of the registries.
        start: where the weights come from: ``pretrained`` or ``scratch`` (random, drawn from the seed).
        learn: what of the network learns: the ``head`` alone, on cached features; the last N blocks; or ``all``.
        answer: ``softmax`` for classes; for vote fractions ``tree`` (sums hold) or ``sigmoid`` (each by itself).
        input_size_px: side of the square the images are resized to.
        hidden_units: width of each hidden layer between the network and its answer; none: a softmax regression.
        activation: of the hidden layers; where more than the head learns it is relu.
        dropout: share of each hidden layer's outputs left out in training. Without hidden layers that of the pooled
            features where more than the head learns, else it does nothing.
        batch_norm: whether each hidden layer is normalised before its activation.
        l2: this times the sum of the head's squared kernels is added to the loss.
        augment: how the training images are changed: anew in every epoch, or once for cached views.
        n_views: of a head: cached random views of each training image. Each epoch draws one of them, or the plain
            image as often as each. 0: the plain one, always.
        test_views: rotated and mirrored views whose answers are averaged when the network is used; 1: the plain one.
        norm: of a pretrained network that learns: ``batch`` normalises by the batch and lets its statistics move,
            ``inference`` keeps the pretrained ones.
        head_epochs: of a pretrained network that learns: passes before ``epochs`` in which only its head does.
        head_learning_rate: step size in these passes, constant.
        mixup: alpha of the Beta distribution by which pairs of training images are blended; 0: none.
        precision: ``mixed`` computes in 16 bits in training, or the features that a head learns from; weights and
            answers, and the network that is saved, stay in 32.
        class_weights: ``balanced``: every class weighs the same in the loss, however many training rows it has.
        label_smoothing: how much of each label is spread over all classes, in training only.
        seed: of initial weights, dropout, views and the order of the examples.
        optimizer: whose update rule.
        learning_rate: its step size, at the first step.
        schedule: ``constant``; ``cosine`` from learning_rate down to 0 at the last step; or ``one_cycle``, which first
            rises to learning_rate, for 30 % of the steps.
        weight_decay: of ``adamw``; the other optimizers have none.
        momentum: of ``sgd``; the other optimizers have their own.
        batch_size: examples per step.
        epochs: passes over the training examples, at most.
        monitor: which figure says that an epoch is better: ``val_loss``, or of classes ``val_accuracy``.
        patience: stop after this many epochs without a better one; None: never.
        keep: whose weights stay: the ``last`` epoch's, or the ``best`` one's.
        calibrate: ``temperature``: after the fit the logits are divided by the number under which the val rows are most
            likely; no answer changes, only how sure it is.
        origin: the search that found these numbers; None where nobody searched.
    """

    dataset: str
    network: str
    start: Start = "pretrained"
    learn: Learn = "head"
    answer: Answer = "softmax"
    input_size_px: int = 128
    hidden_units: tuple[int, ...] = (1024, 1024, 512)
    activation: Literal["relu", "elu", "gelu", "selu", "silu", "tanh"] = "relu"
    dropout: float = 0.0
    batch_norm: bool = False
    l2: float = 0.0
    augment: AugmentParams = PLAIN
    n_views: int = 0
    test_views: Literal[1, 2, 4, 8] = 1
    norm: Literal["batch", "inference"] = "batch"
    head_epochs: int = 2
    head_learning_rate: float = 1e-3
    mixup: float = 0.0
    precision: Precision = "float32"
    class_weights: Literal["none", "balanced"] = "none"
    label_smoothing: float = 0.0
    seed: int = 1
    optimizer: Literal["adam", "adamw", "adamax", "sgd"] = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    weight_decay: float = 0.004
    momentum: float = 0.9
    batch_size: int = 32
    epochs: int = 10
    monitor: Monitor = "val_loss"
    patience: int | None = None
    keep: Literal["last", "best"] = "best"
    calibrate: Literal["none", "temperature"] = "none"
    origin: Origin | None = None

    def __post_init__(self) -> None:
        """Refuse what Keras would fail on, or silently do nothing with."""
        check_values({field.name: getattr(self, field.name) for field in fields(self)})
        if self.start == "scratch" and self.learn != "all":
            raise ValueError(f"start: scratch draws the whole network, so learn {self.learn} would keep it random")
        of_classes = self.class_weights != "none" or self.label_smoothing or self.monitor == "val_accuracy"
        if self.answer != "softmax" and (of_classes or self.calibrate != "none"):
            remedy = "set class_weights: none, label_smoothing: 0, monitor: val_loss and calibrate: none"
            raise ValueError(f"answer {self.answer} has no classes: {remedy}")
        if self.calibrate != "none" and self.test_views > 1:
            problem = (
                f"calibrate {self.calibrate} needs one softmax at the end, test_views {self.test_views} averages some"
            )
            raise ValueError(f"{problem}: set test_views: 1 or calibrate: none")

    @property
    def of_head(self) -> bool:
        """Tell whether only a head learns, on cached features."""
        return self.learn == "head"

    @property
    def views(self) -> ViewSpec:
        """Return what of the images its head learns from."""
        augment, seed = (self.augment, self.seed) if self.n_views else (PLAIN, 0)
        return ViewSpec(
            input_size_px=self.input_size_px,
            test_views=self.test_views,
            n_views=self.n_views,
            augment=augment,
            seed=seed,
            precision=self.precision,
        )

    @property
    def chooses(self) -> bool:
        """Tell whether the val rows choose something: the epoch that is kept, when to stop, or the temperature."""
        return self.keep == "best" or self.patience is not None or self.calibrate != "none"

    def settings(self, *, own_head: bool) -> dict[str, Any]:
        """Return what shapes the result, as params.yaml and JSON hold it.

        Args:
            own_head: whether the network ends in layers of its own.
        """
        names = applying(self.start, self.learn, self.answer, self.n_views, own_head=own_head)
        values = {name: value for name, value in asdict(self).items() if name in names}
        values["origin"] = asdict(self)["origin"]
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if name != "origin" or v}


def applying(start: Start, learn: Learn, answer: Answer, n_views: int, *, own_head: bool) -> frozenset[str]:
    """Return the keys that have an effect.

    Args:
        start: of the recipe.
        learn: of the recipe.
        answer: of the recipe.
        n_views: of the recipe.
        own_head: whether the network ends in layers of its own, and so takes no hidden layers.
    """
    names = set(_ALWAYS)
    if answer == "softmax":
        names |= set(_CLASSES_ONLY)
    if learn == "head":
        names |= set(_HEAD) | ({"augment"} if n_views else set())
    else:
        names |= set(_PIXELS) | (set() if own_head else set(_BACKBONE_LEARNS))
        names |= set(_FROM_PRETRAINED) if start == "pretrained" else set()
    return frozenset(names)


def check_values(values: Mapping[str, Any]) -> None:
    """Refuse values that no recipe may have.

    Raises:
        ValueError: an argument for each wrong one: the key, its value and what is allowed.
    """
    wrong = [
        f"{name} must lie between {least} and {most:.10g}, not {values[name]}"
        for name, least, most in _RANGES
        if not least <= values[name] <= most  # so that NaN fails too
    ]
    for name in ("learning_rate", "head_learning_rate"):
        if not 0 < values[name] <= MAX_RATE:
            wrong.append(f"{name} must lie above 0 and not above {MAX_RATE:g}, not {values[name]}")
    for name in ("dropout", "label_smoothing", "momentum"):
        if not 0 <= values[name] < 1:
            wrong.append(f"{name} {values[name]} does not lie in [0, 1)")
    if any(not 1 <= units <= MAX_UNITS for units in values["hidden_units"]):
        wrong.append(f"hidden_units {list(values['hidden_units'])} must all lie between 1 and {MAX_UNITS}")
    if values["patience"] is not None and not 1 <= values["patience"] <= MAX_EPOCHS:
        wrong.append(f"patience {values['patience']} does not lie between 1 and {MAX_EPOCHS}; null means never")
    if values["learn"] not in ("head", "all") and not 1 <= values["learn"] <= 1000:
        wrong.append(f"learn {values['learn']} must be head, all, or how many of the last blocks learn (1 or more)")
    if wrong:
        raise ValueError(*wrong)
