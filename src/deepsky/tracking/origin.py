"""How a study, its trials and an adopted network find each other in MLflow."""

from collections.abc import Mapping

from mlflow.entities import Run as StoredRun
from mlflow.tracking import MlflowClient

from deepsky.errors import TrackingError, UnreachableError
from deepsky.tracking.store import impatient, one_at_a_time, prepare, store_errors
from deepsky.tracking.tags import process_of

PARENT_TAG, TRIAL_TAG = "mlflow.parentRunId", "deepsky.trial"


def origin_tags(experiment: str, study: str, trial: int) -> dict[str, str]:
    """Return the tags of a run whose parameters a search found.

    Args:
        experiment: MLflow experiment of the run; the studies stand in EXPERIMENT-tuning.
        study: name of the search.
        trial: its number in the study.

    Returns:
        ``deepsky.study``, ``deepsky.trial`` and, where this store answers and holds the trial's run,
        ``deepsky.trial_run``.

    Raises:
        TrackingError: the store refuses.
    """
    try:
        with impatient():
            found = find_trial_run(f"{experiment}-tuning", study, trial)
    except UnreachableError:  # what the store knows is not worth a training
        found = None
    tags = {"deepsky.study": study, "deepsky.trial": str(trial)}
    return tags | ({"deepsky.trial_run": found} if found else {})


def find_trial_run(experiment: str, study: str, number: int) -> str | None:
    """Return the id of a trial's run, None where the store has none.

    Args:
        experiment: name of the MLflow experiment.
        study: name of the study.
        number: of the trial.

    Raises:
        TrackingError: the store cannot be used.
    """
    client, experiment_id = prepare(experiment)
    with store_errors():
        parent = find_parent(client, experiment_id, study)
        if parent is None:
            return None
        query = f"tags.`{PARENT_TAG}` = '{parent.info.run_id}' and tags.`{TRIAL_TAG}` = '{number}'"
        found = client.search_runs([experiment_id], f"{query} and attributes.status != 'RUNNING'", max_results=1)
    return str(found[0].info.run_id) if found else None


def check_name(study: str) -> None:
    """Refuse a study that could not be found again.

    Raises:
        TrackingError: its name is one.
    """
    if "'" in study or "\\" in study:
        raise TrackingError(f"study {study!r}", "MLflow cannot search for ' and \\", "give it a name without them")


def parent_of(
    client: MlflowClient, experiment_id: str, study: str, start_ms: int, tags: Mapping[str, str]
) -> StoredRun:
    """Return the parent run of a study, made where there is none.

    Args:
        client: of the store.
        experiment_id: where the study stands.
        study: its name.
        start_ms: when it began, at the latest.
        tags: of its own run or one below: where that process ends without a word of the study, its run is closed too.
    """
    with one_at_a_time():
        found = find_parent(client, experiment_id, study)
        return found or client.create_run(experiment_id, start_ms, {"deepsky.study": study, **process_of(tags)}, study)


def find_parent(client: MlflowClient, experiment_id: str, study: str) -> StoredRun | None:
    """Return the parent run of a study, None where there is none."""
    check_name(study)
    query, order = f"tags.`deepsky.study` = '{study}'", ["attributes.start_time ASC"]
    found = client.search_runs([experiment_id], query, order_by=order, max_results=1)
    return found[0] if found else None
