import json
import threading
import time
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pytest
import requests
import uvicorn
from mlflow.tracking import MlflowClient

from deepsky.commands import promote, serve
from deepsky.commands.models import find_model
from deepsky.commands.stored import find_stored
from deepsky.errors import ConfigError, DataError, TrackingError
from deepsky.tracking.delivery import Delivery
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.registry import only_model
from deepsky.tracking.runs import Run, find_run, run_params, training_run
from deepsky.tracking.serving import scoring_app
from deepsky.tracking.store import tracking_uri
from deepsky.tracking.trained_files import run_key
from deepsky.training.saved import load_network
from tests.postgresql import closed_port
from tests.tiny_networks import tiny_network
from tests.trained_folders import make_project, write_trained

CLASSES = ("c0", "c1", "c2")  # of the tiny network
EXAMPLE = np.random.default_rng(1).integers(0, 256, (12, 12, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _default_store():
    """Undo what registry and server tell MLflow for their whole process."""
    yield
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def network():
    return tiny_network(3)


@pytest.fixture
def project(tmp_path, monkeypatch, network):
    make_project(tmp_path, monkeypatch)
    trained = tmp_path / "models/trained/toy/net"
    write_trained(trained, classes=CLASSES)
    (trained / "model.h5").write_bytes(network)
    return tmp_path


def logged(project, label="net", **more):
    """A run as stage train logs it, and evaluate after it."""
    trained = project / "models/trained/toy" / label
    facts = json.loads((trained / "run.json").read_text())
    with training_run(
        tracking=TrackingParams(experiment="sky"), name=facts["run"], dataset="toy", network=facts["network"],
        params=run_params(facts), tags={"weights": facts["weights"]}, **more,
    ) as run:  # fmt: skip
        run.log_trained(trained, facts, EXAMPLE.tolist())
        run.finish_outputs(trained)
    return run


def test_a_run_has_one_model_that_answers_as_its_network(project, monkeypatch):
    outs = "outs: [{path: data/packed/toy, hash: md5, md5: 0123456789abcdef.dir}]"
    (project / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n  pack:\n    cmd: x\n    {outs}\n")
    monkeypatch.setenv("DVC_STAGE", "train")
    run = logged(project, inputs=[Path("data/packed/toy")], parts={"train": {"STAR": 9}, "test": {"STAR": 3}})
    find_run("sky", run_key(project / "models/trained/toy/net")).log_scores({"test_accuracy": 0.75, "kept": 3})

    client = MlflowClient(tracking_uri())
    stored = client.get_run(run.run_id)
    (output,) = stored.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert (model.name, model.source_run_id, str(model.status)) == ("toy-net", run.run_id, "READY")
    assert {(m.key, m.value, m.dataset_name, m.dataset_digest) for m in model.metrics} == {
        ("test_accuracy", 0.75, "toy-test", "0123456789abcdef.dir"), ("kept", 3, None, None),
    }  # fmt: skip
    assert stored.data.metrics["test_accuracy"] == 0.75
    weights = Path(model.artifact_location, "model.h5")
    assert weights.samefile(project / "models/trained/toy/net/model.h5")
    assert sorted(file.name for file in project.glob("mlruns/**/*.h5")) == ["model.h5"], "no second name in the store"

    mlflow.set_tracking_uri(tracking_uri())
    loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    assert np.array_equal(loaded.input_example, EXAMPLE[np.newaxis])
    images = np.stack([EXAMPLE, 255 - EXAMPLE])
    answers = loaded.predict(images)
    assert list(answers.columns) == list(CLASSES)
    own, _ = load_network(weights)
    assert np.array_equal(answers.to_numpy(), own.predict_on_batch(images))
    with pytest.raises(mlflow.MlflowException, match="does not match expected shape"):
        loaded.predict(images[:, :6])


def test_promoting_says_what_was_champion_before_and_leaves_a_card(project, capsys):
    (project / "params.yaml").write_text("tracking: {experiment: sky}\n")
    logged(project)
    first = find_run("sky", run_key(project / "models/trained/toy/net"))
    first.log_scores({"test_accuracy": 0.5, "test_accuracy_low": 0.4, "test_accuracy_high": 0.6, "n_test_groups": 4})
    promote.run("toy-net", "champion")
    said = capsys.readouterr().out
    assert "models:/toy@champion is version 1, run toy-net (test_accuracy 0.5000)" in said
    assert "nothing was champion before" in said

    write_trained(project / "models/trained/toy/other", classes=CLASSES, seed=2)
    second = logged(project, "other")
    find_run("sky", run_key(project / "models/trained/toy/other")).log_scores({"test_accuracy": 0.75})
    promote.run(second.run_id, "champion")
    said = capsys.readouterr().out
    assert "is version 2, run toy-other (test_accuracy 0.7500)" in said
    assert "before: version 1, run toy-net (test_accuracy 0.5000)" in said
    promote.run("net", "champion")
    assert "is version 1" in capsys.readouterr().out, "a network is registered once"

    client = MlflowClient(tracking_uri())
    version = client.get_model_version_by_alias("toy", "champion")
    assert (int(version.version), version.run_id) == (1, first.run_id)
    model = client.get_logged_model(version.model_id or version.source.removeprefix("models:/"))
    card = Path(model.artifact_location, "MODEL_CARD.md").read_text()
    assert card == version.description
    assert "| figure | value | 95 % interval, unreliable, from 4 groups |" in card
    assert "| accuracy | 0.5000 | 0.4000 to 0.6000 |" in card
    for words in ("c0, c1, c2", "12 x 12 px", first.run_id, "## Limits", "## Intended use", "learning_rate: 0.001"):
        assert words in card
    assert find_model("models:/toy@champion").samefile(project / "models/trained/toy/net/model.h5")
    assert find_model("models:/toy/2").samefile(project / "models/trained/toy/other/model.h5")
    assert find_stored("models:/toy/2").run_id == second.run_id
    for name in ("toy@nobody", "nobody", ".."):
        with pytest.raises(TrackingError, match=f"^models:/{name}.*: is no registered network of this MLflow store; "):
            scoring_app(name, serve.read_posted)
    with pytest.raises(TrackingError, match=r"^models:/toy@nobody: is no registered network"):
        find_model("models:/toy@nobody")


@pytest.mark.parametrize(("stage", "plan", "is_drawn"), [
    ("simulate", "{simulate: {needed: true}}", True),
    ("fetch", "{fetch: {catalogue: {survey: simulated}}}", True),
    ("fetch", "{fetch: {catalogue: {survey: sdss}}}", False),
])  # fmt: skip
def test_the_card_says_of_the_run_itself_that_its_sky_was_simulated(project, monkeypatch, stage, plan, is_drawn):
    (project / "params.yaml").write_text("tracking: {experiment: sky}\n")
    entries = {
        stage: f"{{deps: [], params: {{versions.json: {{{stage}: a}}}}, outs: [{{path: data/raw/x, md5: b}}]}}",
        "pack@toy": "{deps: [{path: data/raw/x, md5: b}], outs: [{path: data/packed/toy, md5: c.dir}]}",
    }
    lines = "".join(f"  {name}: {entry}\n" for name, entry in entries.items())
    (project / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n{lines}")
    (project / "plan.yaml").write_text(f"stages: {plan}\n")
    monkeypatch.setenv("DVC_STAGE", "train")
    logged(project, inputs=[Path("data/packed/toy")])
    (project / "plan.yaml").write_text("stages: {}\n")  # whatever is planned since
    promote.run("net", "champion")
    card = MlflowClient(tracking_uri()).get_model_version_by_alias("toy", "champion").description
    assert ("simulated sky" in card) == is_drawn


def test_a_run_that_mlflow_does_not_know_is_not_promoted(project):
    (project / "params.yaml").write_text("tracking: {experiment: sky}\n")
    with pytest.raises(DataError, match="has no run in this MLflow store"):
        promote.run("net", "champion")
    with pytest.raises(DataError, match="neither"):
        promote.run("nothing", "champion")


def test_a_registered_network_answers_over_http(project):
    (project / "params.yaml").write_text("tracking: {experiment: sky}\n")
    logged(project)
    promote.run("net", "champion")
    server = uvicorn.Server(uvicorn.Config(scoring_app("toy", serve.read_posted), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        address = f"http://127.0.0.1:{port}"
        own, _ = load_network(project / "models/trained/toy/net/model.h5")
        expected = own.predict_on_batch(EXAMPLE[np.newaxis])[0]
        answer = requests.post(f"{address}/invocations", json={"inputs": [EXAMPLE.tolist()]}).json()
        assert list(answer["predictions"][0].values()) == pytest.approx(expected, abs=1e-6)
        picture = cv2.imencode(".png", EXAMPLE[..., ::-1])[1].tobytes()
        answer = requests.post(f"{address}/predict", data=picture).json()
        assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=1e-6)
        assert answer["class"] == CLASSES[expected.argmax()]
        jpeg = cv2.imencode(".jpg", np.full((30, 40, 3), 99, np.uint8))[1].tobytes()
        assert sum(requests.post(f"{address}/predict", data=jpeg).json()["probabilities"].values()) == pytest.approx(1)
        refused = requests.post(f"{address}/predict", data=b"no picture")
        assert (refused.status_code, "JPEG" in refused.json()["detail"]) == (422, True)
        form = requests.post(f"{address}/predict", files={"file": picture})
        assert (form.status_code, "--data-binary" in form.json()["detail"]) == (415, True)
        with pytest.raises(ConfigError, match=f"--port {port}: is taken"):
            serve.run("toy", "127.0.0.1", port)
    finally:
        server.should_exit = True
        thread.join()


def test_the_only_registered_network_needs_no_name(project):
    (project / "params.yaml").write_text("tracking: {experiment: sky}\n")
    with pytest.raises(TrackingError, match="has no registered network; run deepsky promote RUN"):
        serve.run(None, "127.0.0.1", closed_port())
    logged(project)
    promote.run("net", "champion")
    assert only_model() == "toy"
    MlflowClient(tracking_uri()).create_registered_model("other")
    with pytest.raises(ConfigError, match="does not know which network; name one of: other, toy"):
        serve.run(None, "127.0.0.1", closed_port())


@pytest.mark.parametrize("host", ["no such host", "192.0.2.1", "::2"])  # the last two are never this machine's
def test_an_address_of_another_machine_is_refused(project, host):
    with pytest.raises(ConfigError, match=f"--host {host}: cannot be listened on .*; give 127.0.0.1"):
        serve.run("toy", host, closed_port())


@pytest.mark.parametrize("alias", ["", "my best", "latest", "V3", "a" * 256])
def test_what_mlflow_takes_for_no_alias_is_refused_before_there_is_a_version(project, alias):
    (project / "params.yaml").write_text("tracking: {experiment: sky}\n")
    logged(project)
    with pytest.raises(ConfigError, match=r"--alias .*: cannot be an alias; give letters"):
        promote.run("toy-net", alias)
    assert MlflowClient(tracking_uri()).search_registered_models() == []


def test_logging_a_model_again_completes_it(project):
    run = logged(project)
    trained = project / "models/trained/toy/net"
    client = MlflowClient(tracking_uri())
    Run(Delivery(client, run.run_id)).log_trained(trained, json.loads((trained / "run.json").read_text()))
    assert len(client.get_run(run.run_id).outputs.model_outputs) == 1
    assert len(client.search_logged_models(["1"])) == 1
