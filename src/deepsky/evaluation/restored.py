"""MLflow runs of networks whose files came from the DVC cache."""

from collections.abc import Iterator
from math import isfinite

import pandas as pd

from deepsky.evaluation.trained import Trained
from deepsky.tracking import runs as store
from deepsky.tracking.origin import origin_tags


def restore_run(experiment: str, one: Trained) -> store.Run:
    """Make the finished run of a trained network that has none.

    Args:
        experiment: MLflow experiment.
        one: the network and what stands beside it.

    Raises:
        TrackingError: the store cannot be used.
    """
    epochs = list(_epochs(one.history))
    found = store.restored_run(experiment=experiment, trained=one.folder, facts=one.facts, history=epochs)
    if one.origin:
        for name, value in origin_tags(experiment, one.origin["study"], one.origin["trial"]).items():
            found.set_tag(name, value)
    return found


def _epochs(history: pd.DataFrame) -> Iterator[tuple[int, dict[str, float]]]:
    for row in history.to_dict("records"):
        yield int(row.pop("epoch")), {str(k): float(v) for k, v in row.items() if isfinite(v)}
