"""From a run back to the bytes it came from, without training anything: a small project with DVC's cache and lock."""

import hashlib
import json
import math
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy
from mlflow.tracking import MlflowClient

from deepsky.commands import diff, lineage, runs
from deepsky.commands.compared import compare
from deepsky.commands.stored import find_stored
from deepsky.errors import ConfigError, DataError, DeepSkyError, TrackingError, UnreachableError
from deepsky.tracking import tables
from deepsky.tracking.cached import Cache
from deepsky.tracking.environment import environment
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.recorded import RecordedRun, _of_client, newest_run, recorded_runs, run_by_id
from deepsky.tracking.revision import current_revision
from deepsky.tracking.runs import restored_run, training_run
from deepsky.tracking.secrets import masked
from deepsky.tracking.store import engine_of, is_database, readable_database, tracking_uri
from tests.lineage_project import FRAMES, SPLIT, STAGE, URL, Project
from tests.trained_folders import make_project, write_trained


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = Project(make_project(tmp_path, monkeypatch))
    made.run_stages()
    return made


def told(capsys: pytest.CaptureFixture[str], *arguments: Any, **options: Any) -> Any:
    capsys.readouterr()
    lineage.run(*arguments, None, as_json=True, **options)
    return json.loads(capsys.readouterr().out)


