"""How long `deepsky lineage` takes for 100,000 objects in 25,000 frames: with SQLite, and with a server 20 ms away.

    python benchmarks/lineage.py

Each command is a process of its own, in turn with another that only asks MLflow's client for the same run and its
lineage.json. On a busy machine processor time says more. The server is MLflow's own on this machine, behind a proxy
that holds back what it is asked for 20 ms.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.lineage_project import Project
from tests.mlflow_server import Proxy, mlflow_server
from tests.trained_folders import make_project

ROOT = Path(__file__).resolve().parents[1]
N_FIELDS, N_OBJECTS_PER_FIELD, BANDS, N_PAIRS, LATENCY_S = 5_000, 20, "ugriz", 5, 0.02
TARGET_S = 3.0
CLIENT = """
import sys
import mlflow
from mlflow.artifacts import load_text
from mlflow.tracking import MlflowClient
mlflow.set_tracking_uri(sys.argv[1])
run = MlflowClient().get_run(sys.argv[2])
load_text(f"{run.info.artifact_uri}/lineage/lineage.json")
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        project = made(Path(name), patch)
        compare("SQLite", f"sqlite:///{name}/mlflow.db", project.train(patch))
        proxy = Proxy(stack.enter_context(mlflow_server(Path(name))))
        stack.callback(proxy.stop)
        proxy.latency_s = LATENCY_S
        url = f"http://127.0.0.1:{proxy.port}"
        patch.setenv("MLFLOW_TRACKING_URI", url)
        (project.root / "params.yaml").write_text("tracking: {experiment: served}\n")
        compare(f"server, {1000 * LATENCY_S:.0f} ms", url, project.train(patch, experiment="served"))


def made(folder: Path, patch: pytest.MonkeyPatch) -> Project:
    """Return a project with so many objects and frames."""
    project = Project(make_project(folder, patch))
    fields = [(1000 + number // 1000, number % 1000 + 1) for number in range(N_FIELDS)]
    frames = {
        f"{run}/1/frame-{band}-{run:06d}-1-{field:04d}.fits.bz2": f"{band}{run}{field}".encode()
        for run, field in fields
        for band in BANDS
    }
    rows = ["id,label,image,run,camcol,field,ra_deg,dec_deg,edge,group"]
    split = ["id,split,group"]
    for number in range(N_FIELDS * N_OBJECTS_PER_FIELD):
        run, field = fields[number // N_OBJECTS_PER_FIELD]
        one, group = 1237648720142401611 + number, f"{run:06d}-1-{field:04d}"
        rows.append(f"{one},STAR,{number},{run},1,{field},{number / 1000:.6f},1.000000,False,{group}")
        split.append(f"{one},{('train', 'train', 'train', 'val', 'test')[number % 5]},{group}")
    project.run_stages(frames=frames, rows="\n".join([*rows, ""]), split="\n".join([*split, ""]))
    return project


def compare(store: str, uri: str, run_id: str) -> None:
    """Print the medians of pairs."""
    own, client = [sys.executable, "-m", "deepsky", "lineage", run_id], [sys.executable, "-c", CLIENT, uri, run_id]
    pairs = [(measured(own), measured(client)) for _ in range(N_PAIRS)]
    walls = [one[0] for one, _ in pairs]
    ratio_wall, ratio_cpu = (median(one[k] / other[k] for one, other in pairs) for k in (0, 1))
    print(f"{store}: {median(walls):.2f} s ({min(walls):.2f} to {max(walls):.2f}; target below {TARGET_S:.0f} s), "
          f"{median(one[1] for one, _ in pairs):.2f} s of processors; {ratio_wall:.2f} x MLflow's client that only "
          f"asks for the run, {ratio_cpu:.2f} x its processor time", flush=True)  # fmt: skip


def measured(command: Sequence[str]) -> tuple[float, float]:
    """Return the seconds of a command, and those of processors."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
