"""How Keras is imported: without what its libraries say of themselves; and how a GPU is asked for the same bytes."""

import os
import subprocess
import sys

import pytest

NOISY = """
import os, deepsky, keras
print(keras.ops.convert_to_numpy(keras.ops.ones(2)).sum())
os.write(2, b"I0000 mine\\n")
"""


def test_only_what_is_asked_for_reaches_stderr() -> None:
    def said(level: str) -> str:
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": level, "KERAS_BACKEND": "tensorflow"}
        done = subprocess.run(
            [sys.executable, "-c", NOISY], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == "2.0\n"
        return done.stderr

    assert said("3") == "I0000 mine\n"
    assert "port.cc" in said("0")


TRAINING = """
import sys
from pathlib import Path
import numpy as np, pandas as pd
from deepsky.lean_keras import compute_deterministically, computes_deterministically
compute_deterministically(sys.argv[1] == "yes")
assert computes_deterministically() == (sys.argv[1] == "yes")
from deepsky.datasets.packed import DatasetCard, Packed
from deepsky.networks.params import AugmentParams
from deepsky.training.build import make_job
from deepsky.training.recipe import Recipe
import keras
images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
rows = pd.DataFrame({"id": [str(n) for n in range(16)], "label": ["a", "b"] * 8, "image": range(16)})
packed = Packed(images, rows, DatasetCard("uint8", ("r", "g", "b"), (), ("a", "b"), None, 0))
recipe = Recipe(
    dataset="noise", network="cnn_small", start="scratch", learn="all", hidden_units=(8,), dropout=0.5,
    augment=AugmentParams(flip=True), input_size_px=32, batch_size=8, epochs=1, keep="last",
)
job = make_job("run", recipe, packed, np.full(16, "train"), weights=Path())
job.fit([])
if keras.backend.backend() == "tensorflow":
    from tensorflow.python.framework import config
    assert config.is_op_determinism_enabled() == (sys.argv[1] == "yes")
print(np.concatenate([weight.ravel() for weight in job.tail.get_weights()]).tobytes().hex())
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_training_that_asks_a_gpu_for_the_same_bytes_runs_on_a_cpu(backend: str) -> None:
    """The libraries take the request: an unknown XLA flag ends a process, TensorFlow refuses operations it forbids."""

    def trained(answer: str) -> str:
        environment = os.environ | {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-c", TRAINING, answer]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert trained("yes") == trained("yes") != ""
    assert trained("no") != ""
