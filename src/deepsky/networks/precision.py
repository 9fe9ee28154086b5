"""On what, and in which precision, Keras computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from deepsky.networks.params import Precision


def on_cpu() -> bool:
    """Tell whether Keras has no accelerator to compute on."""
    return str(keras.distribution.list_devices()[0]).startswith("cpu")


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Let what is built in the block compute so; ``mixed``: in 16 bits, in float16 on a GPU, else in bfloat16."""
    before = keras.config.dtype_policy()
    if precision == "mixed":  # all kinds of GPU have float16
        keras.config.set_dtype_policy("mixed_bfloat16" if on_cpu() else "mixed_float16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
