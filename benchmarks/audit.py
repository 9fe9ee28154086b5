"""The audit of one dataset of N objects, 64 x 64 pixels in five bands, with every shortcut: below 20 s for 10,000."""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from deepsky.datasets.packed import DatasetCard, create_images, write_rows
from deepsky.evaluation.audit import audit_datasets
from deepsky.evaluation.params import EvaluateParams
from deepsky.evaluation.planned import Places, PlannedRun
from deepsky.evaluation.trained import FACTS

SIDE_PX, BANDS, CLASSES, AT_ONCE = 64, tuple("ugriz"), ("GALAXY", "QSO", "STAR"), 500


def write_dataset(folder: Path, n: int) -> pd.DataFrame:
    """Write blobs whose colours tell the classes a little, and rows that know everything; return the rows."""
    rng = np.random.default_rng(0)
    code = rng.integers(0, len(CLASSES), n)
    folder.mkdir(parents=True)
    images = create_images(folder, (n, SIDE_PX, SIDE_PX, len(BANDS)), np.float32)
    for start in range(0, n, AT_ONCE):
        part = images[start : start + AT_ONCE]
        part[:] = rng.normal(0, 0.02, part.shape)
        part[:, 30:34, 30:34] += rng.lognormal(0, 1, (len(part), 1, 1, len(BANDS)))
        part[:, 30:34, 30:34] *= 1 + 0.3 * code[start : start + AT_ONCE, None, None, None] * np.arange(len(BANDS))
    names = [f"{kind}_{band}" for kind in ("sky", "noise", "psf") for band in BANDS] + [f"{band}_mag" for band in BANDS]
    beside = {name: rng.normal(size=n) for name in (*names, "x_px", "y_px", "file_bytes")}
    rows = pd.DataFrame({"id": [f"{i:06d}" for i in range(n)], "label": np.array(CLASSES)[code], "image": range(n)})
    rows = rows.assign(edge=rng.random(n) < 0.1, **beside)
    write_rows(folder, rows, DatasetCard("flux", BANDS, tuple("irg"), CLASSES, 0.4, 0), [])
    return rows


def write_run(folder: Path, rows: pd.DataFrame) -> None:
    """Write what the audit reads of a trained run: three fifths of the rows are train, a fifth val, a fifth test."""
    folder.mkdir(parents=True)
    split = np.array(["train", "train", "train", "val", "test"])[np.random.default_rng(1).integers(0, 5, len(rows))]
    table = rows[["id", "label"]].assign(split=split, group=rows["id"])
    table.to_csv(folder / "predictions.csv", index=False)
    facts = dict.fromkeys(FACTS, 0) | {"run": "sky-net", "dataset": "sky", "target": "class"}
    (folder / "run.json").write_text(json.dumps(facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, nargs="?", default=10_000, metavar="N")
    n = parser.parse_args().n
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_run(root / "trained/sky/net", write_dataset(root / "packed/sky", n))
        places = Places(packed=root / "packed", features=root, trained=root / "trained", out=root / "out")
        run = PlannedRun(name="sky-net", dataset="sky", label="net", settings={})
        for what in ("audit", "again, with nothing changed"):
            started, started_cpu = time.perf_counter(), time.process_time()
            problems = audit_datasets([run], EvaluateParams(audit=True), places, "")
            seconds, cpu = time.perf_counter() - started, time.process_time() - started_cpu
            print(f"{n} objects, {what}: {seconds:.1f} s ({cpu:.1f} s of CPU) {problems or ''}".rstrip())


if __name__ == "__main__":
    main()
