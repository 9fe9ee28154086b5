"""Searches as processes: killed, stopped, together on one study, in PostgreSQL; and bad input as one line each."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import pytest
from mlflow.tracking import MlflowClient
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from deepsky.cli import main
from deepsky.commands import tune
from deepsky.tuning.study import is_done, load_study
from tests.postgresql import ENCODED, PASSWORD, closed_port
from tests.tuning_project import DATASET, ROOT, RUN, make_project, write_params

STUDY = RUN
TRIALS = 12
STOPPED = "stopped; nothing half-written was left behind"
ENV = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("MLFLOW_", "DEEPSKY_", "KERAS_", "SLURM_"))
} | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def new_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes a project on which a search takes seconds."""
    return lambda: make_project(tmp_path_factory.mktemp("search") / "project", n_rows=60, trials=TRIALS)


def begin(root: Path, *options: str) -> "subprocess.Popen[str]":
    """Start a search; its errors stand between its lines, as in a terminal."""
    command = [sys.executable, "-m", "deepsky", "tune", "run", *options]
    return subprocess.Popen(command, cwd=root, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts searches; none outlives the test."""
    begun: list[subprocess.Popen[str]] = []

    def start(root: Path, *options: str) -> "subprocess.Popen[str]":
        begun.append(begin(root, *options))
        return begun[-1]

    yield start
    for process in begun:
        if process.returncode is None:
            process.kill()
            process.communicate()


def wait_for_line(process: "subprocess.Popen[str]", pattern: str) -> None:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.match(pattern, line):
            return
    raise AssertionError(f"no line {pattern!r} in\n{''.join(lines)}")


def wait_until(process: "subprocess.Popen[str]", true: Callable[[], bool]) -> None:
    while not true():
        assert process.poll() is None, "it ended before that"
        time.sleep(0.05)


def last_lines(process: "subprocess.Popen[str]") -> list[str]:
    """Wait for the end."""
    said, _ = process.communicate()
    return [line for line in said.splitlines() if line]


@pytest.fixture(scope="module")
def study_of() -> Iterator[Callable[[str | Path], Study]]:
    """Opens the study in a database, or in that of a project."""
    opened: dict[str | Path, Study] = {}

    def study(place: str | Path) -> Study:
        if place not in opened:
            opened[place] = load_study(STUDY, place if isinstance(place, str) else f"sqlite:///{place / 'tuning.db'}")
        return opened[place]

    yield study
    for one in opened.values():
        one._storage._backend.engine.dispose()


def trials_of(study: Study) -> list[FrozenTrial]:
    """All trials as they are now."""
    study._storage.refresh()
    return study.get_trials(deepcopy=False)


def running(study: Study) -> set[int]:
    return {trial.number for trial in trials_of(study) if trial.state == TrialState.RUNNING}


def done(study: Study) -> list[FrozenTrial]:
    return [trial for trial in trials_of(study) if is_done(trial)]


def outline(study: Study) -> list[tuple[Any, ...]]:
    return [(trial.number, trial.params, trial.state, trial.values) for trial in trials_of(study)]


def logged(root: Path) -> tuple[list[int], str]:
    """Numbers of the trials that MLflow has, and the state of their parent."""
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("deepsky-tuning")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    numbers = [int(run.data.tags["deepsky.trial"]) for run in runs if run is not parent]
    return sorted(numbers), str(parent.info.status)


def test_one_seed_gives_one_search_even_if_it_is_stopped(new_project, start, study_of) -> None:
    once, root = new_project(), new_project()
    whole, stopped = start(once), start(root)
    wait_for_line(stopped, f"4/{TRIALS} done")
    study = study_of(root)
    wait_until(stopped, lambda: bool(running(study)))
    stopped.send_signal(signal.SIGINT)
    lines = last_lines(stopped)
    assert re.fullmatch(rf"\d+/{TRIALS} done; the same command goes on from there", lines[-2]), "\n".join(lines)
    assert lines[-1] == STOPPED
    assert stopped.returncode == 130
    assert not running(study)

    lines = last_lines(whole)
    assert whole.returncode == 0, "\n".join(lines)
    assert lines[-1].startswith(f"{TRIALS}/{TRIALS} done, best f1_macro ")
    undisturbed = outline(study_of(once))
    assert len(undisturbed) == TRIALS
    assert outline(study)[:4] == undisturbed[:4]

    resumed = start(root)
    assert last_lines(resumed)[-1].startswith(f"{TRIALS}/{TRIALS} done")
    assert resumed.returncode == 0
    assert outline(study) == undisturbed
    assert logged(root) == (list(range(TRIALS)), "FINISHED")


def test_a_worker_killed_between_two_loses_nothing(new_project, start, study_of, monkeypatch) -> None:
    monkeypatch.delitem(ENV, "JAX_COMPILATION_CACHE_DIR")  # compiling leaves time to kill it
    root, total = new_project(), 32
    victim, survivor = (start(root, "--trials", str(total)) for _ in range(2))
    wait_for_line(victim, r"\d+/\d+ done")
    study = study_of(root)
    wait_until(victim, lambda: len(running(study)) > 4)  # more than the survivor's
    victim.kill()
    victim.communicate()
    before = {trial.number: (trial.params, trial.values) for trial in done(study)}
    lines = last_lines(survivor)
    assert survivor.returncode == 0, "\n".join(lines)
    finished = {trial.number: (trial.params, trial.values) for trial in done(study)}
    assert len(finished) == total
    assert before.items() <= finished.items()
    assert not running(study)
    lost = {trial.number for trial in trials_of(study) if trial.state == TrialState.FAIL} - set(finished)
    assert lost
    again = {trial.system_attrs.get("failed_trial"): trial for trial in done(study)}
    for trial in trials_of(study):
        if trial.number in lost and trial.params:
            assert again[trial.number].params == trial.params
    assert lost <= set(again)
    assert logged(root) == (sorted(finished), "FINISHED")


# ---- PostgreSQL ----


def test_two_workers_on_postgresql_end_together(new_project, start, study_of, postgres) -> None:
    root, lines = new_project(), list[str]()
    for worker in [start(root, "--storage", postgres, "--trials", "20") for _ in range(2)]:
        lines += last_lines(worker)
        assert worker.returncode == 0, "\n".join(lines)
    assert PASSWORD not in "".join(lines)
    assert ENCODED not in "".join(lines)
    trials = trials_of(study_of(postgres))
    assert len({str(trial.params) for trial in done(study_of(postgres))}) == 20
    assert all(is_done(trial) or trial.state == TrialState.WAITING for trial in trials)
    assert logged(root) == (sorted(trial.number for trial in trials if is_done(trial)), "FINISHED")


# ---- bad input ----


@pytest.fixture(scope="module")
def searched(new_project) -> Path:
    """A project with a search of four trials; tests leave it as it is."""
    root: Path = new_project()
    environment = mock.patch.dict(os.environ, KERAS_BACKEND=keras.backend.backend())
    with chdir(root), environment, mock.patch("deepsky.tuning.search.draw_study"):
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        tune.run(trials=4)
    return root


def refused(root: Path, *options: str) -> str:
    """Run a search by the command line in this process, which has keras at hand, and return its one line."""
    before, arguments = Path.cwd(), sys.argv
    os.chdir(root)
    sys.argv = ["deepsky", "tune", "run", *options]
    try:
        with pytest.raises(SystemExit) as caught:
            main()
    finally:
        os.chdir(before)
        sys.argv = arguments
    message = caught.value.code
    assert isinstance(message, str)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message.removeprefix("error: ")


@pytest.fixture
def params(searched, study_of) -> Iterator[Path]:
    """The searched project, whose params.yaml a test may write."""
    before = (searched / "params.yaml").read_text()
    yield searched
    (searched / "params.yaml").write_text(before)
    assert len(done(study_of(searched))) == len(trials_of(study_of(searched))) == 4


def words_of(root: Path) -> list[str | Path]:
    return ["make", "-f", ROOT / "Makefile", "-C", root, "--no-print-directory", "-o", ".venv/.ready"]


def test_make_tune_hands_its_variables_on(searched) -> None:
    ended = subprocess.run([*words_of(searched), "tune", "TRIALS=0"], env=ENV, capture_output=True, text=True)
    assert ended.returncode != 0
    assert "error: --trials 0: is below 1; give the number of trials in total" in ended.stderr.splitlines()
    common = ["TRIALS=5", "STUDY=s", "STORAGE=sqlite:///x.db"]
    for chosen, words in ((["DATASET=a", "NETWORK=b"], "a b"), (["RUN=mine"], "--run mine")):
        made = [*words_of(searched), "-n", "tune-workers", "N=3", *chosen, *common]
        shown = subprocess.run(made, env=ENV, capture_output=True, text=True, check=True).stdout
        assert (
            " ".join(shown.split())
            == f"deepsky tune run {words} --trials 5 --study s --storage sqlite:///x.db --workers 3"
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trials", "0"], "--trials 0: is below 1; give the number of trials in total"),
        (["--trials", "-3"], "--trials -3: is below 1"),
        (["--workers", "0"], "--workers 0: is out of range; give 1 to 64"),
        (["galaxies"], "galaxies: needs a dataset and a network; give DATASET NETWORK, or --run RUN"),
        (["galaxies", "alexnet"], "run galaxies-alexnet: is not in params.yaml; choose one of: blobs-mobilenet"),
        (["--run", "mine"], "run mine: is not in params.yaml; choose one of: blobs-mobilenet"),
        (
            ["blobs", "resnet50"],
            "data/features/blobs/resnet50/32px: holds no features; enter blobs-resnet50 in params.yaml, below",
        ),
        (["--study", "a b"], "study 'a b': is no name of a study; use letters"),
    ],
)
def test_bad_arguments(params, options, message) -> None:
    assert refused(params, *options).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": "annealing"}, "'annealing' .*tpe, random, cmaes, grid"),
        ({"pruner": "scissors"}, "'scissors' .*hyperband, median, none"),
        ({"objectives": ["test_accuracy"]}, "'test_accuracy'"),
        (
            {"heads__dropout": {"low": 0.5, "high": 0.1}},
            "tune.heads.dropout.* low 0.5 lies above high 0.1: the range is empty",
        ),
        ({"heads__optimizer": []}, "tune.heads.* optimizer holds no choice"),
        (
            {"sampler": "grid"},
            "tune.heads.label_smoothing: is a range, of which sampler grid cannot try all; write it as a list",
        ),
        ({"heads__units": [8]}, rf"study {STUDY}: began with units \[8, 16\], now it is \[8\]; restore that"),
        ({"epochs": 9}, f"study {STUDY}: began with epochs 3, now it is 9; restore that in params.yaml, or give --s"),
    ],
)
def test_bad_params(params, change, message) -> None:
    write_params(params, trials=TRIALS, **change)
    assert re.search(message, refused(params))


def test_another_machines_split_is_refused(params) -> None:
    lock = params / "dvc.lock"
    before = lock.read_text()
    path = params / "data" / "splits" / f"{DATASET}.csv"
    split = path.read_text()
    try:
        path.write_text(split.replace("test", "train", 1))
        lock.write_text(before.replace(md5(split), md5(path.read_text())))
        message = refused(params)
        assert message.startswith(f"study {STUDY}: began with data/splits/{DATASET}.csv ")
        assert message.endswith("run dvc pull or dvc repro to get its data, or give --study another name")
    finally:
        lock.write_text(before)
        path.write_text(split)


def test_databases_that_cannot_be_used(params, tmp_path) -> None:
    whole = (params / "tuning.db").read_bytes()
    (tmp_path / "half.db").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.db").write_text("no database\n" * 1000)
    for name in ("half.db", "text.db"):
        message = refused(params, "--storage", f"sqlite:///{tmp_path / name}")
        assert f"{name}: the studies cannot be read or written (" in message
        assert "check that it is reachable, whole and writable" in message


def test_a_server_that_is_not_there(params, capsys, caplog) -> None:
    began = time.monotonic()
    message = refused(params, "--storage", f"postgresql://deepsky:hidden@127.0.0.1:{closed_port()}/postgres")
    # Not a measurement: with the retries of a database library it would be minutes.
    assert time.monotonic() - began < 60
    assert message.startswith("postgresql://deepsky:***@127.0.0.1:")
    assert "Connection refused" in message
    said = capsys.readouterr()
    assert said.out == ""
    assert "hidden" not in message + said.err + caplog.text
    assert "Traceback" not in said.err + caplog.text


def md5(text: str) -> str:
    import hashlib

    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
