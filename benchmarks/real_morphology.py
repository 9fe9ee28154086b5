"""Runs on real galaxies, and the two warm-ups, from the published images to accuracies.

Works in a fresh clone beside the project's own data. The runs on galaxies are judged by grouped 5-fold
cross-validation, MNIST and CIFAR-10 by their published test part. DATA holds galaxy_zoo1/, kaggle_galaxy_zoo/, mnist/
and cifar10/; WEIGHTS holds Keras' no-top MobileNet file.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML
from sklearn.metrics import f1_score

ROOT = Path(__file__).resolve().parents[1]
FOLDS = 5
# A plain 25-epoch fine-tune of MobileNet at 128 px, tested on other images of the same kind; for the warm-ups, what
# shows that a set-up works.
REFERENCE = {"galaxy_zoo1": 0.73, "kaggle_galaxy_zoo": 0.91, "mnist": 0.985, "cifar10": 0.60}
SHORT_NAMES = {"kaggle": "kaggle_galaxy_zoo"}

ANY_WAY_UP = {"flip": True, "rotation_deg": 180.0, "shift": 0.05, "shear_deg": 0.0, "zoom": 0.15, "brightness": 0.2}
TRAIN: dict[str, Any] = {
    "label_smoothing": 0.1, "optimizer": "adamw", "schedule": "one_cycle", "weight_decay": 0.01, "keep": "last",
    "hidden_units": [], "dropout": 0.2, "head_epochs": 0,
}  # fmt: skip
FINE_TUNE = {"network": "mobilenet", "learn": "all"}
GALAXIES = FINE_TUNE | {"augment": ANY_WAY_UP, "test_views": 8, "input_size_px": 128}
RUNS: Mapping[str, Mapping[str, Any]] = {
    "zoo1": GALAXIES | {"dataset": "galaxy_zoo1", "epochs": 40},
    "kaggle": GALAXIES | {"dataset": "kaggle_galaxy_zoo", "epochs": 30},
    "things": FINE_TUNE | {
        "dataset": "cifar10", "input_size_px": 96, "epochs": 3, "test_views": 2,
        "augment": {"flip": True, "shift": 0.1},
    },
    "digits": {
        "dataset": "mnist", "network": "cnn_small", "input_size_px": 28, "epochs": 12, "learning_rate": 2e-3,
        "label_smoothing": 0.0, "augment": {"shift": 0.07},
    },
}  # fmt: skip
PICTURES: Mapping[str, Mapping[str, Any]] = {
    "galaxy_zoo1": {
        "id_column": "OBJID", "label_column": "name", "size_px": 128, "crop_px": 176,
        "group_by": "objid", "classes": ["elliptical", "spiral_cw", "spiral_acw", "edge_on", "dont_know", "merger"],
        "mirrored": [["spiral_cw", "spiral_acw"]],
    },
    "kaggle_galaxy_zoo": {
        "id_column": "GalaxyID", "label_column": "label5_name", "size_px": 128, "crop_px": 192,
        "group_by": "image", "classes": ["round", "in_between", "cigar", "edge_on", "spiral"],
    },
}  # fmt: skip
WARM_UPS = {
    "mnist": {"format": "mnist", "source": "mnist/mnist.npz", "size_px": 28},
    "cifar10": {"format": "cifar10", "source": "cifar10/cifar10_jpeg_subset.zip", "size_px": 32},
}
ROW = "{:20}{:12}{:>10}{:>9}{:>10}{:>9}{:>11}"


class Workspace:
    """A fresh clone with the real images and the runs above in its params.yaml."""

    def __init__(self, folder: Path, data: Path, weights: Path, datasets: Sequence[str]) -> None:
        """Clone the project and write the entries of some datasets and of the runs on them."""
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        self.folder, self._environment = (
            folder,
            os.environ
            | {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PYTHONPATH": str(folder / "src"),
                "DEEPSKY_WEIGHTS": str(weights),
            },
        )
        pictures = {
            name: PICTURES[name] | {"format": "images", "source": str(data / name)}
            for name in datasets
            if name in PICTURES
        }
        warm_ups = {
            name: WARM_UPS[name] | {"source": str(data / WARM_UPS[name]["source"]), "group_by": "given"}
            for name in datasets
            if name in WARM_UPS
        }
        params = {
            "datasets": {"pictures": pictures | warm_ups},
            "weights": {"source": "imagenet"},
            "train": TRAIN,
            "runs": {name: dict(run) for name, run in RUNS.items() if run["dataset"] in datasets},
        }
        YAML(typ="safe").dump(params, folder / "params.yaml")

    def run(self, *command: str) -> str:
        """Run a command in the workspace, show what it prints, and return that."""
        lines = []
        with subprocess.Popen(
            command, cwd=self.folder, env=self._environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print("   ", line, end="", flush=True)
                lines.append(line)
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed")
        return "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--only", default=",".join(REFERENCE), help="of galaxy_zoo1,kaggle,mnist,cifar10")
    parser.add_argument("--workspace", type=Path, help="keep the clone here (default: a temporary folder)")
    options = parser.parse_args()
    datasets = [SHORT_NAMES.get(name, name) for name in options.only.split(",")]
    if unknown := set(datasets) - set(REFERENCE):
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(REFERENCE)}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.workspace or Path(scratch) / "deepsky"
        workspace = Workspace(folder, options.data.resolve(), options.weights.resolve(), datasets)
        rows = [row for dataset in datasets for row in measure(workspace, dataset)]
    print(ROW.format("dataset", "run", "accuracy", "spread", "macro F1", "minutes", "reference"))
    for row in rows:
        print(ROW.format(*row))


def measure(workspace: Workspace, dataset: str) -> list[list[str]]:
    """Return a row of the table for each run of a dataset."""
    judge = cross_validate if dataset in PICTURES else test_once
    names = [name for name, run in RUNS.items() if run["dataset"] == dataset]
    return [[dataset, name, *judge(workspace, dataset, name), f"{REFERENCE[dataset]}"] for name in names]


def cross_validate(workspace: Workspace, dataset: str, name: str) -> list[str]:
    workspace.run("dvc", "repro", f"split@{dataset}", "weights")
    workspace.run("deepsky", "crossval", name, "--folds", str(FOLDS))
    folds = pd.read_csv(workspace.folder / f"evaluation/crossval/{name}.csv")
    mean, spread = folds["accuracy"].mean(), folds["accuracy"].std()
    return [f"{mean:.3f}", f"{spread:.3f}", f"{folds['f1_macro'].mean():.3f}", f"{folds['seconds'].sum() / 60:.1f}"]


def test_once(workspace: Workspace, dataset: str, name: str) -> list[str]:
    workspace.run("dvc", "repro", f"features@{dataset}")
    started = time.monotonic()
    workspace.run("dvc", "repro", f"train_run@{name}")
    minutes = (time.monotonic() - started) / 60
    test = pd.read_csv(workspace.folder / f"models/trained/{dataset}/{name}/predictions.csv", dtype={"label": str})
    test = test[test["split"] == "test"]
    answer = test.filter(regex="^p_").idxmax(axis=1).str.removeprefix("p_")
    macro_f1 = f1_score(test["label"], answer, average="macro")
    return [f"{(answer == test['label']).mean():.3f}", "-", f"{macro_f1:.3f}", f"{minutes:.1f}"]


if __name__ == "__main__":
    main()
