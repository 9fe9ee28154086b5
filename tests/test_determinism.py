"""One seed on one machine: the train stages write the same bytes in fresh processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from deepsky.datasets.packed import DatasetCard, write_rows
from deepsky.networks.backbone import BackboneParams
from deepsky.networks.pretrained import WeightsParams
from deepsky.stages import features, weights
from deepsky.training.features import FeaturesParams

FILES = ("model.h5", "history.csv", "predictions.csv", "run.json")
# What `deepsky train` and `deepsky train-scratch` do, in one process because importing Keras takes seconds.
SCRIPT = """
from pathlib import Path
from deepsky.networks.backbone import BackboneParams
from deepsky.stages import train, train_scratch
from deepsky.training.fit import ScratchParams, TrainParams

inputs, out = Path(INPUTS), Path(OUT)
common = dict(seed=1, label_smoothing=0.1, optimizer="adam", learning_rate=1e-3, schedule="cosine", weight_decay=0.0,
              momentum=0.9, batch_size=8, epochs=3, patience=None, keep="best")
head = TrainParams(hidden_units=(64, 32), activation="gelu", dropout=0.3, batch_norm=True, l2=1e-4, **common)
files = dict(packed=inputs / "packed", split=inputs / "split.csv")
train.run("toy", "mobilenet", head, BackboneParams(32), "tests", {}, features=inputs / "features.npy",
          weights=inputs / "weights", out=out / "mobilenet", **files)
train_scratch.run("toy", "cnn_small", ScratchParams(input_size_px=16, **common), "tests", {}, out=out / "cnn_small",
                  **files)
"""


def write_inputs(folder: Path) -> None:
    rng = np.random.default_rng(0)
    packed, n_rows = folder / "packed", 48
    packed.mkdir(parents=True)
    np.save(packed / "images.npy", rng.integers(0, 256, (n_rows, 20, 20, 3), dtype=np.uint8))
    labels = np.where(np.arange(n_rows) % 2, "STAR", "GALAXY")
    rows = pd.DataFrame({"id": np.arange(n_rows).astype(str), "label": labels, "image": np.arange(n_rows)})
    write_rows(packed, rows, DatasetCard("uint8", ("r", "g", "b"), (), ("GALAXY", "STAR"), None, 0), [])
    split = np.array(["train", "train", "val", "test"])[np.arange(n_rows) % 4]
    pd.DataFrame({"id": rows["id"], "split": split}).to_csv(folder / "split.csv", index=False)
    weights.run("mobilenet", WeightsParams("random", None, False, 1), out=folder / "weights")
    features.run(
        "mobilenet",
        BackboneParams(32),
        FeaturesParams(16),
        packed=packed,
        weights=folder / "weights",
        out=folder / "features.npy",
    )


def start(inputs: Path, out: Path) -> subprocess.Popen[bytes]:
    out.mkdir()
    script = SCRIPT.replace("INPUTS", repr(str(inputs))).replace("OUT", repr(str(out)))
    (out / "dvc.yaml").touch()  # the project whose MLflow store is used
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return subprocess.Popen([sys.executable, "-c", script], cwd=out, env=environment, stderr=subprocess.PIPE)


def test_the_same_stage_in_fresh_processes_writes_the_same_bytes(tmp_path: Path) -> None:
    write_inputs(tmp_path / "inputs")
    # Side by side: what else the machine does must not matter either.
    processes = [start(tmp_path / "inputs", tmp_path / name) for name in ("a", "b")]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    for network in ("mobilenet", "cnn_small"):
        for file in FILES:
            first, again = ((tmp_path / name / network / file).read_bytes() for name in ("a", "b"))
            assert first == again, f"{network}/{file}"
