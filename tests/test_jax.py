"""KERAS_BACKEND=jax trains, saves and predicts; what TensorFlow saved predicts the same under JAX.

A head even learns the same under both, alone and in a population: its first weights, its dropout and the order of its
examples do not depend on the backend.
"""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from tests.test_determinism import start, write_inputs

PREDICT = """
import sys
from pathlib import Path
import keras, numpy as np, pandas as pd
from deepsky.datasets.packed import open_packed
from deepsky.training.saved import load_network

assert keras.backend.backend() == "jax"
inputs, out = Path(sys.argv[1]), Path(sys.argv[2])
images = np.array(open_packed(inputs / "packed").images)
for network in ("mobilenet", "cnn_small"):
    model, card = load_network(out / network / "model.h5")
    expected = pd.read_csv(out / network / "predictions.csv")[[f"p_{name}" for name in card.classes]]
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=2e-4)
"""

POPULATION = """
import json
import sys
from pathlib import Path
import keras, numpy as np, pandas as pd
from deepsky.config import build
from deepsky.datasets.packed import open_packed
from deepsky.training.features import read_features
from deepsky.training.fit import Examples, TrainParams
from deepsky.training.job import read_split
from deepsky.training.population import HeadTrainer

assert keras.backend.backend() == "jax"
inputs, out = Path(sys.argv[1]), Path(sys.argv[2])
packed = open_packed(inputs / "packed")
features = read_features(inputs / "features.npy", len(packed.images))
examples = Examples(features, packed.rows["image"].to_numpy(np.int64), packed.labels,
                    read_split(inputs / "split.csv", packed), len(packed.card.classes))
head = build(json.loads((out / "mobilenet/run.json").read_text())["params"]["train"], TrainParams, "train")
outcome = HeadTrainer().train([head, head], examples, lambda number, score: True)[1]
history = pd.read_csv(out / "mobilenet/history.csv")
np.testing.assert_allclose([score.val_loss for score in outcome.scores], history["val_loss"], rtol=1e-3)
"""


def test_jax_trains_and_predicts_what_tensorflow_saved(tmp_path: Path, monkeypatch) -> None:
    write_inputs(tmp_path / "inputs")
    tensorflow = start(tmp_path / "inputs", tmp_path / "tensorflow")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    jax = start(tmp_path / "inputs", tmp_path / "jax")
    for process in (tensorflow, jax):
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    history = pd.read_csv(tmp_path / "jax/cnn_small/history.csv")
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    for script, saved_by in ((PREDICT, "jax"), (PREDICT, "tensorflow"), (POPULATION, "tensorflow")):
        command = [sys.executable, "-c", script, str(tmp_path / "inputs"), str(tmp_path / saved_by)]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
