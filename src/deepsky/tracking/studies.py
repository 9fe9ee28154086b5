"""Searches in MLflow: one parent run per study, one child run per finished trial."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow.entities import Run as StoredRun
from mlflow.entities import RunTag
from mlflow.tracking import MlflowClient

from deepsky.tracking.children import TrialRecord, children_of
from deepsky.tracking.delivery import Delivery
from deepsky.tracking.lineage import current_lineage
from deepsky.tracking.origin import find_parent
from deepsky.tracking.runs import Run, close_dead_runs
from deepsky.tracking.store import one_at_a_time, prepare, store_errors
from deepsky.tracking.tags import lineage_tags, named_tags, process_tags

__all__ = ["StudyRun", "TrialRecord", "open_study_run"]
_TRIALS_PER_LOCK = 100  # so that other workers do not wait long


class StudyRun:
    """The parent run of a study.

    Attributes:
        run_id: MLflow's id.
    """

    def __init__(self, client: MlflowClient, stored: StoredRun) -> None:
        """Wrap an existing run."""
        self._client, self.run_id, self._children = client, str(stored.info.run_id), children_of(client, stored)

    def log_trials(self, records: Sequence[TrialRecord]) -> None:
        """Make the children of finished trials, each closed with its true times and state.

        A trial that is already there is left alone: any worker may hand in any trial at any time.

        Args:
            records: the trials, in any order.

        Raises:
            TrackingError: the store refuses.
        """
        once = {record.number: record for record in records}.values()
        ordered = sorted(once, key=lambda record: record.started_ms)
        for first in range(0, len(ordered), _TRIALS_PER_LOCK):
            with one_at_a_time(), store_errors():
                self._children.write(ordered[first : first + _TRIALS_PER_LOCK])

    def logged_trials(self) -> set[int]:
        """Return the numbers of the trials whose child is complete.

        Raises:
            TrackingError: the store refuses.
        """
        with store_errors():
            return self._children.numbers()

    def finish(self, figures: Path | None, summary: Mapping[str, float], status: str = "FINISHED") -> None:
        """Log the study's figures and close its run.

        Args:
            figures: a folder, copied to the artifacts below ``figures``; None for none.
            summary: metrics of the whole study.
            status: FINISHED, or KILLED where trials are left to do.

        Raises:
            TrackingError: the store refuses.
        """
        run = Run(Delivery(self._client, self.run_id))
        run.log_metrics(summary)
        if figures is not None:
            run.log_artifact(figures, "figures")
        with store_errors():
            self._client.set_terminated(self.run_id, status)


def open_study_run(experiment: str, study: str, params: Mapping[str, object], tags: Mapping[str, str]) -> StudyRun:
    """Return the parent run of a study, running from now on; several workers may call this at once.

    Args:
        experiment: name of the MLflow experiment; created where missing.
        study: name of the study.
        params: what stays the same as long as the study lives, nested as it comes; MLflow refuses another value.
        tags: what may change; the last worker's stay; see ``named_tags``.

    Raises:
        TrackingError: the store cannot be used, or has other values of the parameters.
    """
    close_dead_runs(experiment)
    client, experiment_id = prepare(experiment)
    lineage = current_lineage(())  # a search is no stage: the git commit
    with one_at_a_time(), store_errors():
        parent = find_parent(client, experiment_id, study)
        if parent is None:
            parent = client.create_run(experiment_id, tags={"deepsky.study": study}, run_name=study)
        run = Run(Delivery(client, parent.info.run_id))
        run.log_params({"study": study, **params})
        latest = {**lineage_tags(lineage), **process_tags(), **named_tags(tags)}
        client.log_batch(run.run_id, tags=[RunTag(name, value) for name, value in latest.items()])
        client.update_run(run.run_id, status="RUNNING")
    return StudyRun(client, parent)
