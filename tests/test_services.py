"""Services that many people share, real ones on loopback: MLflow on PostgreSQL with an artifact store, DVC remotes."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import boto3
import psycopg
import pytest
import requests
from moto.server import ThreadedMotoServer

from deepsky.commands.stored import find_stored
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import find_run, training_run
from deepsky.tracking.trained_files import run_key
from tests.postgresql import PASSWORD, closed_port
from tests.trained_folders import make_project, write_trained

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def mlflow_server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """URL of an MLflow server on PostgreSQL, and the folder of its artifact store."""
    folder, port = tmp_path_factory.mktemp("server"), closed_port()
    with psycopg.connect(postgres, autocommit=True) as database:
        database.execute("CREATE DATABASE mlflow")  # Optuna keeps its tables' version under the same name as MLflow
    store = postgres.replace("postgresql://", "postgresql+psycopg://").replace("/postgres", "/mlflow")
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


def _is_up(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def test_runs_and_networks_go_to_a_server_on_postgresql(
    mlflow_server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
