"""Section ``tune`` of params.yaml: what is searched, how, and where the search is kept. It needs no Keras."""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from deepsky.config import PARAMS
from deepsky.errors import ConfigError
from deepsky.training.recipe import MAX_BATCH, MAX_EPOCHS, MAX_RATE, MAX_UNITS, Recipe

Activation = Literal["relu", "elu", "gelu", "selu", "silu", "tanh"]
Optimizer = Literal["adam", "adamw", "adamax", "sgd"]
Schedule = Literal["constant", "cosine", "one_cycle"]
ObjectiveName = Literal["score", "f1_macro", "accuracy", "cross_entropy", "rmse", "parameters", "inference_ms"]
OF_CLASSES = ("f1_macro", "accuracy", "cross_entropy")
OF_FRACTIONS = ("rmse",)
COSTS = ("parameters", "inference_ms")
MAX_LAYERS, MAX_STRENGTH, MAX_BLOCKS = 8, 10.0, 1000


def _check_range(low: float, high: float, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"bounds {low} and {high} must be finite")
    if low > high:
        raise ValueError(f"low {low} lies above high {high}: the range is empty")
    if log and low <= 0:
        raise ValueError(f"low {low} is not above 0, so log: true cannot be")


@dataclass(frozen=True)
class IntRange:
    """Whole numbers between two bounds.

    Attributes:
        low: the smallest.
        high: the largest.
        log: whether small ones are drawn as often as large ones, by magnitude.
    """

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        """Refuse a range without numbers."""
        _check_range(self.low, self.high, self.log)


