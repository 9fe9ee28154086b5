"""Many heads trained together in a few compiled programs, each with the outcome it would have alone."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from deepsky.interruption import uninterrupted
from deepsky.networks.heads import first_kernel
from deepsky.networks.precision import on_cpu
from deepsky.training.batches import TrainBatches
from deepsky.training.examples import Examples
from deepsky.training.fit import Interruptible
from deepsky.training.recipe import Recipe
from deepsky.training.scores import score_heads
from deepsky.training.stacked import Heads, HeadsOptimizer, Shape
from deepsky.training.trials import EpochScore, MakeBatches, OnEpoch, Outcome, best_epoch

Array = npt.NDArray[np.float32]
_ROWS_PER_PREDICTION = 256
# On a CPU padding costs what it computes; an accelerator waits for launches, not for arithmetic.
_MAX_PADDING_CPU = 3.0
_MAX_BYTES = 2 << 30  # of the weights and moments of all programs
_WIDTHS, _DEPTHS = (0, 32, 128, 512, 1024), (0, 2, 4)


@dataclass
class Head:
    """A candidate on its way: where it stands in the caller's list, its weights and its scores so far.

    Attributes:
        number: index in the caller's list.
        recipe: how it is built and fitted.
        state: every array of the program that is this head's own, by name, without padding.
        scores: of the epochs so far.
        ended: how it ended; empty while it is trained.
        reason: why it diverged.
    """

    number: int
    recipe: Recipe
    state: dict[str, Array]
    scores: list[EpochScore]
    ended: Literal["", "finished", "patience", "pruned", "diverged"] = ""
    reason: str = ""


class HeadTrainer:
    """Trains heads of classes in programs of many; keeps the programs, so that a later call need not compile again."""

    def __init__(self, make_batches: MakeBatches = TrainBatches, max_padding: float | None = None) -> None:
        """Start without programs.

        Args:
            make_batches: gives the train rows.
            max_padding: how many times its own weights a group of heads may fill; None: by the device.
        """
        self._make_batches = make_batches
        self._max_padding = max_padding or (_MAX_PADDING_CPU if on_cpu() else math.inf)
        self._programs: dict[Shape, Program] = {}

    def train(self, candidates: Sequence[Recipe], examples: Examples, on_epoch: OnEpoch) -> list[Outcome]:
        """Fit each candidate; see ``deepsky.training.trials.Trainer``."""
        n_features, n_classes = examples.inputs.shape[1], examples.targets.shape[1]
        heads = [
            Head(number, recipe, first_state(recipe, n_features, n_classes), [])
            for number, recipe in enumerate(candidates)
        ]
        waiting = {0: heads}
        while waiting:
            epoch = min(waiting)
            for shape, group in self._groups(waiting.pop(epoch), n_features, n_classes):
                reached = self._program(shape).train(group, examples, on_epoch, epoch)
                if left := [head for head in group if not head.ended]:
                    waiting.setdefault(reached, []).extend(left)
        return [Outcome(tuple(head.scores), head.ended or "finished", head.reason) for head in heads]

    def _program(self, shape: Shape) -> "Program":
        """Return the program of a shape; those that were used longest ago go when all fill too much memory."""
        self._programs[shape] = (
            self._programs.pop(shape) if shape in self._programs else Program(shape, self._make_batches)
        )
        while len(self._programs) > 1 and sum(one.n_bytes for one in self._programs) > _MAX_BYTES:
            self._programs.pop(next(iter(self._programs)))
        return self._programs[shape]

    def _groups(self, heads: Sequence[Head], n_features: int, n_classes: int) -> list[tuple[Shape, list[Head]]]:
        """Cut the heads into groups that one program takes, as large as padding allows; sizes are powers of two."""
        groups = []
        for alike in _by(heads, _program_key):
            left = sorted(alike, key=lambda head: (-_own_weights(head), head.number))
            while left:
                size = 1 << (len(left).bit_length() - 1)
                while True:
                    group = left[:size]
                    shape = _shape(group, n_features, n_classes)
                    own = sum(_own_weights(head) for head in group)
                    if size == 1 or size * shape.n_weights_per_head <= self._max_padding * own:
                        break
                    size //= 2
                groups.append((shape, group))
                left = left[size:]
        return groups


def _by(heads: Sequence[Head], key: Callable[[Head], Any]) -> list[list[Head]]:
    found: dict[Any, list[Head]] = {}
    for head in heads:
        found.setdefault(key(head), []).append(head)
    return list(found.values())


def _program_key(head: Head) -> tuple[Any, ...]:
    """Return what the heads of a program have in common: the batches, and whether there are hidden layers."""
    recipe = head.recipe
    return recipe.seed, recipe.batch_size, recipe.epochs, recipe.class_weights, _depth(head) == 0


def _depth(head: Head) -> int:
    return len(head.recipe.hidden_units)


def _own_weights(head: Head) -> int:
    return sum(value.size for name, value in head.state.items() if name.startswith("kernel"))


def _shape(group: Sequence[Head], n_features: int, n_classes: int) -> Shape:
    """Round width and depth up: few programs then serve all heads."""
    width = max((units for head in group for units in head.recipe.hidden_units), default=0)
    depth = max(_depth(head) for head in group)
    return Shape(len(group), n_features, _rounded(width, _WIDTHS), _rounded(depth, _DEPTHS), n_classes)


def _rounded(value: int, steps: Sequence[int]) -> int:
    return next((step for step in steps if step >= value), value)


def first_state(recipe: Recipe, n_features: int, n_classes: int) -> dict[str, Array]:
    """Return the initial weights of a head, those of ``networks.heads.build_head``; a name ends in the layer.

    Layer 0 is the softmax layer.
    """
    sides = [n_features, *recipe.hidden_units, n_classes]
    state: dict[str, Array] = {}
    for number, (n_in, n_out) in enumerate(pairwise(sides), start=1):
        layer = 0 if number == len(sides) - 1 else number
        state[f"kernel_{layer}"] = first_kernel(recipe.seed, layer, n_in, n_out)
        state[f"bias_{layer}"] = np.zeros(n_out, np.float32)
        if layer:
            state |= {f"{name}_{layer}": np.zeros(n_out, np.float32) for name in ("beta", "mean")}
            state |= {f"{name}_{layer}": np.ones(n_out, np.float32) for name in ("gamma", "variance")}
    return state


class Program:
    """One shape's network, optimizer and compiled steps."""

    def __init__(self, shape: Shape, make_batches: MakeBatches) -> None:
        """Build; Keras compiles at the first step."""
        self._shape, self._make_batches = shape, make_batches
        self._heads = Heads(shape, name="heads")
        features = keras.Input((shape.n_features,), name="features")
        targets = keras.Input((shape.n_classes,), name="targets")
        weights = keras.Input((), name="weights")
        self._fitted = keras.Model([features, targets, weights], self._heads(features, targets, weights))
        self._scored = keras.Model(features, self._heads(features))
        self._optimizer = HeadsOptimizer(shape.n_heads)
        # XLA under TensorFlow on a CPU: a step takes 0.7 times as long, but compiling as long as hundreds of them, and
        # again for each batch size.
        compiled = keras.backend.backend() != "tensorflow" or not on_cpu()
        self._fitted.compile(optimizer=self._optimizer, jit_compile=compiled)
        self._scored.compile(jit_compile=compiled)
        self._optimizer.build(self._fitted.trainable_variables)

    def train(self, heads: Sequence[Head], examples: Examples, on_epoch: OnEpoch, first_epoch: int) -> int:
        """Train from epoch ``first_epoch`` on, until at most half of the heads are left or all epochs are done.

        Returns:
            The epoch reached; heads that have not ended go on from there.
        """
        recipe = heads[0].recipe
        batches = FullBatches(self._make_batches(examples, recipe, first_epoch), recipe.batch_size)
        self._load(heads, n_steps=recipe.epochs * len(batches), first_step=first_epoch * len(batches))
        watch = _Watch(self, heads, examples, on_epoch)
        callbacks = [Interruptible(), watch]
        with uninterrupted():
            self._fitted.fit(
                batches, initial_epoch=first_epoch, epochs=recipe.epochs, shuffle=False, callbacks=callbacks, verbose=0
            )
        if any(not head.ended for head in heads):
            self._save(heads)
        return watch.epochs_done

    def probabilities(self, inputs: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Return (head, row, class) and whether all weights of each head are finite."""
        parts = []
        for first in range(0, len(inputs), _ROWS_PER_PREDICTION):
            rows = inputs[first : first + _ROWS_PER_PREDICTION]
            # Compiled for one number of rows: folds differ by a few.
            filled = np.pad(rows, ((0, -len(rows) % _ROWS_PER_PREDICTION), (0, 0)))
            part, finite = self._scored.predict_on_batch(filled)
            parts.append(np.asarray(part)[:, : len(rows)])
        return np.concatenate(parts, axis=1), np.asarray(finite)

    def end(self, alive: npt.NDArray[np.bool_], *, stop: bool) -> None:
        """Let only some heads learn on; ``stop`` ends the fit after this epoch."""
        self._optimizer.settings["alive"].assign(alive.astype(np.float32))
        self._fitted.stop_training = stop

    def _load(self, heads: Sequence[Head], n_steps: int, first_step: int) -> None:
        recipes = [head.recipe for head in heads]
        self._heads.configure(recipes, first_step)
        self._optimizer.configure(recipes, n_steps, first_step)
        for prefix, variables in self._variables().items():
            for kind, variable in variables.items():
                layout = self._shape.layout[kind]
                padded = [
                    np.stack([_padded(head.state.get(prefix + name), shape) for head in heads]).reshape(len(heads), -1)
                    for name, shape in layout.items()
                ]
                variable.assign(np.concatenate(padded, axis=1) if padded else np.zeros(variable.shape))

    def _save(self, heads: Sequence[Head]) -> None:
        for prefix, variables in self._variables().items():
            for kind, variable in variables.items():
                layout, values = self._shape.layout[kind], ops.convert_to_numpy(variable)
                ends = np.cumsum([math.prod(shape) for shape in layout.values()])
                for (name, shape), part in zip(layout.items(), np.split(values, ends[:-1], axis=1), strict=False):
                    for slot, head in enumerate(heads):
                        if not head.ended and name in head.state:
                            own = tuple(map(slice, head.state[name].shape))
                            head.state[prefix + name] = part[slot].reshape(shape)[own].copy()

    def _variables(self) -> dict[str, dict[str, keras.Variable]]:
        """Return every variable with a head axis that training changes, by the prefix of its names in a state."""
        return {"": self._heads.own, **self._optimizer.slots}


def _padded(own: Array | None, shape: tuple[int, ...]) -> Array:
    """Return an array of ``shape`` with ``own`` in its corner and 0 elsewhere."""
    padded = np.zeros(shape, np.float32)
    if own is not None:
        padded[tuple(map(slice, own.shape))] = own
    return padded


class FullBatches(keras.utils.PyDataset):
    """The same steps, filled up with rows of weight 0: compiled code takes one number of rows.

    The targets stand among the inputs, because the loss needs each head's own label smoothing.
    """

    def __init__(self, batches: TrainBatches, batch_size: int) -> None:
        """Wrap batches of which the last is short."""
        super().__init__()
        self._batches, self._batch_size = batches, batch_size

    def __len__(self) -> int:
        """Return the steps of an epoch."""
        return len(self._batches)

    def __getitem__(self, step: int) -> tuple[Any]:
        """Return features, targets and the weight of each row in the loss."""
        inputs, targets, *weighted = self._batches[step]
        n_missing = self._batch_size - len(inputs)
        weights = weighted[0] if weighted else np.ones(len(inputs), np.float32)
        rows = ((0, n_missing), (0, 0))
        return ((np.pad(inputs, rows), np.pad(targets, rows), np.pad(weights, (0, n_missing))),)

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's order."""
        self._batches.on_epoch_end()


class _Watch(keras.callbacks.Callback):
    """Score every head on the val rows after each epoch and end those that shall not go on."""

    def __init__(self, program: Program, heads: Sequence[Head], examples: Examples, on_epoch: OnEpoch) -> None:
        super().__init__()
        rows = examples.rows("val")
        self._inputs, self._labels = examples.inputs_of(rows), examples.labels[rows]
        self._program, self._heads, self._on_epoch = program, heads, on_epoch
        self.epochs_done = 0

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Score; stop once half of the heads have ended, so that the others go on in a smaller program."""
        self.epochs_done = epoch + 1
        probabilities, finite = self._program.probabilities(self._inputs)
        losses, accuracies, f1 = score_heads(probabilities, self._labels)
        running = [slot for slot, head in enumerate(self._heads) if not head.ended]
        for slot in running:
            head = self._heads[slot]
            if not (finite[slot] and math.isfinite(losses[slot])):
                what = "a weight is not finite" if not finite[slot] else f"val_loss is {losses[slot]}"
                head.ended, head.reason = "diverged", f"{what} after epoch {epoch + 1}"
                continue
            score = EpochScore(epoch + 1, float(losses[slot]), float(accuracies[slot]), float(f1[slot]))
            head.scores.append(score)
            if not self._on_epoch(head.number, score):
                head.ended = "pruned"
            elif epoch + 1 == head.recipe.epochs:
                head.ended = "finished"
            elif _out_of_patience(head):
                head.ended = "patience"
        left = [not head.ended for head in self._heads]
        if sum(left) < len(running):
            few = 2 * sum(left) <= len(left) and epoch + 2 < self._heads[0].recipe.epochs
            self._program.end(np.array(left), stop=few or not any(left))


def _out_of_patience(head: Head) -> bool:
    """Tell whether the best epoch is ``patience`` epochs old, as Keras' EarlyStopping counts."""
    if head.recipe.patience is None:
        return False
    return head.scores[-1].epoch - best_epoch(head.scores, head.recipe).epoch >= head.recipe.patience
