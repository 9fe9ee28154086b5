"""A project with toy galaxies and a run of each kind, small enough to train within seconds."""

import functools
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deepsky.networks.params import AugmentParams, WeightsParams
from deepsky.networks.registry import BACKBONES, SCRATCH
from deepsky.stages import weights as weights_stage
from deepsky.training.recipe import Recipe
from tests.toy_galaxies import write_galaxies
from tests.trained_folders import make_project

FLIPS = AugmentParams(flip=True, rotation_deg=180.0)
HEADS = Recipe(
    dataset="toy", network="tiny", input_size_px=32, augment=FLIPS, n_views=2, hidden_units=(8,), learning_rate=3e-3,
    batch_size=8, epochs=2, keep="last",
)  # fmt: skip
NET = Recipe(
    dataset="toy", network="cnn_small", start="scratch", learn="all", input_size_px=16, augment=FLIPS,
    learning_rate=3e-3, batch_size=8, epochs=2, keep="last",
)  # fmt: skip
FINE = Recipe(
    dataset="toy", network="tiny", learn=1, norm="inference", input_size_px=32, hidden_units=(), augment=FLIPS,
    head_epochs=1, head_learning_rate=1e-2, learning_rate=3e-3, batch_size=8, epochs=2, keep="last",
)  # fmt: skip
RUNS = {"heads": HEADS, "fine": FINE, "net": NET, "votes_net": replace(NET, dataset="votes", answer="tree")}
DATASETS = {
    "toy": {
        "format": "images", "source": "data/raw/toy", "id_column": "id", "label_column": "class",
        "classes": ["BLUE", "RED"], "size_px": 20, "group_by": "image",
    },
    "votes": {
        "format": "galaxy_zoo_challenge", "source": "data/raw/votes", "target": "fractions", "size_px": 20,
        "group_by": "image",
    },
}  # fmt: skip


def write_project(root: Path, patch: pytest.MonkeyPatch, n_rows: int = 32) -> Path:
    """Make ``root`` a project with the datasets toy and votes, random weights and the runs above; enter it.

    What is patched ends with ``patch``: a test of a project that outlives it calls ``know_tiny`` again.
    """
    root.mkdir(parents=True, exist_ok=True)
    make_project(root, patch)
    for name in DATASETS:
        made = write_galaxies(root / "made" / name, n_rows, fractions=name == "votes")
        for source, target in (("packed", f"data/packed/{name}"), ("split.csv", f"data/splits/{name}.csv")):
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            (made / source).rename(root / target)
        split = root / f"data/splits/{name}.csv"
        lines = split.read_text().splitlines()
        # Two rows of each class are a group.
        grouped = [f"{line.rpartition(',')[0]},g{int(line[:4]) // 4}" for line in lines[1:]]
        split.write_text("\n".join([lines[0], *grouped]) + "\n")
    know_tiny(patch)
    write_random_weights("tiny", root / "models/pretrained/tiny")
    write_params(root)
    return root


def know_tiny(patch: pytest.MonkeyPatch) -> None:
    """Enter the backbone of the runs in the registry: the real ones take seconds to build and trace."""
    patch.setitem(BACKBONES, "tiny", "tests.test_finetune:TINY")


def write_random_weights(network: str, out: Path) -> None:
    """Write what stage weights writes of one network with seed 1."""
    out.mkdir(parents=True)
    for name, content in _random_weights(network).items():
        (out / name).write_bytes(content)


@functools.cache
def _random_weights(network: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        weights_stage.run({network: True}, WeightsParams(source="random"), out=Path(folder) / "pretrained")
        return {path.name: path.read_bytes() for path in (Path(folder) / "pretrained" / network).iterdir()}


def write_params(root: Path, names: Sequence[str] = tuple(RUNS), **changes: Any) -> None:
    """Write params.yaml with some of the runs, every one with some values changed, and the cell toy-cnn_small."""
    runs = {name: replace(RUNS[name], **changes) for name in names}
    params = {
        "weights": {"source": "random"},
        "datasets": {"pictures": DATASETS},
        "networks": {"cnn_small": {"input_size_px": 16, "batch_size": 8, "epochs": 1}},
        "compare": {"datasets": {"toy": None}, "networks": {"cnn_small": None}},
        "runs": {name: run.settings(own_head=run.network in SCRATCH) for name, run in runs.items()},
    }
    YAML(typ="safe").dump(params, root / "params.yaml")
