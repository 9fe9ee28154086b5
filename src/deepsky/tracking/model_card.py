"""A model card: what a network was made for, of what, how good it is, and what it must not be asked."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from mlflow.entities import LoggedModel
from mlflow.entities import Run as StoredRun
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model

from deepsky.intervals import unreliable
from deepsky.tracking.logged_model import parts_read
from deepsky.tracking.tags import HIDDEN, SIMULATED

# What the card says elsewhere, or is no setting of the training.
_SAID = ("dataset", "network", "weights", "start", "learn", "target", "tested_on", "n_parameters")
_DATA = f"{HIDDEN}data."
_FIRST = ("accuracy", "f1_macro", "rmse", "baseline")
_FEW = 100  # test objects


def write_card(run: StoredRun, model: LoggedModel, described: Model, version: ModelVersion) -> str:
    """Return the card as Markdown.

    Args:
        run: that trained the network.
        model: of the run.
        described: the model's MLmodel.
        version: of the registered model that it became.

    Source:
        Mitchell et al. 2019, arXiv:1810.03993.
    """
    params, tags, metrics = run.data.params, run.data.tags, run.data.metrics
    tensor = described.signature.inputs.inputs[0]
    parts = {part: json.loads(dataset.profile)["classes"] for part, dataset in parts_read(run).items()}
    outputs = described.signature.outputs.input_names()
    data = {key.removeprefix(_DATA): value for key, value in tags.items() if key.startswith(_DATA)}
    trained_on = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    environment = Environment(loader=PackageLoader("deepsky.tracking"), undefined=StrictUndefined)
    return environment.get_template("model_card.md").render(
        model=version.name, version=version.version, model_id=model.model_id,
        run=run.info.run_name, run_id=run.info.run_id,
        trained_on="" if "deepsky.restored" in tags else f"{trained_on:%Y-%m-%d}",
        params=params, target=params["target"], outputs=outputs, dtype=str(tensor.type),
        height=tensor.shape[1], width=tensor.shape[2], channels=tensor.shape[3],
        parts=parts, classes=list(next(iter(parts.values()), {})), data=data,
        figures=list(_figures(metrics)), doubts=_doubts(metrics), limits=list(_limits(params, tags, parts)),
        commit=tags.get("mlflow.source.git.commit", ""), is_dirty=tags.get(f"{HIDDEN}git_dirty") == "true",
        versions=tags.get(f"{HIDDEN}versions", ""),
        settings={key: value for key, value in sorted(params.items()) if key not in _SAID},
    )  # fmt: skip


def _figures(metrics: Mapping[str, float]) -> Iterator[tuple[str, float, float | None, float | None]]:
    """Yield each test figure with its interval, where there is one; those that matter most come first."""
    names = [f"test_{name}" for name in _FIRST if f"test_{name}" in metrics]
    names += sorted(name for name in metrics if name.startswith("test_") and name not in names)
    for name in names:
        if not name.endswith(("_low", "_high")):
            yield name.removeprefix("test_"), metrics[name], metrics.get(f"{name}_low"), metrics.get(f"{name}_high")


def _doubts(metrics: Mapping[str, float]) -> str:
    """Say what is to be known of the intervals; nothing where they are reliable."""
    return unreliable(metrics["n_test_groups"]) if "n_test_groups" in metrics else ""


def _limits(params: Mapping[str, str], tags: Mapping[str, str], parts: Mapping[str, Any]) -> Iterator[str]:
    if SIMULATED not in tags:
        yield "Whether it learned from the real sky or from a simulated one is not recorded."
    if tags.get(SIMULATED) == "true":
        yield "It learned from a simulated sky, and was tested on it: nothing is known of how it does on the real one."
    if params["target"] == "class":
        yield "It knows its classes only: of anything else, an artefact or an empty picture, it names one of them."
        if params.get("calibrate", "none") == "none":
            yield "Its probabilities are not calibrated."
        yield "The probabilities of classes follow their shares in the training data."
    if params["weights"] == "random":
        yield "What the backbone sees was never learned: its weights are random."
    if tags.get("deepsky.remark"):
        yield f"Evaluation remarks: {tags['deepsky.remark']}."
    n_tested = sum(parts.get(params["tested_on"], {}).values())
    if 0 < n_tested < _FEW:
        yield f"Its figures rest on {n_tested} objects."
    yield "Pictures of another scale, depth, colour scheme or telescope are not what it learned from."
