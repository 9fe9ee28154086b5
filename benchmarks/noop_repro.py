"""A `dvc repro` with nothing to do against `dvc status`: at most 1.2 x. Run it after `make repro`."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DVC = Path(sys.executable).with_name("dvc")
N_PAIRS = 5


def seconds(verb: str) -> float:
    started = time.perf_counter()
    done = subprocess.run([DVC, verb], cwd=ROOT, capture_output=True, text=True, check=True)
    elapsed = time.perf_counter() - started
    if "up to date" not in done.stdout:
        sys.exit(f"error: dvc {verb}: there is something to do; run make repro first")
    return elapsed


def main() -> None:
    seconds("status")  # fills the file cache
    pairs = [(seconds("repro"), seconds("status")) for _ in range(N_PAIRS)]
    repro_s, status_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(repro / status for repro, status in pairs)
    print(f"dvc repro {repro_s:.2f} s, dvc status {status_s:.2f} s (medians of {N_PAIRS})")
    print(f"no-op repro / status: {ratio:.2f} x (target: at most 1.2 x)")


if __name__ == "__main__":
    main()
