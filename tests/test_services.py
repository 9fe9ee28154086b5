"""Services that many people share, real ones on loopback: MLflow on PostgreSQL with an artifact store, DVC remotes."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import boto3
import cv2
import mlflow
import numpy as np
import pandas as pd
import psycopg
import pytest
import requests
from moto.server import ThreadedMotoServer

from deepsky.commands import promote
from deepsky.commands.stored import find_stored
from deepsky.errors import ConfigError
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.recorded import recorded_runs
from deepsky.tracking.runs import find_run, training_run
from deepsky.tracking.trained_files import run_key
from tests.postgresql import PASSWORD, closed_port
from tests.test_train import NET, run_train, write_sky
from tests.trained_folders import make_project, write_trained

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def mlflow_server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """URL of an MLflow server on PostgreSQL, and the folder of its artifact store."""
    folder, port = tmp_path_factory.mktemp("server"), closed_port()
    with psycopg.connect(postgres, autocommit=True) as database:
        database.execute("CREATE DATABASE mlflow")  # Optuna keeps its tables' version under the same name as MLflow
    store = _database_of(postgres)
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": store, "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = folder / "log.txt"
    with log.open("w") as lines:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=lines, stderr=lines)
    url = f"http://127.0.0.1:{port}"
    try:
        while not _is_up(f"{url}/health"):
            assert server.poll() is None, log.read_text()
        yield url, folder / "artifacts"
    finally:
        server.terminate()
        server.wait()


def _database_of(postgres: str) -> str:
    return postgres.replace("postgresql://", "postgresql+psycopg://").replace("/postgres", "/mlflow")


def _is_up(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def test_runs_and_networks_go_to_a_server_on_postgresql(
    mlflow_server: tuple[str, Path], postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, artifacts = mlflow_server
    make_project(tmp_path, monkeypatch)
    (tmp_path / "params.yaml").write_text("tracking: {experiment: shared}\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    trained = tmp_path / "models/trained/sky/net"
    write_trained(trained, run="sky-net")
    with training_run(
        tracking=TrackingParams(experiment="shared"), name="sky-net", dataset="sky", network="net", params={"seed": 1},
        tags={},
    ) as run:  # fmt: skip
        run.log_epochs([(1, {"accuracy": 0.5}), (2, {"accuracy": 0.75})])
        run.log_artifact(trained)
        run.finish_outputs(trained)
    found = find_run("shared", run_key(trained))
    assert found is not None
    assert found.run_id == run.run_id
    stored = find_stored("sky-net")
    assert (stored.status, stored.metrics["epoch/accuracy"], stored.params["seed"]) == ("FINISHED", 0.75, "1")
    assert stored.lineage()["environment"]["packages"]["mlflow"]
    assert stored.file("predictions.csv", tmp_path).read_bytes() == (trained / "predictions.csv").read_bytes()
    assert len(list(artifacts.rglob("model.h5"))) == 1
    assert PASSWORD not in str(stored)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", _database_of(postgres))  # the same store, read without its server
    assert vars(find_stored("sky-net")) == vars(stored)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.replace("postgresql://", "postgresql+psycopg://"))
    assert list(recorded_runs("shared")) == [], "MLflow never was in this database"


@pytest.fixture
def _default_store() -> Iterator[None]:
    """Undo what the registry tells MLflow for its whole process."""
    yield
    mlflow.set_tracking_uri(None)


@pytest.mark.usefixtures("_default_store")
def test_a_network_of_a_server_is_promoted_and_answers_elsewhere(
    mlflow_server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, artifacts = mlflow_server
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    make_project(project, monkeypatch)
    (project / "params.yaml").write_text("tracking: {experiment: tests}\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    run_train("net", NET, write_sky(project / "sky", "uint8"), project / "models/trained/toy")
    with pytest.raises(ConfigError, match="cannot be an alias"):
        promote.run("net", "v1")
    capsys.readouterr()
    promote.run("net", "champion")
    promote.run("net", "challenger")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "models:/toy@champion is version 1, run net (not evaluated); see MODEL_CARD.md in its files"
    assert said[2].startswith("models:/toy@challenger is version 1"), "a network is a version once"
    assert len(list(artifacts.rglob("MODEL_CARD.md"))) == 1

    shutil.rmtree(project / "models")  # the server has all that it takes
    picture = np.load(project / "sky/packed/images.npy")[1]
    cv2.imwrite(str(elsewhere / "red.png"), picture[..., ::-1])
    told = _deepsky(elsewhere, "predict", "models:/toy@champion", "red.png", "--csv", "answers.csv")
    answer = pd.read_csv(elsewhere / "answers.csv").iloc[0]
    assert answer["class"] == "RED", told
    with _served(elsewhere, "toy@challenger") as address:
        posted = requests.post(f"{address}/predict", data=(elsewhere / "red.png").read_bytes()).json()
        assert posted["class"] == "RED"
        assert posted["probabilities"]["RED"] == pytest.approx(answer["p_RED"], abs=1e-5)
        told = requests.post(f"{address}/invocations", json={"inputs": [picture.tolist()]}).json()
        assert told["predictions"][0]["RED"] == pytest.approx(answer["p_RED"], abs=1e-5)
    (file,) = elsewhere.glob("models/registered/*/model.h5")
    before = file.stat().st_mtime_ns
    _deepsky(elsewhere, "predict", "models:/toy/1", "red.png", "--csv", "again.csv")
    assert file.stat().st_mtime_ns == before, "downloaded once"


def _deepsky(folder: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "deepsky", *words], cwd=folder, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout


@contextmanager
def _served(folder: Path, name: str) -> Iterator[str]:
    """Serve a registered network by the command; gives its address."""
    port = closed_port()
    command = [sys.executable, "-m", "deepsky", "serve", name, "--port", str(port)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        line = server.stdout.readline()
        assert line.startswith(f"{name} answers on "), line + server.stderr.read()
        yield f"http://127.0.0.1:{port}"
        server.send_signal(signal.SIGINT)
        server.communicate()


class SftpServer:
    """An SSH server that serves one folder to one user with a password."""

    def __init__(self, folder: Path) -> None:
        self._loop, self._folder = asyncio.new_event_loop(), folder
        self.port, self._ready = closed_port(), threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _serve(self) -> None:
        class Server(asyncssh.SSHServer):
            def begin_auth(self, username: str) -> bool:
                return True

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == ("deepsky", "secret")

        def shell(process: "asyncssh.SSHServerProcess[str]") -> None:  # DVC asks what the other side can do
            process.exit(0)

        async def begin() -> None:
            self._server = await asyncssh.create_server(
                Server, "127.0.0.1", self.port, server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
                process_factory=shell,
                sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(self._folder).encode()),
            )  # fmt: skip
            self._ready.set()

        self._loop.run_until_complete(begin())
        self._loop.run_forever()
        self._server.close()
        self._loop.run_until_complete(self._server.wait_closed())
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@pytest.fixture
def folder_remote(tmp_path: Path) -> dict[str, str]:
    return {"url": str(tmp_path / "shared disk")}


@pytest.fixture
def ssh_remote(tmp_path: Path) -> Iterator[dict[str, str]]:
    served = tmp_path / "served"
    served.mkdir()
    server = SftpServer(served)
    yield {"url": f"ssh://deepsky@127.0.0.1:{server.port}/deepsky", "password": "secret"}
    server.stop()


@pytest.fixture
def s3_remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="sky")
    client.close()
    yield {"url": "s3://sky/deepsky", "endpointurl": endpoint}
    server.stop()


@pytest.mark.parametrize("kind", ["folder", "ssh", "s3"])
def test_data_and_networks_come_back_from_a_remote(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    remote = request.getfixturevalue(f"{kind}_remote")
    project, data = tmp_path / "project", tmp_path / "project/models"
    data.mkdir(parents=True)
    (data / "model.h5").write_bytes(b"network" * 1000)
    (data / "run.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    (project / ".dvc").mkdir()
    lines = ["[core]", "analytics = false", "no_scm = true", "remote = store", "['remote \"store\"']"]
    (project / ".dvc/config").write_text("\n".join([*lines, *(f"{key} = {value}" for key, value in remote.items())]))
    for words in (["add", "models"], ["push"]):
        _dvc(project, *words)
    shutil.rmtree(data)
    shutil.rmtree(project / ".dvc/cache")
    _dvc(project, "pull")
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before


def _dvc(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words, "--quiet"], cwd=folder, capture_output=True, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert not done.returncode, done.stdout + done.stderr
