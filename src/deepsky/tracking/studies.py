"""Searches and other studies in MLflow: one parent run per study, one child run per finished trial or training."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from deepsky.errors import UnreachableError
from deepsky.tracking.children import TrialRecord, children_of
from deepsky.tracking.delivery import Delivery, Entry, now_ms, opening_study
from deepsky.tracking.journal import Journal, deliver_waiting
from deepsky.tracking.lineage import current_lineage
from deepsky.tracking.origin import check_name
from deepsky.tracking.outbox import warn_of_waiting
from deepsky.tracking.runs import Run, close_dead_runs
from deepsky.tracking.store import impatient, store_errors
from deepsky.tracking.tags import flatten, lineage_tags, named_tags, process_tags

__all__ = ["StudyRun", "TrialRecord", "open_study_run"]


class StudyRun:
    """The parent run of a study: written at once, but from when the store does not answer on, to a journal.

    Attributes:
        name: of the study.
    """

    def __init__(self, experiment: str, opening: Entry) -> None:
        """Open the run, after those that wait."""
        self.name: str = opening["name"]
        self._opening, self._delivery = opening, Delivery()
        self._journal: Journal | None = None
        self._logged = set[int]()
        with self._unless_away():
            deliver_waiting()
            close_dead_runs(experiment)
            self._opening = opening | {"start_ms": now_ms()}  # later than the end of what was just closed
            self._delivery.write(self._opening)

    @property
    def run_id(self) -> str:
        """MLflow's id, empty where the store did not answer when the run was opened."""
        return self._delivery.run_id

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
        if ordered:
            self._put({"kind": "trials", "records": [asdict(record) for record in ordered]})
        self._logged |= {record.number for record in ordered}

    def logged_trials(self) -> set[int]:
        """Return the numbers of the trials whose child is complete; without the store, of those logged here.

        Raises:
            TrackingError: the store refuses.
        """
        if self._journal is None:
            with self._unless_away(), store_errors():
                client = self._delivery.client
                return children_of(client, client.get_run(self.run_id)).numbers()
        return set(self._logged)

    def finish(self, figures: Path | None, summary: Mapping[str, float], status: str = "FINISHED") -> None:
        """Log the study's figures and close its run.

        Args:
            figures: a folder, copied to the artifacts below ``figures``; None for none.
            summary: metrics of the whole study.
            status: FINISHED; KILLED where trials are left to do; or RUNNING where others work on it, who close it.

        Raises:
            TrackingError: the store refuses.
        """
        run = Run(self._delivery, self._put)
        if summary:
            run.log_metrics(summary)
        if figures is not None:
            run.log_artifact(figures, "figures")
        run.end(status)
        if self._journal is not None:
            self._journal.close(is_delivered=False)
            with suppress(UnreachableError):
                deliver_waiting()

    def _put(self, entry: Entry) -> None:
        if self._journal is None:
            with self._unless_away():
                self._delivery.write(entry)
                return
        assert self._journal is not None
        self._journal.append(entry)

    @contextmanager
    def _unless_away(self) -> Iterator[None]:
        """Begin a journal where the store does not answer: asked again and again, it would hold up the study."""
        try:
            with impatient():
                yield
        except UnreachableError as error:
            warn_of_waiting(error)
            self._journal = Journal()
            self._journal.append(self._opening)


def open_study_run(experiment: str, study: str, params: Mapping[str, object], tags: Mapping[str, str]) -> StudyRun:
    """Return the parent run of a study, running from now on; several workers may call this at once.

    Args:
        experiment: name of the MLflow experiment; created where missing.
        study: name of the study.
        params: what stays the same as long as the study lives, nested as it comes; MLflow refuses another value.
        tags: what may change, see ``named_tags``; of workers at once those of the first stay.

    Raises:
        TrackingError: the store refuses, has other values of the parameters, or cannot know a study by this name.
    """
    check_name(study)
    lineage = current_lineage(())  # a search is no stage: the git commit
    latest = {**lineage_tags(lineage), **process_tags(), **named_tags(tags)}
    return StudyRun(experiment, opening_study(experiment, study, flatten({"study": study, **params}), latest))
