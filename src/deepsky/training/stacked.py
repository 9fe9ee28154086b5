"""A layer of many heads with a leading head axis, and their optimizer; each head has settings of its own.

A head narrower or shallower than the layer is padded: a unit whose kernels are zero stays at zero, because its output
and every gradient through it are zero, and a level beyond a head's depth passes its input on.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from deepsky.networks.dropout import uniform_noise
from deepsky.networks.heads import NORM_MOMENTUM, layer_seed
from deepsky.training.fit import FIRST_RATE, WARM_UP
from deepsky.training.recipe import Recipe

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": ops.relu,
    "elu": ops.elu,
    "gelu": lambda x: ops.gelu(x, approximate=False),
    "selu": ops.selu,
    "silu": ops.silu,
    "tanh": ops.tanh,
}
OPTIMIZERS = ("adam", "adamw", "adamax", "sgd")
_NORM_EPSILON = 1e-3  # Keras' own
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7  # Keras' own of the Adam family


@dataclass(frozen=True)
class Shape:
    """What a compiled program is made for."""

    n_heads: int
    n_features: int
    width: int
    depth: int
    n_classes: int

    @property
    def layout(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Shape of every array of one head, by the weight that holds it and by name.

        A name ends in the layer; 0 is the softmax. The small arrays share two weights: an update has a cost of its own
        for each weight, and so has compiling it.
        """
        sides = [self.n_features, *[self.width] * self.depth]
        layers = range(1, self.depth + 1)
        kernels = {f"kernel_{layer}": (sides[layer - 1], self.width) for layer in layers}
        kernels["kernel_0"] = (sides[-1], self.n_classes)
        vectors = {f"{name}_{layer}": (self.width,) for layer in layers for name in ("bias", "gamma", "beta")}
        moving: dict[str, tuple[int, ...]] = {
            f"{name}_{layer}": (self.width,) for layer in layers for name in ("mean", "variance")
        }
        return {
            **{name: {name: shape} for name, shape in kernels.items()},
            "vectors": {**vectors, "bias_0": (self.n_classes,)},
            "moving": moving,
        }

    @property
    def n_weights_per_head(self) -> int:
        """Numbers in the kernels of one head; the others do not matter."""
        return sum(math.prod(shapes[name]) for name, shapes in self.layout.items() if name.startswith("kernel"))

    @property
    def n_bytes(self) -> int:
        """Memory of the kernels of all heads and of their two moments."""
        return 3 * 4 * self.n_heads * self.n_weights_per_head


