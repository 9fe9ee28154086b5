"""What a run read, as MLflow's datasets."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from deepsky.tracking.store import one_at_a_time


def log_inputs(client: MlflowClient, run_id: str, inputs: list[DatasetInput]) -> None:
    """Log what a run reads.

    MLflow enters each dataset once, and refuses one that another run entered between its look and its entry: two runs
    of one dataset that start together are the rule here.
    """
    if not inputs:
        return
    with one_at_a_time():
        try:
            client.log_inputs(run_id, inputs)
        except MlflowException:  # another machine was faster
            client.log_inputs(run_id, inputs)


def parts_of(dataset: str, data: Mapping[str, str], parts: Mapping[str, Mapping[str, int]]) -> Iterator[DatasetInput]:
    """Yield the parts of the dataset that hold rows, each with what it is for and how many objects of each class.

    Args:
        dataset: its name.
        data: hash of each input by its path; none of them need be the dataset.
        parts: objects by class in ``train``, ``val`` and ``test``.
    """
    packed = {path: digest for path, digest in data.items() if Path(path).match(f"packed/{dataset}")}
    for path, digest in packed.items():
        for part, counts in parts.items():
            if any(counts.values()):
                profile = json.dumps({"n_objects": sum(counts.values()), "classes": counts})
                source = json.dumps({"uri": path})
                made = Dataset(f"{dataset}-{part}", digest, "local", source, profile=profile)
                yield DatasetInput(made, [InputTag("mlflow.data.context", part)])


def files_of(data: Mapping[str, str]) -> Iterator[DatasetInput]:
    """Yield every input by its path; ``data`` as in ``parts_of``."""
    for path, digest in data.items():
        yield DatasetInput(Dataset(path, digest, "local", json.dumps({"uri": path})))
