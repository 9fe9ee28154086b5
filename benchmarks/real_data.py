"""The same stages on real images: one SDSS field, Galaxy Zoo 1 cutouts and Galaxy Zoo challenge images.

Works in a fresh clone beside the project's own data, registers the three with `deepsky add`, runs the pipeline with
real ImageNet weights and prints test accuracies. DATA holds sdss_frames/, galaxy_zoo1/ and kaggle_galaxy_zoo/;
WEIGHTS holds Keras' no-top MobileNet file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deepsky.experiment import edit

ROOT = Path(__file__).resolve().parents[1]
# Frozen MobileNet + reference head, trained on all these images and tested on others of the same kind.
REFERENCE = {"galaxy_zoo1": 0.55, "kaggle_galaxy_zoo": 0.70}
FIELD = "sdss_frames/003918-3-0213"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--workspace", type=Path, help="keep the clone here (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        workspace = options.workspace or Path(scratch) / "deepsky"
        started = time.monotonic()
        run_pipeline(workspace, options.data.resolve(), options.weights.resolve())
        print_table(workspace, time.monotonic() - started)


def run_pipeline(workspace: Path, data: Path, weights: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(workspace)], check=True)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(workspace / "src"),
        "DEEPSKY_WEIGHTS": str(weights),
    }

    def run(*command: str) -> None:
        subprocess.run(command, cwd=workspace, env=environment, check=True)

    run("deepsky", "drop", "demo")
    field = data / FIELD
    labels = field / "star_galaxy_labels_x_lt_1228.csv"
    run("deepsky", "add", "frames", "field3918", str(field), str(labels), "--position", "xy")
    for name, ids, label in (("galaxy_zoo1", "OBJID", "name"), ("kaggle_galaxy_zoo", "GalaxyID", "label5_name")):
        table = data / name / "labels.csv"
        columns = ("--id-column", ids, "--label-column", label)
        run("deepsky", "add", "images", name, str(data / name / "images"), str(table), *columns)
    with_real_weights(workspace / "params.yaml")
    run("deepsky", "repro", "--jobs", "2")


def with_real_weights(params: Path) -> None:
    document = edit.load(params)
    edit.set_entry(document, ("networks", "mobilenet"), {"input_size_px": 224})
    document["weights"]["source"] = "imagenet"
    edit.save(document, params)


def print_table(workspace: Path, seconds: float) -> None:
    summary = json.loads((workspace / "evaluation/runs/summary.json").read_text())
    row = "{:24}{:12}{:>7}{:>10}{:>16}{:>10}{:>11}"
    print(row.format("dataset", "network", "n test", "accuracy", "95 % interval", "macro F1", "reference"))
    for name, run in summary["runs"].items():
        dataset, _, network = name.partition("-")
        reference = REFERENCE.get(dataset, "") if network == "mobilenet" else ""
        interval = f"{run['test_accuracy_low']:.3f}-{run['test_accuracy_high']:.3f}"
        figures = (run["n_test"], f"{run['test_accuracy']:.3f}", interval, f"{run['test_f1_macro']:.3f}")
        print(row.format(dataset, network, *figures, reference))
    print(f"from raw files to report in {seconds / 60:.1f} minutes")


if __name__ == "__main__":
    main()