class Heads(keras.layers.Layer):
    """Features -> probabilities of every head, (head, row, class), and whether each head's weights are finite.

    Every weight is (head, number); ``Shape.layout`` says which arrays it holds.
    """

    def __init__(self, shape: Shape, **options: Any) -> None:
        """Keep the shape; the rest goes to Keras."""
        super().__init__(**options)
        self._shape = shape

    def build(self, *shapes: Any) -> None:
        """Make the weights and, beside them, the settings of each head."""
        n_heads, depth = self._shape.n_heads, self._shape.depth

        def add(name: str, *sides: int, dtype: str = "float32", trainable: bool = False) -> keras.Variable:
            return self.add_weight(shape=sides, dtype=dtype, initializer="zeros", trainable=trainable, name=name)

        self.own = {
            kind: add(kind, n_heads, sum(map(math.prod, self._shape.layout[kind].values())), trainable=kind != "moving")
            for kind in self._shape.layout
        }
        settings = ("depth", "activation", "dropout", "batch_norm", "label_smoothing")
        self._settings = {name: add(name, n_heads) for name in settings}
        self._step, self._seeds = add("step", dtype="int"), add("seeds", depth + 1, dtype="int")

    def configure(self, recipes: Sequence[Recipe], first_step: int) -> None:
        """Set what each head is, and the step to go on from."""
        names = list(ACTIVATIONS)
        values = {
            "depth": [len(one.hidden_units) for one in recipes],
            "activation": [names.index(one.activation) for one in recipes],
            **{name: [getattr(one, name) for one in recipes] for name in ("dropout", "batch_norm", "label_smoothing")},
        }
        for name, variable in self._settings.items():
            variable.assign(np.array(values[name], np.float32))
        self._step.assign(first_step)
        self._seeds.assign([layer_seed(recipes[0].seed, layer) for layer in range(self._shape.depth + 1)])

    def call(self, features: Any, targets: Any = None, weights: Any = None, training: bool = False) -> Any:
        """Compute all heads; with targets, also add the sum of their losses.

        Args:
            features: (row, feature).
            targets: (row, class).
            weights: of each row in the loss, (row,); a row of weight 0 is not there.
            training: whether the heads learn.
        """
        present = None if weights is None else ops.cast(weights > 0, "float32")
        named = {name: array for kind in self.own for name, array in self._split(kind).items()}
        hidden, moved = features[None], {name: named[name] for name in self._shape.layout["moving"]}
        for layer in range(1, self._shape.depth + 1):
            deeper = self._hidden(layer, hidden, named, moved, present if training else None)
            hidden = deeper if layer == 1 else ops.where(self._of("depth") >= layer, deeper, hidden)
        logits = ops.matmul(hidden, named["kernel_0"]) + named["bias_0"][:, None]
        if training:
            self._step.assign_add(1)
            if moved:
                parts = [moved[name] for name in self._shape.layout["moving"]]
                self.own["moving"].assign(ops.concatenate(parts, axis=1))
        if targets is not None:
            smoothing = self._of("label_smoothing")
            smoothed = targets[None] * (1 - smoothing) + smoothing / self._shape.n_classes
            losses = -ops.sum(smoothed * ops.log_softmax(logits, axis=-1), axis=-1)
            self.add_loss(ops.sum(losses * weights[None]) / ops.sum(present))
        # 0 times a weight is 0 only if it is finite.
        trace = sum(ops.sum(ops.convert_to_tensor(value) * 0, axis=1) for value in self.own.values())
        return ops.softmax(logits, axis=-1), ops.equal(trace, 0)

    def _split(self, kind: str) -> dict[str, Any]:
        """Return the arrays that one weight holds, (head, *shape), by name."""
        parts, start, weight = {}, 0, ops.convert_to_tensor(self.own[kind])
        for name, shape in self._shape.layout[kind].items():
            end = start + math.prod(shape)
            parts[name] = ops.reshape(weight[:, start:end], (self._shape.n_heads, *shape))
            start = end
        return parts

    def _hidden(self, layer: int, inputs: Any, weights: Mapping[str, Any], moved: dict[str, Any], present: Any) -> Any:
        """Compute one hidden layer; ``present`` is None outside training."""
        total = ops.matmul(inputs, weights[f"kernel_{layer}"]) + weights[f"bias_{layer}"][:, None]
        mean, variance = weights[f"mean_{layer}"], weights[f"variance_{layer}"]
        if present is not None:
            share = (present / ops.sum(present))[None, :, None]
            mean = ops.sum(share * total, axis=1)
            variance = ops.sum(share * ops.square(total - mean[:, None]), axis=1)
            for name, now in ((f"mean_{layer}", mean), (f"variance_{layer}", variance)):
                moved[name] = weights[name] * NORM_MOMENTUM + now * (1 - NORM_MOMENTUM)
        scale = weights[f"gamma_{layer}"] * ops.rsqrt(variance + _NORM_EPSILON)
        normalised = (total - mean[:, None]) * scale[:, None] + weights[f"beta_{layer}"][:, None]
        total = ops.where(self._of("batch_norm") > 0, normalised, total)
        active = total
        for code, activation in enumerate(ACTIVATIONS.values()):
            active = ops.where(self._of("activation") == code, activation(total), active)
        if present is None:
            return active
        noise = uniform_noise(self._seeds[layer], self._step, self._shape.width, ops.shape(inputs)[1])
        rate = self._of("dropout")
        return ops.where(noise[None] >= rate, active / (1 - rate), 0.0)

    def _of(self, name: str) -> Any:
        """Return a setting of each head, (head, 1, 1)."""
        return self._settings[name][:, None, None]


