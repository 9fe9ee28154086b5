import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from deepsky.tracking.delivery import Delivery
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.runs import Run, find_run, run_key, run_params, training_run
from deepsky.tracking.store import tracking_uri
from deepsky.training.saved import load_network
from tests.tiny_networks import tiny_network
from tests.trained_folders import make_project, write_trained

CLASSES = ("c0", "c1", "c2")  # of the tiny network
EXAMPLE = np.random.default_rng(1).integers(0, 256, (12, 12, 3), dtype=np.uint8)


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
        run.finish_key(run_key(trained))
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


def test_logging_a_model_again_completes_it(project):
    run = logged(project)
    trained = project / "models/trained/toy/net"
    client = MlflowClient(tracking_uri())
    Run(Delivery(client, run.run_id)).log_trained(trained, json.loads((trained / "run.json").read_text()))
    assert len(client.get_run(run.run_id).outputs.model_outputs) == 1
    assert len(client.search_logged_models(["1"])) == 1
