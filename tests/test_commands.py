import pytest

from deepsky.commands.repro import run
from deepsky.errors import ConfigError
from tests.workspace import make_workspace


@pytest.mark.parametrize("jobs", [0, 65])
def test_jobs_out_of_range(jobs):
    with pytest.raises(ConfigError, match="out of range; give 1 to 64"):
        run(jobs)


@pytest.fixture
def workspace(tmp_path):
    made = make_workspace(tmp_path)
    made.run("git", "rm", "-rq", "--cached", "dvc.yaml", "params.yaml")
    return made


def write_stages(workspace, text):
    (workspace.root / "dvc.yaml").write_text(text)
    (workspace.root / "params.yaml").write_text("train: {seed: 1}\ntracking: {experiment: tests}\n")


def test_independent_stages_run_side_by_side_and_in_order(workspace):
    # left and right each wait until the other has begun: one at a time, neither could end.
    wait = "touch {0}; for i in $(seq 200); do test -e {1} && break; sleep 0.1; done; test -e {1} && echo {0} > {0}.out"
    left, right = wait.format("left", "right"), wait.format("right", "left")
    write_stages(
        workspace,
        f"""
stages:
  left: {{cmd: '{left}', params: [train.seed], outs: [left.out]}}
  right: {{cmd: '{right}', params: [train.seed], outs: [right.out]}}
  both: {{cmd: cat left.out right.out > both.out, deps: [left.out, right.out], outs: [both.out]}}
  other: {{cmd: echo > other.out, params: [train.seed], outs: [other.out]}}
""",
    )
    workspace.run("deepsky", "repro", "--jobs", "2", "both")
    assert (workspace.root / "both.out").read_text() == "left\nright\n"
    assert "up to date" in workspace.run("deepsky", "repro", "--jobs", "2", "both").stdout
    assert not (workspace.root / "other.out").exists(), "no target"
