"""Which precision Keras computes in."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from deepsky.training.fit import on_cpu


@contextmanager
def mixed_precision() -> Iterator[None]:
    """Let what is built in the block compute in 16 bits: float16 on a GPU (all kinds have it), else bfloat16."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if on_cpu() else "mixed_float16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
