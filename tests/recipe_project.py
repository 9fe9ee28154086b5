"""A project with toy galaxies and a recipe of each way of training, small enough to train within seconds."""

import functools
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deepsky.networks import BACKBONES
from deepsky.networks.augment import AugmentParams
from deepsky.networks.pretrained import WeightsParams
from deepsky.stages import weights as weights_stage
from deepsky.training.recipes import FineTuneParams, FromScratchParams, FrozenParams
from tests.conftest import ROOT
from tests.test_finetune import TINY
from tests.toy_galaxies import write_galaxies
from tests.trained_folders import make_project

FIT: dict[str, Any] = {
    "seed": 1, "label_smoothing": 0.0, "optimizer": "adam", "learning_rate": 3e-3, "schedule": "constant",
    "weight_decay": 0.0, "momentum": 0.9, "batch_size": 8, "epochs": 2, "patience": None, "keep": "last",
    "dataset": "toy", "input_size_px": 32,
}  # fmt: skip
IMAGES: dict[str, Any] = {"test_views": 1, "class_weights": "none", "mixup": 0.0, "precision": "float32"}
FLIPS = AugmentParams(flip=True, rotation_deg=180.0)
FROZEN = FrozenParams(
    **FIT, network="tiny", augment=FLIPS, n_views=2, test_views=1, hidden_units=(8,), activation="relu", dropout=0.0,
    batch_norm=False, l2=0.0, class_weights="none",
)  # fmt: skip
SCRATCH = FromScratchParams(
    **FIT | {"input_size_px": 16}, **IMAGES, network="cnn_small", augment=FLIPS, answer="softmax"
)
TUNED = FineTuneParams(
    **FIT, **IMAGES, network="tiny", augment=FLIPS, answer="softmax", hidden_units=(), dropout=0.0,
    head_epochs=1, head_learning_rate=1e-2, unfreeze=1, norm="inference",
)  # fmt: skip


def write_project(root: Path, patch: pytest.MonkeyPatch, n_rows: int = 32) -> Path:
    """Make ``root`` a project with the datasets toy and votes, random weights and the recipes above; enter it.

    What is patched ends with ``patch``: a test of a project that outlives it calls ``know_tiny`` again.
    """
    root.mkdir(parents=True, exist_ok=True)
    make_project(root, patch)
    for name in ("toy", "votes"):
        made = write_galaxies(root / "made" / name, n_rows, fractions=name == "votes")
        for source, target in (("packed", f"data/packed/{name}"), ("split.csv", f"data/splits/{name}.csv")):
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            (made / source).rename(root / target)
        split = root / f"data/splits/{name}.csv"
        lines = split.read_text().splitlines()
        grouped = [f"{line}g{int(line[:4]) // 4}" for line in lines[1:]]  # two rows of each class
        split.write_text("\n".join([lines[0], *grouped]) + "\n")
    know_tiny(patch)
    write_random_weights("tiny", root / "models/pretrained/tiny")
    write_recipes(root)
    return root


def know_tiny(patch: pytest.MonkeyPatch) -> None:
    """Enter the backbone of the recipes in the registry: the real ones take seconds to build and trace."""
    patch.setitem(BACKBONES, "tiny", TINY)


def write_random_weights(network: str, out: Path) -> None:
    """Write what stage weights writes with seed 1."""
    out.mkdir(parents=True)
    for name, content in _random_weights(network).items():
        (out / name).write_bytes(content)


@functools.cache
def _random_weights(network: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / network
        weights_stage.run(network, WeightsParams(source="random", folder=None, download=False, seed=1), out=out)
        return {path.name: path.read_bytes() for path in out.iterdir()}


def write_recipes(root: Path, **changes: Any) -> None:
    """Write params.yaml with the recipes heads, net, votes_net and tuned, with some values changed."""
    yaml = YAML(typ="safe")
    params = yaml.load(ROOT / "params.yaml")
    votes = asdict(SCRATCH) | {"dataset": "votes", "answer": "tree"}
    params["recipes"] = {
        "frozen": {"heads": asdict(FROZEN) | changes},
        "fine_tune": {"tuned": asdict(TUNED) | changes},
        "from_scratch": {"net": asdict(SCRATCH) | changes, "votes_net": votes | changes},
    }
    yaml.dump(params, root / "params.yaml")
