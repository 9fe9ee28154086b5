"""What deepsky doctor finds, on the real machine and on one that is broken in known ways."""

import os
import stat

import pytest

from deepsky.commands import doctor
from tests.workspace import make_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return make_workspace(tmp_path_factory.mktemp("doctor"))


def _looked_at(said):
    """Map what was looked at to its lines; of the machine's own memory, disk and cards anything may be said."""
    lines = {}
    for line in said.splitlines():
        mark, what, found = line.split(maxsplit=2)
        lines.setdefault(what, []).append((mark, found))
    return lines


def test_it_looks_at_everything_and_leaves_no_trace(workspace):
    before = {path.name for path in workspace.root.iterdir()}
    found = _looked_at(workspace.run("deepsky", "doctor", check=False).stdout)
    assert found.keys() == {
        "python",
        "packages",
        "memory",
        "GPU",
        "tensorflow",
        "jax",
        "weights",
        "MLflow",
        "Optuna",
        "disk",
    }
    for what in ("python", "packages", "weights", "MLflow", "Optuna"):
        assert {mark for mark, _ in found[what]} == {"ok"}
    for backend in ("tensorflow", "jax"):
        assert found[backend][0][0] == "ok"
        assert found[backend][0][1].startswith("computes on")
    weights = dict(line.split(": ", 1) for _, line in found["weights"])
    assert weights["efficientnet_lite0"].endswith(".pth")
    assert weights["mobilenet"].startswith("random ones, make weights")
    assert {path.name for path in workspace.root.iterdir()} == before


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("echo 'No devices were found'; exit 0", "nvidia-smi fails: No devices were found"),
        ("echo 'cannot reach the driver' >&2; exit 9", "nvidia-smi fails: cannot reach the driver"),
    ],
)
def test_a_driver_that_does_not_work_is_told(tmp_path, monkeypatch, script, line):
    write_tool(tmp_path / "nvidia-smi", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    doctor._cards.cache_clear()
    assert list(doctor._gpu()) == [("GPU", line, "mend the driver's installation")]
    doctor._cards.cache_clear()


def write_tool(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_card_that_is_not_seen_and_a_folder_that_is_not_there_are_told(workspace, tmp_path):
    write_tool(tmp_path / "nvidia-smi", "echo 'Some Card, 1.2, 80 MiB, 1 MiB'")
    broken = {"PATH": f"{tmp_path}:{workspace.env['PATH']}", "DEEPSKY_WEIGHTS": str(tmp_path / "nowhere")}
    done = workspace.run("deepsky", "doctor", check=False, **broken, CUDA_VISIBLE_DEVICES="", JAX_PLATFORMS="cpu")
    assert done.returncode == 1
    assert "does not see the GPU; make setup GPU=1" in done.stdout
    found = _looked_at(done.stdout)
    assert found["weights"][0][1].startswith(f"DEEPSKY_WEIGHTS: {tmp_path}/nowhere is not a folder; name a folder")
    assert done.stderr.strip().splitlines()[-1].startswith("error: doctor: ")
