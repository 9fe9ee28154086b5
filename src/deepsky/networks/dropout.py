"""Dropout whose mask depends only on seed, step, unit and row: the same alone, padded, or on another backend."""

from typing import Any

import keras
from keras import ops

_ROUNDS = ((16, 0x7FEB352D), (15, 0x846CA68B))
_LAST_SHIFT = 16


def uniform_noise(seed: int, step: Any, n_units: int, n_rows: Any, *, per_step: Any = None) -> keras.KerasTensor:
    """Return numbers in [0, 1) that a longer layer or batch only adds to.

    Keras' generators give other numbers compiled and not compiled, and under another backend.

    Args:
        seed: of the layer.
        step: of the training, integer scalar.
        n_units: width of the layer.
        n_rows: of the batch.
        per_step: rows of a step, where a batch holds several, one after the other; None: all rows are of this one.

    Returns:
        Float32, (n_rows, n_units).

    Source:
        The 32-bit mixing function lowbias32 of Wellons, https://nullprogram.com/blog/2018/07/31/.
    """
    row = ops.arange(n_rows, dtype="int32")
    if per_step is not None:
        step, row = ops.cast(step, "int32") + row // per_step, row % per_step
    start = _mix(ops.cast(step, "uint32") + ops.cast(seed, "uint32") * ops.cast(0x9E3779B1, "uint32"))
    rows = _mix(start + ops.cast(row, "uint32"))
    units = ops.cast(ops.arange(n_units, dtype="int32"), "uint32")
    bits = _mix(rows[:, None] + units[None] * ops.cast(0x9E3779B1, "uint32"))
    return ops.cast(ops.right_shift(bits, ops.cast(8, "uint32")), "float32") * 2.0**-24


def _mix(bits: Any) -> Any:
    for shift, factor in _ROUNDS:
        bits = ops.bitwise_xor(bits, ops.right_shift(bits, ops.cast(shift, "uint32")))
        bits = bits * ops.cast(factor, "uint32")
    return ops.bitwise_xor(bits, ops.right_shift(bits, ops.cast(_LAST_SHIFT, "uint32")))


@keras.saving.register_keras_serializable("deepsky")
class SeededDropout(keras.layers.Layer):
    """Leave out a share of the units of each row in training, and scale the others up.

    Attributes:
        rate: the share, in [0, 1).
        seed: of this layer.
    """

    def __init__(self, rate: float, seed: int, **options: Any) -> None:
        """Keep rate and seed; the rest goes to Keras."""
        super().__init__(**options)
        self.rate, self.seed = rate, seed

    def build(self, input_shape: Any) -> None:
        """Start at step 0."""
        # "int": int64 under TensorFlow, which leaves an int32 on the host, where a compiled step cannot reach it.
        self._step = self.add_weight(shape=(), dtype="int", initializer="zeros", trainable=False, name="step")

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """Return inputs (row, unit), with the units left out at 0."""
        if not training:
            return inputs
        noise = uniform_noise(self.seed, self._step, inputs.shape[1], ops.shape(inputs)[0])
        self._step.assign_add(1)
        return ops.where(noise >= self.rate, inputs / (1 - self.rate), 0.0)

    def stock(self) -> keras.layers.Layer:
        """Return Keras' own layer that does the same outside training, and in it leaves out other units."""
        return keras.layers.Dropout(self.rate, seed=self.seed, name=self.name)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