class HeadsOptimizer(keras.optimizers.Optimizer):
    """Keras' Adam, AdamW, Adamax and SGD with momentum, chosen and set for each head.

    Attributes:
        settings: each head's numbers, (head,).
        slots: the two moments of every weight; SGD's momentum stands in the first, Adamax' norm in the second.
    """

    def __init__(self, n_heads: int) -> None:
        """Make the settings; ``build`` makes the slots."""
        super().__init__(learning_rate=1.0)
        self._n_heads = n_heads
        self.slots: dict[str, dict[str, keras.Variable]] = {}

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make settings and slots."""
        if self.built:
            return
        super().build(variables)
        settings = ("rule", "learning_rate", "falls", "n_rising", "weight_decay", "momentum", "l2", "alive")
        self.settings = {
            name: self.add_variable(shape=(self._n_heads,), initializer="zeros", name=name) for name in settings
        }
        self._n_steps = self.add_variable(shape=(), initializer="ones", name="n_steps")
        first, second = self.add_optimizer_variables(variables, ["first", "second"])
        names = [variable.name for variable in variables]
        self.slots = {
            "first/": dict(zip(names, first, strict=True)),
            "second/": dict(zip(names, second, strict=True)),
        }

    def configure(self, recipes: Sequence[Recipe], n_steps: int, first_step: int) -> None:
        """Set each head's rule and numbers, and the step to go on from."""
        values: Mapping[str, list[float]] = {
            "rule": [OPTIMIZERS.index(one.optimizer) for one in recipes],
            "learning_rate": [one.learning_rate for one in recipes],
            "falls": [one.schedule != "constant" for one in recipes],
            "n_rising": [int(WARM_UP * n_steps) if one.schedule == "one_cycle" else 0 for one in recipes],
            "weight_decay": [one.weight_decay if one.optimizer == "adamw" else 0.0 for one in recipes],
            "momentum": [one.momentum for one in recipes],
            "l2": [one.l2 for one in recipes],
            "alive": [1.0] * len(recipes),
        }
        for name, variable in self.settings.items():
            variable.assign(np.array(values[name], np.float32))
        self._n_steps.assign(n_steps)
        self.iterations.assign(first_step)

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        """Update one weight of all heads; the arithmetic is that of Keras' own optimizers.

        On a CPU each operation is a pass over all weights, so the rules share as many as they can:
        first = a first + b gradient; second = c second + d gradient^2 + e; weight = f weight - g first / (root + h).
        """
        kind = self._trainable_variables[self._get_variable_index(variable)].name
        first_slot, second_slot = self.slots["first/"][kind], self.slots["second/"][kind]
        weight, first, second = (ops.convert_to_tensor(value) for value in (variable, first_slot, second_slot))
        one = {name: value[:, None] for name, value in self._coefficients().items()}
        if kind.startswith("kernel"):
            gradient = gradient + one["l2"] * weight
        first = one["a"] * first + one["b"] * gradient
        mean_square = one["c"] * second + one["d"] * ops.square(gradient) + one["e"]
        largest = ops.maximum(_BETA_2 * second, ops.abs(gradient))
        second = ops.where(one["adamax"], largest, mean_square)
        root = ops.where(one["adamax"], largest, ops.sqrt(mean_square))
        self.assign(variable, one["f"] * weight - one["g"] * first / (root + _EPSILON))
        self.assign(first_slot, first)
        self.assign(second_slot, second)

    def _coefficients(self) -> dict[str, Any]:
        """Return the numbers of this step's update, (head,)."""
        now = {name: ops.convert_to_tensor(value) for name, value in self.settings.items()}
        step, n_rising = ops.cast(self.iterations, "float32"), now["n_rising"]
        rise = FIRST_RATE + (1 - FIRST_RATE) * step / ops.maximum(n_rising, 1.0)
        fall = 0.5 * (1 + ops.cos(math.pi * ops.minimum((step - n_rising) / (self._n_steps - n_rising), 1.0)))
        share = ops.where(step < n_rising, rise, ops.where(now["falls"] > 0, fall, 1.0))
        rate = now["alive"] * now["learning_rate"] * share
        sgd, adamax = now["rule"] == OPTIMIZERS.index("sgd"), now["rule"] == OPTIMIZERS.index("adamax")
        bias_1, bias_2 = 1 - ops.power(_BETA_1, step + 1), 1 - ops.power(_BETA_2, step + 1)
        return {
            "adamax": adamax,
            "l2": 2 * now["l2"],
            "a": ops.where(sgd, now["momentum"], _BETA_1),
            "b": ops.where(sgd, rate, 1 - _BETA_1),
            "c": ops.where(sgd, 0.0, _BETA_2),
            "d": ops.where(sgd, 0.0, 1 - _BETA_2),
            "e": ops.where(sgd, 1.0, 0.0),  # so that SGD divides by 1
            "f": 1 - rate * now["weight_decay"],
            "g": now["alive"] * ops.where(sgd, 1.0, rate / bias_1 * ops.where(adamax, 1.0, ops.sqrt(bias_2))),
        }
