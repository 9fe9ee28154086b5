"""What takes seconds to import is imported only where it is needed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deepsky.experiment.experiment import read_experiment
from deepsky.experiment.plan import write_plan

ROOT = Path(__file__).resolve().parents[1]
ON_THE_SIDE = ("matplotlib", "sklearn", "PIL", "jax")
HEAVY = ("matplotlib", "sklearn", "scipy", "tensorflow", "keras", "mlflow", "optuna")
# A fresh process runs a command line, or imports a module, and says what it holds then.
VERB = "import sys; from deepsky.cli import cli; sys.argv[0] = 'deepsky'; cli(standalone_mode=False)"
SAY = "import atexit, sys; atexit.register(lambda: print('holds', *(name for name in {!r} if name in sys.modules)))"


def held(code: str, *arguments: str, of: tuple[str, ...] = HEAVY, **environment: str) -> tuple[str, str]:
    """Return which of some packages a fresh process imported, and what it said went wrong."""
    command = [sys.executable, "-c", f"{SAY.format(of)}; {code}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})
    assert "holds" in done.stdout, done.stderr
    return done.stdout.splitlines()[-1].removeprefix("holds").strip(), done.stderr


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    write_plan(read_experiment(ROOT / "params.yaml"), tmp_path / "plan.yaml")
    (tmp_path / "objects.csv").write_text("id,class,ra,dec\n1,STAR,1,1\n2,QSO,2,2\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


COLUMNS = ("--id-column", "id", "--label-column", "class")
PATHS = ("--packed", "p", "--split", "s", "--features", "f", "--weights", "w", "--out", "o")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("add", "images", "mine", "nowhere", "objects.csv", *COLUMNS), "nowhere"),
        (("add", "images", "mine", ".", "objects.csv", *COLUMNS), "holds no pictures"),
        (("add", "frames", "mine", "nowhere", "missing.csv"), "missing.csv"),
        (("add", "frames", "mine", "nowhere", "objects.csv"), "nowhere"),
        (("add", "collection", "mine", "unheard_of"), "unheard_of"),
        (("add", "collection", "mine", "galaxy_zoo_challenge", "nowhere"), "nowhere"),
        (("drop", "unheard_of"), "unheard_of"),
        (("show", "unheard_of"), "unheard_of"),
        (("pack", "unheard_of", "--out", "o"), "unheard_of"),
        (("split", "unheard_of", "--packed", "p", "--out", "o"), "unheard_of"),
        (("train", "unheard_of", *PATHS), "unheard_of"),
    ],
)
def test_a_mistake_is_told_before_anything_heavy_is_imported(project, arguments, problem):
    heavy, error = held(VERB, *arguments)
    assert problem in error.splitlines()[-1]
    assert heavy == ""


@pytest.mark.parametrize("stage", ["plan", "simulate", "render", "pack", "split"])
def test_a_stage_without_networks_imports_none_of_their_libraries(stage):
    assert held(f"import deepsky.stages.{stage}") == ("", "")


def test_keras_brings_nothing_that_nobody_asked_for_and_hides_nothing(tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    own, by_file = {"KERAS_BACKEND": "tensorflow"}, {"KERAS_HOME": str(tmp_path)}
    assert held("import deepsky.training.fit", of=ON_THE_SIDE, **own)[0] == ""
    code = "import deepsky, keras, sklearn.metrics, jax, PIL.Image, matplotlib; keras.layers.Dense(1)"
    assert held(code, of=ON_THE_SIDE, **own)[0] == " ".join(ON_THE_SIDE)
    assert held("import deepsky.training.fit", of=ON_THE_SIDE, **{"KERAS_BACKEND": "jax"})[0] == "jax"
    read = "import os; os.environ.pop('KERAS_BACKEND', None); import deepsky.training.fit, keras; "
    assert held(read + "assert keras.backend.backend() == 'jax'", of=ON_THE_SIDE, **by_file)[0] == "jax"
