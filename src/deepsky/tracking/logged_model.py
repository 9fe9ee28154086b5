"""The trained network as MLflow's model of its run: the one ``.h5``, and beside it what it takes and answers."""

import platform
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import Dataset, LoggedModel, LoggedModelOutput, Metric
from mlflow.entities import Run as StoredRun
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, Schema, TensorSpec

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.tracking.artifacts import log_model_files
from deepsky.tracking.trained_files import NETWORK_FILE

_LOADER = "deepsky.tracking.scoring"
_CONTEXT = "mlflow.data.context"
_SHOWN = ("dataset", "network", "weights", "start", "learn", "target")  # facts of run.json in the table of models
_EXAMPLE, _SERVED_EXAMPLE = "input_example.json", "serving_input_example.json"


def log_model(client: MlflowClient, run_id: str, network: Path, facts: Mapping[str, Any], example: str) -> str:
    """Make the model of a run, once: what an earlier call began is completed.

    MLflow's own ways would import the network, write it a second time and ask pip for its requirements.

    Args:
        client: of the store.
        run_id: of the run.
        network: the ``.h5`` of its network.
        facts: content of its run.json.
        example: a list of one image as JSON; empty: there is none.

    Returns:
        The model's id.

    Raises:
        MlflowException: the store refuses; also what its transport and the file system raise.
    """
    run = client.get_run(run_id)
    model = _of_run(client, run.info.experiment_id, run_id) or client.create_logged_model(
        run.info.experiment_id,
        name=facts["run"],
        source_run_id=run_id,
        params={name: str(facts[name]) for name in _SHOWN},
        model_type=facts["network"],
    )
    with tempfile.TemporaryDirectory() as name:
        _describe(Path(name), model, facts, example)
        log_model_files(client, model, Path(name))
    log_model_files(client, model, network)
    client.finalize_logged_model(model.model_id, "READY")
    if not any(output.model_id == model.model_id for output in run.outputs.model_outputs):
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)


def scores_of(run: StoredRun, metrics: Mapping[str, float], now_ms: int) -> Iterator[Metric]:
    """Yield the metrics of a run's network, each with the model, and with the part of the data that its name says."""
    models = [output.model_id for output in run.outputs.model_outputs]
    of_parts = parts_read(run)
    for name, value in metrics.items():
        dataset = of_parts.get(name.partition("_")[0]) if models else None
        about = {"dataset_name": dataset.name, "dataset_digest": dataset.digest} if dataset else {}
        yield Metric(name, float(value), now_ms, 0, model_id=models[0] if models else None, **about)


def parts_read(run: StoredRun) -> dict[str, Dataset]:
    """Return the dataset that each part of the data is, by the part's name: train, val, test."""
    return {tag.value: one.dataset for one in run.inputs.dataset_inputs for tag in one.tags if tag.key == _CONTEXT}


def _of_run(client: MlflowClient, experiment_id: str, run_id: str) -> LoggedModel | None:
    found = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'", max_results=1)
    return found[0] if found else None


def _describe(folder: Path, model: LoggedModel, facts: Mapping[str, Any], example: str) -> None:
    """Write MLmodel, by which MLflow loads and serves the network, and the example."""
    outputs = facts["classes"] if facts["target"] == "class" else COLUMNS
    dtype = np.dtype("uint8" if facts["kind"] == "uint8" else "float32")
    described = Model(
        run_id=model.source_run_id,
        model_id=model.model_id,
        artifact_path=model.artifact_location,
        signature=ModelSignature(
            inputs=Schema([TensorSpec(dtype, (-1, *facts["image_shape"]))]),
            outputs=Schema([ColSpec("float", name) for name in outputs]),
        ),
    )
    described.add_flavor(
        "python_function", loader_module=_LOADER, data=NETWORK_FILE, python_version=platform.python_version()
    )
    if example:
        (folder / _EXAMPLE).write_text(example)
        (folder / _SERVED_EXAMPLE).write_text(f'{{"inputs": {example}}}')
        info = {"artifact_path": _EXAMPLE, "serving_input_path": _SERVED_EXAMPLE, "type": "ndarray"}
        described.saved_input_example_info = info
    described.save(folder / "MLmodel")