@dataclass(frozen=True)
class FloatRange:
    """Numbers between two bounds; the attributes are those of IntRange."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        """Refuse a range without numbers."""
        _check_range(self.low, self.high, self.log)


Ints = IntRange | tuple[int, ...]
Floats = FloatRange | tuple[float, ...]
Depths = tuple[int | Literal["all"], ...]
Dimension = IntRange | FloatRange | tuple[int, ...] | tuple[float, ...] | tuple[bool, ...] | tuple[str, ...] | Depths


def _check_bounds(
    name: str, dimension: Ints | Floats, least: float, *, below: float = math.inf, most: float = math.inf
) -> None:
    values = dimension if isinstance(dimension, tuple) else (dimension.low, dimension.high)
    for value in values:
        if not (least <= value < below and value <= most):
            allowed = f"at least {least}" if least != math.ulp(0.0) else "above 0"
            limit = f" and below {below}" if below < math.inf else f" and at most {most:g}" if most < math.inf else ""
            raise ValueError(f"{name} {value} must be {allowed}{limit}")


@dataclass(frozen=True, kw_only=True)
class FitSpace:
    """How a network may be fitted; see Recipe.

    ``weight_decay`` is searched with adamw only, ``momentum`` with sgd only, ``label_smoothing`` for classes only.
    """

    label_smoothing: Floats = FloatRange(0.0, 0.2)
    optimizer: tuple[Optimizer, ...] = ("adam", "adamw", "adamax", "sgd")
    learning_rate: Floats = FloatRange(1e-5, 1e-1, log=True)
    schedule: tuple[Schedule, ...] = ("constant", "cosine")
    weight_decay: Floats = FloatRange(1e-4, 1e-1, log=True)
    momentum: Floats = FloatRange(0.5, 0.99)
    batch_size: Ints = (16, 32, 64)

    def __post_init__(self) -> None:
        """Refuse what Keras would fail on, and a choice of nothing."""
        for one in fields(self):
            if getattr(self, one.name) == ():
                raise ValueError(f"{one.name} holds no choice")
        for name in ("label_smoothing", "momentum"):
            _check_bounds(name, getattr(self, name), 0, below=1)
        _check_bounds("learning_rate", self.learning_rate, math.ulp(0.0), most=MAX_RATE)
        _check_bounds("weight_decay", self.weight_decay, 0, most=MAX_RATE)
        _check_bounds("batch_size", self.batch_size, 1, most=MAX_BATCH)


@dataclass(frozen=True, kw_only=True)
class HeadSpace(FitSpace):
    """Section ``tune.heads``: heads on cached features; see Recipe.

    ``activation``, ``dropout`` and ``batch_norm`` are searched where there is a hidden layer.

    Attributes:
        layers: number of hidden layers.
        units: width of each of them, drawn by itself.
    """

    layers: Ints = IntRange(0, 4)
    units: Ints = IntRange(16, 512, log=True)
    activation: tuple[Activation, ...] = ("relu", "gelu", "tanh")
    dropout: Floats = FloatRange(0.0, 0.6)
    batch_norm: tuple[bool, ...] = (False, True)
    l2: Floats = FloatRange(1e-7, 1e-2, log=True)
    batch_size: Ints = (32, 128)

    def __post_init__(self) -> None:
        """Refuse what Keras would fail on, and a choice of nothing."""
        super().__post_init__()
        _check_bounds("layers", self.layers, 0, below=MAX_LAYERS + 1)
        _check_bounds("units", self.units, 1, most=MAX_UNITS)
        _check_bounds("dropout", self.dropout, 0, below=1)
        _check_bounds("l2", self.l2, 0, most=MAX_RATE)


@dataclass(frozen=True, kw_only=True)
class ImageSpace(FitSpace):
    """Section ``tune.images``: networks that learn from the images; see Recipe.

    Attributes:
        augment_strength: times what the run's own ``augment`` strays; searched where that changes anything.
        learn: what of a pretrained network learns: its last N blocks, or ``all``; searched where the run is one.
    """

    augment_strength: Floats = FloatRange(0.0, 1.5)
    learn: Depths = (1, 3, "all")

    def __post_init__(self) -> None:
        """Refuse what cannot be built, and a choice of nothing."""
        super().__post_init__()
        _check_bounds("augment_strength", self.augment_strength, 0, most=MAX_STRENGTH)
        if any(depth != "all" and not 1 <= depth <= MAX_BLOCKS for depth in self.learn):
            raise ValueError(f"learn {list(self.learn)} must be all, or how many of the last blocks learn (1 or more)")


@dataclass(frozen=True, kw_only=True)
class TuneParams:
    """Section ``tune``.

    Attributes:
        run: searched where the command names none: a run of ``runs``, or DATASET-NETWORK.
        trials: in total, over all workers and restarts.
        epochs: of each trial, at most.
        patience: stop a trial after so many epochs without a better one, by what the run monitors; None: never.
        seed: of the draws, of the folds, and the first one of the fits; heads on random views are fitted with the seed
            that drew these.
        sampler: what draws the next trials.
        pruner: what ends trials early.
        objectives: what is optimised on the val rows: ``score`` (f1_macro; of vote fractions rmse), one of OF_CLASSES,
            or for vote fractions of OF_FRACTIONS; the second, if any, is one of COSTS.
        folds: 1 takes the split's own train and val rows; more are grouped folds of both.
        repeats: fits of each candidate per fold, each with a seed of its own.
        population: trials trained together; ``auto`` times several numbers and takes the fastest.
        backend: of Keras while heads are searched, unless KERAS_BACKEND says otherwise; a head learns the same under
            both. Networks that learn from the images start from other weights under each, so they keep Keras' own.
        storage: URL of the database; a relative SQLite path counts from the project's root.
        heartbeat_s: seconds between the signs of life of a worker; a trial without one for three times as long is
            tried again.
        heads: search space of heads on cached features.
        images: search space of networks that learn from the images.
    """

    run: str = "sdss_cutouts-efficientnet_lite0"
    trials: int = 100
    epochs: int = 10
    patience: int | None = None
    seed: int = 1
    sampler: Literal["tpe", "random", "cmaes", "grid"] = "tpe"
    pruner: Literal["hyperband", "median", "none"] = "hyperband"
    objectives: tuple[ObjectiveName, ...] = ("score",)
    folds: int = 1
    repeats: int = 1
    population: int | Literal["auto"] = 16
    backend: Literal["jax", "tensorflow"] = "jax"
    storage: str = "sqlite:///tuning.db"
    heartbeat_s: int = 10
    heads: HeadSpace = field(default_factory=HeadSpace)
    images: ImageSpace = field(default_factory=ImageSpace)

    def __post_init__(self) -> None:
        """Refuse a search that cannot run."""
        for name in ("trials", "epochs", "folds", "repeats", "heartbeat_s", "population"):
            value = getattr(self, name)
            if value != "auto" and not 1 <= value <= MAX_EPOCHS:
                raise ValueError(f"{name} must lie between 1 and {MAX_EPOCHS}, not {value}")
        if self.patience is not None and not 1 <= self.patience <= MAX_EPOCHS:
            raise ValueError(f"patience {self.patience} does not lie between 1 and {MAX_EPOCHS}; null means never")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must lie between 0 and {2**31 - 1}, not {self.seed}")
        costs = [name for name in self.objectives if name in COSTS]
        if not 1 <= len(self.objectives) <= 2 or self.objectives[0] in COSTS or costs != list(self.objectives[1:]):
            raise ValueError(
                f"objectives {list(self.objectives)} must be score, f1_macro, accuracy, cross_entropy or rmse, "
                f"and after it at most one of {', '.join(COSTS)}"
            )
        if costs and self.pruner != "none":
            raise ValueError(f"pruner {self.pruner} cannot compare trials by two objectives: set pruner: none")
        if costs and self.sampler == "cmaes":
            raise ValueError("sampler cmaes cannot optimise two objectives: choose tpe or random")

    def of_run(self, base: Recipe) -> "TuneParams":
        """Return the same with ``score`` as what it is for a run.

        Args:
            base: the run's recipe.
        """
        score: ObjectiveName = "f1_macro" if base.answer == "softmax" else "rmse"
        return replace(self, objectives=tuple(score if one == "score" else one for one in self.objectives))

    def space_of(self, base: Recipe) -> HeadSpace | ImageSpace:
        """Return the space in which the candidates of a run lie.

        Args:
            base: the run's recipe.

        Raises:
            ConfigError: sampler grid over a range.
        """
        section = "heads" if base.of_head else "images"
        space: HeadSpace | ImageSpace = getattr(self, section)
        for name in searched_keys(space, base):
            if self.sampler == "grid" and not isinstance(getattr(space, name), tuple):
                where = f"{PARAMS}: tune.{section}.{name}"
                raise ConfigError(
                    where, "is a range, of which sampler grid cannot try all", "write it as a list [a, b]"
                )
        return space


def searched_keys(space: FitSpace, base: Recipe) -> list[str]:
    """Return the keys of a space that may have an effect on a run, in the space's order."""
    idle = set()
    if base.answer != "softmax":
        idle.add("label_smoothing")
    if base.augment.times(0.5) == base.augment:
        idle.add("augment_strength")
    if base.start != "pretrained":
        idle.add("learn")
    return [one.name for one in fields(space) if one.name not in idle]


def check_objectives(objectives: tuple[ObjectiveName, ...], base: Recipe, run: str) -> None:
    """Refuse objectives that say nothing of a run.

    Raises:
        ConfigError: names the objective and what to write instead.
    """
    first, where = objectives[0], f"{PARAMS}: tune.objectives"
    fitting = OF_CLASSES if base.answer == "softmax" else OF_FRACTIONS
    if first not in fitting:
        of, learned = ("classes", "vote fractions") if first in OF_CLASSES else ("vote fractions", "classes")
        problem = f"{first} is for {of}, and {run} learns {learned}"
        raise ConfigError(where, problem, f"write {' or '.join(fitting)}")
    if len(objectives) > 1 and not base.of_head:
        raise ConfigError(where, f"{objectives[1]} is the same for every candidate of {run}", "leave one objective")
