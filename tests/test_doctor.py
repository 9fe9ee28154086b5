"""What deepsky doctor finds, on the real machine and on one that is broken in known ways."""

import os
import stat

import pytest

from tests.workspace import make_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return make_workspace(tmp_path_factory.mktemp("doctor"))


def test_all_is_well_here(workspace):
    said = workspace.run("deepsky", "doctor").stdout
    lines = {" ".join(line.split()[:2]) for line in said.splitlines()}
    assert {"ok python", "ok packages", "ok tensorflow", "ok jax", "ok weights", "ok MLflow", "ok Optuna"} <= lines
    assert "wrong" not in said
    assert "mobilenet: random ones, make weights downloads it" in said or "mobilenet_1_0" in said


def test_a_card_that_nothing_sees_and_a_folder_that_is_not_there_are_told(workspace, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'No devices were found' >&2\nexit 9\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    broken = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DEEPSKY_WEIGHTS": str(tmp_path / "nowhere")}
    broken["CUDA_VISIBLE_DEVICES"] = ""
    done = workspace.run("deepsky", "doctor", check=False, **broken)
    assert done.returncode == 1
    assert "GPU           nvidia-smi fails: No devices were found; mend the driver's installation" in done.stdout
    assert "tensorflow    does not see the GPU; make setup GPU=1" in done.stdout
    assert f"DEEPSKY_WEIGHTS: {tmp_path}/nowhere is not a folder; name a folder" in done.stdout
    assert done.stderr.strip().splitlines()[-1] == "error: doctor: 4 things to mend; see above"
