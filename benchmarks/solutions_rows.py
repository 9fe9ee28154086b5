"""A Galaxy Zoo challenge table of 1,000,000 rows, as CSV and as the Parquet parts of a Spark cluster.

    python benchmarks/solutions_rows.py [--n-rows 1000000]

Prints rows per second and how much memory the reading adds at its peak, of ours (which also checks every row) and of
pandas.read_csv; each in a process of its own. The table that ours gives takes 156 MB.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from deepsky.catalogue.decision_tree import COLUMNS, QUESTIONS, compose, places
from deepsky.formats.solutions import ID, read_solutions

ROWS_PER_PART = 125_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-rows", type=int, default=1_000_000)
    parser.add_argument("--read", nargs=2, metavar=("WITH", "PATH"), help="only this reading, in this process")
    options = parser.parse_args()
    if options.read:
        measure(*options.read)
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.n_rows)
        times_s = {}
        for reader, name in [("pandas", "solutions.csv"), ("ours", "solutions.csv"), ("ours", "solutions.parquet")]:
            done = subprocess.run(
                [sys.executable, __file__, "--read", reader, str(Path(folder) / name)],
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            n_rows, seconds, growth_mb = map(float, done.stdout.split())
            times_s[reader, name] = seconds
            print(
                f"{reader:6} {name:18} {n_rows:,.0f} rows in {seconds:.2f} s: {n_rows / seconds:,.0f} rows/s, "
                f"peak + {growth_mb:.0f} MB"
            )
    for name in ("solutions.csv", "solutions.parquet"):
        ratio = times_s["pandas", "solutions.csv"] / times_s["ours", name]
        print(f"pandas.read_csv / ours, {name}: {ratio:.2f} x")


def write(folder: Path, n_rows: int) -> None:
    """Write seeded rows that obey the tree, part by part, so that writing them takes little memory."""
    rng, parts = np.random.default_rng(11), folder / "solutions.parquet"
    parts.mkdir()
    fields = [pa.field(ID, pa.int64()), *(pa.field(name, pa.float64()) for name in COLUMNS)]
    with pa.csv.CSVWriter(folder / "solutions.csv", pa.schema(fields)) as csv:
        for number, start in enumerate(range(0, n_rows, ROWS_PER_PART)):
            size = min(ROWS_PER_PART, n_rows - start)
            answers = rng.gamma(0.7, size=(size, len(COLUMNS)))
            for question in QUESTIONS:
                answers[:, places(question)] /= answers[:, places(question)].sum(axis=1, keepdims=True)
            columns = [100_000 + start + rng.permutation(size), *np.round(compose(answers), 6).T]
            table = pa.Table.from_arrays([pa.array(column) for column in columns], schema=pa.schema(fields))
            csv.write_table(table)
            pa.parquet.write_table(table, parts / f"part-{number:05d}-a1.c000.snappy.parquet", compression="snappy")
    (parts / "_SUCCESS").touch()


def measure(reader: str, path: str) -> None:
    before, started = peak_mb(), time.perf_counter()
    n_rows = len(pd.read_csv(path)) if reader == "pandas" else len(read_solutions(Path(path)).ids)
    print(n_rows, time.perf_counter() - started, peak_mb() - before)


def peak_mb() -> float:
    """Return the most memory that this process has held (Linux; getrusage would count its parent's too)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