def test_a_run_leads_back_to_its_raw_files_and_their_objects(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = project.train(monkeypatch)
    found = told(capsys, run_id)
    assert found["code"] == {"commit": project.git("rev-parse", "HEAD").strip(), "why": "", "is_dirty": False}
    assert found["run"]["name"] == "sky_cutouts-net"
    assert found["stage"] == STAGE
    assert found["settings"] == {"seed": 1, "code": "7a1"}
    assert found["params"]["seed"] == "1"
    assert set(found["made_by"]) == {"fetch", "render@sky", "split_frames@sky-cutouts", "weights"}
    assert found["made_by"]["split_frames@sky-cutouts"]["settings"] == {"seed": 7, "code": "5b17"}
    assert found["environment"]["packages"]["mlflow"]
    (raw,) = found["raw"]
    assert (raw["path"], raw["problem"]) == ("data/raw/frames", "")
    for one, (name, content) in zip(raw["files"], FRAMES.items(), strict=True):
        assert one == {
            "path": f"data/raw/frames/{name}", "digest": hashlib.sha256(content).hexdigest(), "bytes": len(content),
            "url": URL + name, "objects": [["1", "train"], ["2", "test"]],
        }  # fmt: skip
    lineage.run(run_id, None, as_json=False)
    text = capsys.readouterr().out
    assert "render@sky (code c0de): data/packed/sky_cutouts" in text
    assert f"{URL}2874/1/frame-g-002874-1-0330.fits.bz2: objects 1 train, 1 test" in text


def test_a_run_keeps_its_own_hashes_when_everything_has_changed_since(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = project.train(monkeypatch)
    first = told(capsys, before)
    (project.root / "params.yaml").write_text("tracking: {experiment: sky}\ntrain: {epochs: 3}\n")
    project.run_stages(
        frames={name: content + b"!" for name, content in FRAMES.items()}, split=SPLIT.replace("2,test", "2,val")
    )
    after = project.train(monkeypatch, epochs=3)
    assert told(capsys, before) == first
    second = told(capsys, after)
    assert second["code"]["is_dirty"]
    assert "+train: {epochs: 3}" in find_stored(after).patch()
    assert second["raw"][0]["files"][0]["objects"] == [["1", "train"], ["2", "val"]]

    diff.run([before, after], as_json=True)
    found = json.loads(capsys.readouterr().out)
    commit = first["code"]["commit"][:10]
    assert found["settings"] == {"epochs": [None, "3"]}
    assert set(found["data"]) == {"data/splits/sky_cutouts.csv"}  # the packed rows are the same
    assert found["code"] == {"commit": [commit, f"{commit} + patch"]}
    assert found["machine"] == found["stages"] == {}
    assert found["metrics"]["test_accuracy"] == pytest.approx([0.5, 0.8])
    diff.run([before, after], as_json=False)
    assert "change" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="1 run has nothing to differ from"):
        diff.run([before], as_json=False)


def test_what_is_gone_is_said(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = project.train(monkeypatch)
    subprocess.run(["rm", "-rf", ".dvc/cache"], check=True)
    (raw,) = told(capsys, run_id)["raw"]
    assert raw["files"] == []
    assert "neither here nor in DVC's cache; run dvc fetch --all-commits" in raw["problem"]
    with pytest.raises(DataError, match="no run of this MLflow store"):
        find_stored("0" * 32)
    with training_run(
        tracking=TrackingParams(experiment="sky"), name="x", dataset="d", network="n", params={}, tags={}
    ) as run:
        pass
    found = find_stored("x")
    assert found.run_id == run.run_id
    assert found.lineage()["made_by"] == {}


def test_diff_says_where_an_interval_is_unreliable(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    ids = []
    for n_groups in (4, 40):
        with training_run(
            tracking=TrackingParams(experiment="sky"), name="x", dataset="d", network="n", params={}, tags={}
        ) as run:
            run.log_metrics({"test_f1": 0.5, "test_f1_low": 0.4, "test_f1_high": 0.6, "n_test_groups": n_groups})
        ids.append(run.run_id)
    diff.run(ids, as_json=False)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("test_f1 ")]
    assert line.split(maxsplit=1)[1].split(")") == [
        "0.5 (0.4 to 0.6, unreliable, from 4 groups",
        "  0.5 (0.4 to 0.6",
        "     +0",
    ]


def test_of_a_machine_that_was_not_recorded_only_that_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id, folder = project.train(monkeypatch), project.root / "models/trained/sky_cutouts/net"
    write_trained(folder, run="sky_cutouts-net")
    facts = json.loads((folder / "run.json").read_text())
    restored = restored_run(experiment="sky", trained=folder, facts=facts, history=[])
    diff.run([run_id, restored.run_id], as_json=True)
    assert json.loads(capsys.readouterr().out)["machine"] == {"recorded": ["yes", "no"]}


def test_what_is_no_run_is_said_in_a_line(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.root / "src").mkdir()
    (project.root / "notes.txt").write_text("x")
    run_id = project.train(monkeypatch)
    for name, said in {
        "": "^'': names nothing, and no finished run of the store; give the path of a model.h5, or a run; ",
        " ": "^' ': names nothing",
        "nothing": "^nothing: is neither a file nor a trained run, and no finished run of the store; give",
        "my run": "^my run: is neither a file nor a trained run, and no finished run",
        "sky_cutouts-net'": "^sky_cutouts-net': is neither",
        "src": "^src: is a folder without model.h5, and no trained run, and no finished run of the store; give",
        "notes.txt": "^notes.txt: is not what stage train wrote: run.json is not there; give a run that deepsky",
        "0" * 32: "^0{32}: is no run of this MLflow store",
        "models:/sky@champion": "^models:/sky@champion: is no registered network of this MLflow store; run",
        "models:/": "^models:/@champion: is no registered network",
    }.items():
        with pytest.raises(DeepSkyError, match=said):
            find_stored(name)
    MlflowClient(tracking_uri()).delete_run(run_id)
    with pytest.raises(DeepSkyError, match=f"^run {run_id}: was deleted; run mlflow runs restore --run-id {run_id}"):
        find_stored(run_id)


def test_runs_are_found_by_the_network_that_stands_there(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project.root / "models/trained/sky_cutouts/net"
    write_trained(folder, run="sky_cutouts-net")
    with pytest.raises(DataError, match="has no run in this MLflow store; run deepsky runs --check"):
        find_stored("sky_cutouts-net")
    with training_run(
        tracking=TrackingParams(experiment="sky"), name="sky_cutouts-net", dataset="sky_cutouts", network="net",
        params={}, tags={},
    ) as run:  # fmt: skip
        run.finish_outputs(folder)
    project.train(monkeypatch)  # a newer one, of other files
    for name in (str(folder), "sky_cutouts-net", "net", "sky_cutouts/net", run.run_id):
        assert find_stored(name).run_id == run.run_id


def test_what_the_tables_hold_is_what_the_client_says(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What guards `tables` against a change of MLflow's."""
    folder = project.root / "models/trained/sky_cutouts/net"
    write_trained(folder, run="sky_cutouts-net")
    ids = [project.train(monkeypatch, epochs=epochs) for epochs in (1, 2, 3)]
    with training_run(
        tracking=TrackingParams(experiment="sky"), name="sky_cutouts-net", dataset="sky_cutouts", network="net",
        params={"text": "it's 100 %"}, tags={},
    ) as run:  # fmt: skip
        run.log_epochs([(1, {"loss": math.nan}), (2, {"loss": math.inf, "a": -math.inf})])
        run.log_trained(folder, json.loads((folder / "run.json").read_text()))
        run.finish_outputs(folder)
    client = MlflowClient(tracking_uri())
    client.delete_run(ids[1])
    made = client.create_run(client.get_run(ids[0]).info.experiment_id, run_name="no tags")
    for run_id in (ids[0], ids[2], run.run_id, made.info.run_id):
        assert repr(vars(run_by_id(run_id))) == repr(vars(_of_client(client.get_run(run_id))))
    assert run_by_id("0" * 32) is None
    assert [one.run_id for one in recorded_runs("sky")] == [made.info.run_id, run.run_id, ids[2], ids[0]]
    assert newest_run("sky", "run", "sky_cutouts-net").run_id == run.run_id
    assert newest_run("nothing", "run", "x") is None
    client.set_tag(ids[2], "mlflow.deepsky.run", "it's")
    assert newest_run("sky", "run", "it's") is None, "as from a server, which cannot search for it"
    monkeypatch.setattr(tables, "_RUNS_PER_STATEMENT", 3)
    of_client = client.search_runs([made.info.experiment_id], order_by=["attributes.start_time DESC"])
    assert [_told(one) for one in recorded_runs("sky")] == [_told(_of_client(one)) for one in of_client]
    client.delete_experiment(made.info.experiment_id)
    with pytest.raises(TrackingError, match="experiment 'sky' is deleted; run mlflow experiments restore"):
        newest_run("sky", "run", "sky_cutouts-net")


def _told(one: RecordedRun) -> str:
    return repr({name: sorted(v.items()) if isinstance(v, dict) else v for name, v in vars(one).items()})


def test_many_runs_are_read_by_as_many_statements_as_few(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for experiment, n_runs in {"few": 1, "many": 4}.items():
        for _ in range(n_runs):
            project.train(monkeypatch, experiment=experiment)
    said: dict[str, list[str]] = {"few": [], "many": []}
    for experiment, statements in said.items():

        def note(*of_event: Any, statements: list[str] = statements) -> None:
            statements.append(of_event[2])

        sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
        found = list(recorded_runs(experiment))
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)
        assert all(one.params and one.metrics for one in found)
    assert 0 < len(said["few"]) == len(said["many"])


def test_a_database_where_mlflow_never_was_has_no_runs_and_one_with_other_tables_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(project.root / "other.db")) as other, other:
        other.execute("CREATE TABLE stars (name)")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
        assert list(recorded_runs("sky")) == []
        assert run_by_id("0" * 32) is None
        other.execute("CREATE TABLE experiments (experiment_id, name)")
        for ask, lacks in ((lambda: list(recorded_runs("sky")), "column"), (lambda: run_by_id("0" * 32), "table")):
            with pytest.raises(TrackingError, match=f"the MLflow store cannot be used .*no such {lacks}") as caught:
                ask()
            assert not isinstance(caught.value, UnreachableError)


def test_a_reader_waits_for_a_writer_as_long_as_mlflow_does(project: Project) -> None:
    with engine_of(tracking_uri()).connect() as database:
        assert database.exec_driver_sql("PRAGMA busy_timeout").scalar() == 20_000


def test_of_databases_whose_way_in_is_mlflows_business_its_client_is_asked(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for uri, ours in {
        "sqlite:///x.db": True, "postgresql+psycopg://h/x": True, "mysql+pymysql://h/x": False,
        "mssql+pyodbc://h/x": False, "http://h": False,
    }.items():  # fmt: skip
        assert is_database(uri) == ours, uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql+pymysql://h/x")
    assert readable_database() is None


def test_a_database_is_read_without_mlflow_which_takes_seconds_to_import(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = project.train(monkeypatch)
    script = f"import sys; from deepsky.commands import lineage; lineage.run({run_id!r}, None, as_json=False)"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}; print(sorted({{'mlflow', 'pandas', 'astropy'}} & set(sys.modules)))"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_the_cache_is_where_dvc_has_it(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC's own answer is the measure: system, global, the project's and its local configuration, the last one."""
    (project.root / ".dvc/config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    for name in ("SYSTEM", "GLOBAL"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"DVC_{name}_CONFIG_DIR", str(tmp_path / name))
    assert Cache(project.root).folder == Path(_dvc("cache", "dir"))
    lines = {
        tmp_path / "SYSTEM/config": "../of all",
        tmp_path / "GLOBAL/config": "~/50 % of mine",
        project.root / ".dvc/config": '"../shared, with a comma"  # and a comment',
        project.root / ".dvc/config.local": str(tmp_path / "local"),
    }
    found = set()
    for path, line in lines.items():
        with path.open("a") as file:
            file.write(f"[cache]\n    dir = {line}\n")
        found.add(Cache(project.root).folder)
        assert Cache(project.root).folder == Path(_dvc("cache", "dir")).resolve()
    assert len(found) == len(lines)
    (project.root / ".dvc/config.local").write_text(f"[CACHE]\n    Dir = {tmp_path / 'upper'}\n")
    assert Cache(project.root).folder == Path(_dvc("cache", "dir")) == tmp_path / "upper"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[cache\n", "is no configuration of DVC"),
        (b"[cache]\n    dir = \xe4\n", "is no configuration of DVC"),
        (b"[cache]\n    dir = /a, /b\n", "says cache.dir = .*which is no folder; run dvc config cache.dir FOLDER"),
        (b"cache = 3\n", "says cache.dir = '3', which is no folder"),
    ],
)
def test_a_broken_configuration_of_dvc_is_one_line(project: Project, content: bytes, words: str) -> None:
    (project.root / ".dvc/config.local").write_bytes(content)
    with pytest.raises(DataError, match=rf"config\.local: {words}"):
        Cache(project.root)


def _dvc(*words: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "dvc", *words], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_check_names_a_folder_that_lacks_a_file_and_goes_on(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("a", "b", "c"):
        write_trained(project.root / "models/trained/sky" / label)
    (project.root / "models/trained/sky/a/run.json").unlink()
    (project.root / "models/trained/sky/b/predictions.csv").unlink()
    with pytest.raises(DeepSkyError, match="2 cannot be mended"):
        runs.check()
    said = capsys.readouterr().out
    for name in ("a/run.json", "b/predictions.csv"):
        assert f"models/trained/sky/{name}: cannot be read (No such file or directory); run dvc checkout" in said
    assert "1 networks without a run: given one" in said
    assert find_stored("sky-c").status == "FINISHED"


def trained_network(folder: Path, skill: float, n_objects: int = 400) -> Path:
    """Write what stage train does, of classes whose names are numbers."""
    write_trained(folder, run="digits-net", classes=("0", "1", "NA"), skill=skill, n_objects=n_objects)
    table = pd.read_csv(folder / "predictions.csv", dtype={"id": str, "label": str}, keep_default_na=False)
    answers = table[["p_0", "p_1", "p_NA"]].to_numpy()
    table.insert(3, "predicted", np.array(["0", "1", "NA"])[answers.argmax(axis=1)])
    table.to_csv(folder / "predictions.csv", index=False)
    return folder


def test_another_network_is_compared_object_by_object(project: Project, tmp_path: Path) -> None:
    first = trained_network(project.root / "models/trained/digits/net", 2.0)
    with training_run(
        tracking=TrackingParams(experiment="sky"), name="digits-net", dataset="digits", network="net", params={},
        tags={},
    ) as run:  # fmt: skip
        run.log_artifact(first / "predictions.csv")
        run.finish_outputs(first)
    stored = find_stored("digits-net")
    here = {"environment": environment()}
    packages = {**environment()["packages"], "keras": "2.0"}
    elsewhere = {"environment": {**environment(), "processor": "another", "packages": packages}}
    assert compare(stored, here, first, tmp_path).word == "same"
    near = trained_network(tmp_path / "near/digits/net", 2.01)
    assert compare(stored, here, near, tmp_path).word == "different"
    found = compare(stored, elsewhere, near, tmp_path)
    assert found.word == "equal", found.lines
    assert any(line.startswith("processor: another then, ") for line in found.lines)
    assert any(line.startswith("keras 2.0 then, ") for line in found.lines)
    assert any(re.match(r"test accuracy 0\.\d+ then, 0\.\d+ now: gain ", line) for line in found.lines)
    on_card = {**environment(), "devices": ["gpu:0"], "deterministic": False}
    found = compare(stored, {"environment": on_card}, near, tmp_path)
    assert (found.word, [line for line in found.lines if "deterministic: true" in line] != []) == ("equal", True)
    asked = {"environment": {**on_card, "deterministic": True}}
    assert compare(stored, asked, near, tmp_path).word == "different"
    far = trained_network(tmp_path / "far/digits/net", 0.1)
    assert compare(stored, elsewhere, far, tmp_path).word == "different"
    other = trained_network(tmp_path / "other/digits/net", 2.0, n_objects=404)
    assert "other objects or classes" in "".join(compare(stored, elsewhere, other, tmp_path).lines)


def test_code_without_a_commit_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "not a git repository" in current_revision(tmp_path).why
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    assert current_revision(tmp_path).why == "nothing was committed yet"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert current_revision(tmp_path).why == "there is no git on this machine"


def test_a_patch_makes_the_code_that_ran_but_shows_no_password(project: Project, tmp_path: Path) -> None:
    (project.root / "params.yaml").write_text("# postgresql://me:hunter2@db/x?sslkey=abc\ntracking: {experiment: a}\n")
    (project.root / "src").mkdir()
    (project.root / "src/new ü.py").write_text("x = 1\n")
    (project.root / ".env").write_text("SECRET=hunter2\n")
    (project.root / "latin.txt").write_bytes(b"\xe4\r\n")
    (project.root / "large.bin").write_bytes(b"\0" * 1_000_001)
    found = current_revision(project.root)
    assert "hunter2" not in found.patch
    assert "# not shown: large.bin" in found.patch
    project.git("stash", "--include-untracked", "--quiet")
    assert not current_revision(project.root).is_dirty
    subprocess.run(["git", "apply", "--unidiff-zero", "-"], cwd=project.root, input=found.patch, text=True, check=True)
    assert (project.root / "src/new ü.py").read_text() == "x = 1\n"
    assert "experiment: a" in (project.root / "params.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:s3cret@host:5000/x", "http://***@host:5000/x"),
        ("https://token@host/a", "https://***@host/a"),
        ("postgresql://me:sec/r@t@host/db?sslmode=require", "postgresql://me:***@host/db?sslmode=require"),
        ("sqlite:////home/me/a:b@c/mlflow.db", "sqlite:////home/me/a:b@c/mlflow.db"),
        ("url='http://host:5000/x' by='me@example.org'", "url='http://host:5000/x' by='me@example.org'"),
        ("postgresql+psycopg2://u:p%40w@h/db", "postgresql+psycopg2://u:***@h/db"),
        ("https://h/x?a=1&access_token=abc&b=2", "https://h/x?a=1&access_token=***&b=2"),
        ("s3://b/k?X-Amz-Signature=ff00", "s3://b/k?X-Amz-Signature=***"),
        ("http://me:p'a\"s<s>@host/x", "http://***@host/x"),
        ("--url=postgresql://me:p@'/<s>\"x@host/db", "--url=postgresql://me:***@host/db"),
        ("'mysql://me:pa'ss@host/db'", "'mysql://me:***@host/db'"),
        ('"http://host:5000/x","me@example.org"', '"http://host:5000/x","me@example.org"'),
        ('http://h:5000","a":"x@y"', 'http://h:5000","a":"x@y"'),
        ('<a href="http://host">me@x</a>', '<a href="http://host">me@x</a>'),
        ("redis://me:12/34@host", "redis://me:***@host"),
        (f"https://{'a1' * 400}@host/x", "https://***@host/x"),
        ("https://host/path?monkey=banana", "https://host/path?monkey=banana"),
        ("me@example.org and 12:30", "me@example.org and 12:30"),
    ],
)
def test_passwords_and_tokens_are_masked(text: str, shown: str) -> None:
    assert masked(f"see {text} there") == f"see {shown} there"


def test_the_stores_own_password_is_masked_whatever_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:pa'ss<wo@rd@host/db")
    assert masked("see postgresql://me:pa'ss<wo@rd@host/db there") == "see postgresql://me:***@host/db there"
