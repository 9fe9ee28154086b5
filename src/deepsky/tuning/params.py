"""Section ``tune`` of params.yaml: what is searched, how, and where the search is kept."""

import math
from dataclasses import dataclass, fields
from typing import Literal

from deepsky.config import PARAMS
from deepsky.errors import ConfigError
from deepsky.training.fit import FitParams, TrainParams

Activation = Literal["relu", "elu", "gelu", "selu", "silu", "tanh"]
Optimizer = Literal["adam", "adamw", "adamax", "sgd"]
Schedule = Literal["constant", "cosine", "one_cycle"]
ObjectiveName = Literal["f1_macro", "accuracy", "cross_entropy", "parameters", "inference_ms"]
COSTS = ("parameters", "inference_ms")
MAX_LAYERS = 8


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
Dimension = IntRange | FloatRange | tuple[int, ...] | tuple[float, ...] | tuple[bool, ...] | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FitSpace:
    """Section ``tune.scratch``: how a network trained from the images may be fitted; see FitParams.

    ``weight_decay`` is searched with adamw only, ``momentum`` with sgd only.
    """

    label_smoothing: Floats
    optimizer: tuple[Optimizer, ...]
    learning_rate: Floats
    schedule: tuple[Schedule, ...]
    weight_decay: Floats
    momentum: Floats
    batch_size: Ints

    def __post_init__(self) -> None:
        """Refuse what Keras would fail on, and a choice of nothing."""
        for field in fields(self):
            if getattr(self, field.name) == ():
                raise ValueError(f"{field.name} holds no choice")
        for name in ("label_smoothing", "momentum"):
            _check_bounds(name, getattr(self, name), 0, below=1)
        _check_bounds("learning_rate", self.learning_rate, math.ulp(0.0))
        _check_bounds("weight_decay", self.weight_decay, 0)
        _check_bounds("batch_size", self.batch_size, 1)


@dataclass(frozen=True, kw_only=True)
class HeadSpace(FitSpace):
    """Section ``tune.heads``: heads on cached features; see TrainParams.

    ``activation``, ``dropout`` and ``batch_norm`` are searched where there is a hidden layer.

    Attributes:
        layers: number of hidden layers.
        units: width of each of them, drawn by itself.
    """

    layers: Ints
    units: Ints
    activation: tuple[Activation, ...]
    dropout: Floats
    batch_norm: tuple[bool, ...]
    l2: Floats

    def __post_init__(self) -> None:
        """Refuse what Keras would fail on, and a choice of nothing."""
        super().__post_init__()
        _check_bounds("layers", self.layers, 0, below=MAX_LAYERS + 1)
        _check_bounds("units", self.units, 1)
        _check_bounds("dropout", self.dropout, 0, below=1)
        _check_bounds("l2", self.l2, 0)


@dataclass(frozen=True, kw_only=True)
class TuneParams:
    """Section ``tune``.

    Attributes:
        dataset: searched where the command names none; network likewise.
        trials: in total, over all workers and restarts.
        epochs: of each trial, at most.
        patience: stop a trial after so many epochs without a better val_loss; None: never.
        seed: of the draws, of the folds, and the first one of the fits.
        sampler: what draws the next trials.
        pruner: what ends trials early.
        objectives: what is optimised on the val rows; the second, if any, is one of COSTS.
        folds: 1 takes the split's own train and val rows; more are grouped folds of both.
        repeats: fits of each candidate per fold, each with a seed of its own.
        population: trials trained together; ``auto`` measures.
        backend: of Keras while heads are searched, unless KERAS_BACKEND says otherwise; a head learns the same under
            both. Networks trained from the images start from other weights under each, so they keep Keras' own.
        storage: URL of the database; a relative SQLite path counts from the project's root.
        heartbeat_s: seconds between the signs of life of a worker; a trial without one for three times as long is
            tried again.
        heads: search space of heads on cached features.
        scratch: search space of networks trained from the images.
    """

    dataset: str
    network: str
    trials: int
    epochs: int
    patience: int | None
    seed: int
    sampler: Literal["tpe", "random", "cmaes", "grid"]
    pruner: Literal["hyperband", "median", "none"]
    objectives: tuple[ObjectiveName, ...]
    folds: int
    repeats: int
    population: int | Literal["auto"]
    backend: Literal["jax", "tensorflow"]
    storage: str
    heartbeat_s: int
    heads: HeadSpace
    scratch: FitSpace

    def __post_init__(self) -> None:
        """Refuse a search that cannot run."""
        for name in ("trials", "epochs", "folds", "repeats", "heartbeat_s", "population"):
            value = getattr(self, name)
            if value != "auto" and value < 1:
                raise ValueError(f"{name} {value} is below 1")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience {self.patience} is below 1; null means never")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must lie between 0 and {2**31 - 1}, not {self.seed}")
        costs = [name for name in self.objectives if name in COSTS]
        if not 1 <= len(self.objectives) <= 2 or self.objectives[0] in COSTS or costs != list(self.objectives[1:]):
            raise ValueError(
                f"objectives {list(self.objectives)} must be f1_macro, accuracy or cross_entropy, "
                f"and after it at most one of {', '.join(COSTS)}"
            )
        if costs and self.pruner != "none":
            raise ValueError(f"pruner {self.pruner} cannot compare trials by two objectives: set pruner: none")
        if costs and self.sampler == "cmaes":
            raise ValueError("sampler cmaes cannot optimise two objectives: choose tpe or random")

    def space_of(self, reference: FitParams) -> FitSpace:
        """Return the space in which the candidates of a reference's kind lie.

        Raises:
            ConfigError: sampler grid over a range.
        """
        section = "heads" if isinstance(reference, TrainParams) else "scratch"
        space: FitSpace = getattr(self, section)
        for field in fields(space):
            if self.sampler == "grid" and not isinstance(getattr(space, field.name), tuple):
                where = f"{PARAMS}: tune.{section}.{field.name}"
                raise ConfigError(
                    where, "is a range, of which sampler grid cannot try all", "write it as a list [a, b]"
                )
        return space


def _check_range(low: float, high: float, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"bounds {low} and {high} must be finite")
    if low > high:
        raise ValueError(f"low {low} lies above high {high}: the range is empty")
    if log and low <= 0:
        raise ValueError(f"low {low} is not above 0, so log: true cannot be")


def _check_bounds(name: str, dimension: Ints | Floats, least: float, below: float = math.inf) -> None:
    values = dimension if isinstance(dimension, tuple) else (dimension.low, dimension.high)
    for value in values:
        if not least <= value < below:
            allowed = f"at least {least}" if least != math.ulp(0.0) else "above 0"
            limit = f" and below {below}" if below < math.inf else ""
            raise ValueError(f"{name} {value} must be {allowed}{limit}")
