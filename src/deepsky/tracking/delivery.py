"""What is told of a run, entry by entry, and its way into the store.

An entry is a mapping that JSON can hold, so that it may wait on disk (`journal`). Every entry may be written again:
a metric keeps its time, by which MLflow knows one that it has, and what it would make twice is looked for first.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.entities import Run as StoredRun
from mlflow.tracking import MlflowClient

from deepsky.tracking.artifacts import log_files
from deepsky.tracking.inputs import files_of, log_inputs, parts_of
from deepsky.tracking.logged_model import log_model, scores_of
from deepsky.tracking.origin import PARENT_TAG, parent_of
from deepsky.tracking.store import one_at_a_time, prepare, store_errors
from deepsky.tracking.tags import HIDDEN, is_alive, process_of, process_start_s

Entry = dict[str, Any]
_DELIVERY = f"{HIDDEN}delivery"  # the tag by which a run is found that was made, but whose id never came back
_MAX_VALUE_LENGTH = 6000  # MLflow's limit of a parameter's value
_TRIALS_PER_LOCK = 100  # so that other workers do not wait long
_MAX_PARAMS_PER_CALL, _MAX_METRICS_PER_CALL = 100, 1000  # MLflow's limits of log_batch


def now_ms() -> int:
    """Return the time as MLflow counts it."""
    return int(time.time() * 1000)


def opening(
    experiment: str,
    name: str,
    delivery: str,
    tags: Mapping[str, str],
    *,
    dataset: str = "",
    data: Mapping[str, str] | None = None,
    parts: Mapping[str, Mapping[str, int]] | None = None,
    study: str = "",
) -> Entry:
    """Return the entry that makes a run.

    Args:
        experiment: of MLflow.
        name: of the run.
        delivery: what no other run has.
        tags: of the run.
        dataset: its name.
        data: hash of each input by its path.
        parts: objects by class in each part of the dataset.
        study: whose run this one stands below, in the same experiment.
    """
    return {
        "kind": "open", "experiment": experiment, "name": name, "start_ms": now_ms(), "study": study,
        "tags": {**tags, _DELIVERY: delivery}, "dataset": dataset, "data": dict(data or {}), "parts": parts or {},
    }  # fmt: skip


def opening_study(experiment: str, study: str, params: Mapping[str, str], tags: Mapping[str, str]) -> Entry:
    """Return the entry that makes the run of a study, or opens it again.

    Args:
        experiment: of MLflow.
        study: its name.
        params: what stays the same as long as the study lives.
        tags: what may change.
    """
    return {
        "kind": "study", "experiment": experiment, "name": study, "start_ms": now_ms(), "params": dict(params),
        "tags": dict(tags),
    }  # fmt: skip


class Delivery:
    """The way of a run's entries into the store.

    Attributes:
        run_id: MLflow's id; empty until the run is there.
    """

    def __init__(self, client: MlflowClient | None = None, run_id: str = "", base: Path = Path()) -> None:
        """Begin with a run that is to be opened, or with one that is there.

        Args:
            client: of the store where the run is.
            run_id: of the run.
            base: folder that paths of files count from.
        """
        self.run_id, self._client, self._base = run_id, client, base
        self._worker: dict[str, str] | None = None  # the process whose word of a study this is

    @property
    def client(self) -> MlflowClient:
        """The store's client."""
        assert self._client is not None, "open comes first"
        return self._client

    def write(self, *entries: Entry) -> None:
        """Write entries in their order, metrics that follow each other in one call.

        Raises:
            UnreachableError: the store does not answer now; some of the entries may be written.
            TrackingError: the store refuses.
        """
        for entry in _merged(entries):
            with store_errors():
                getattr(self, f"_{entry['kind']}")(**{key: value for key, value in entry.items() if key != "kind"})

    def tags(self) -> dict[str, str]:
        """Return the run's tags.

        Raises:
            TrackingError: the store refuses.
        """
        with store_errors():
            return dict(self.client.get_run(self.run_id).data.tags)

    def _open(
        self,
        experiment: str,
        name: str,
        start_ms: int,
        tags: dict[str, str],
        dataset: str,
        data: Mapping[str, str],
        parts: Mapping[str, Mapping[str, int]],
        study: str = "",  # journals of older versions have none
    ) -> None:
        self._client, experiment_id = prepare(experiment)
        if study:
            tags = {**tags, PARENT_TAG: parent_of(self._client, experiment_id, study, start_ms, tags).info.run_id}
        query = f"tags.`{_DELIVERY}` = '{tags[_DELIVERY]}'"
        there = self._client.search_runs([experiment_id], query, max_results=1)
        run = there[0] if there else self._client.create_run(experiment_id, start_ms, tags, name)
        log_inputs(self._client, run.info.run_id, [*parts_of(dataset, data, parts), *files_of(data)])
        self.run_id = str(run.info.run_id)

    def _study(
        self, experiment: str, name: str, start_ms: int, params: dict[str, str], tags: Mapping[str, str]
    ) -> None:
        self._client, experiment_id = prepare(experiment)
        run = parent_of(self._client, experiment_id, name, start_ms, tags)
        self.run_id, self._worker = str(run.info.run_id), process_of(tags)
        self._params(params)
        if not _is_outdated("RUNNING", start_ms, self._worker, run):
            self._tags(tags)
            self._client.update_run(self.run_id, status="RUNNING")

    def _trials(self, records: Sequence[Mapping[str, Any]]) -> None:
        from deepsky.tracking.children import TrialRecord, children_of  # slow to import, and only searches have some

        children = children_of(self.client, self.client.get_run(self.run_id))
        for some in _chunks([TrialRecord(**record) for record in records], _TRIALS_PER_LOCK):
            with one_at_a_time():
                children.write(some)

    def _params(self, params: dict[str, str]) -> None:
        flat = dict(params)
        for name, value in params.items():
            if len(value) > _MAX_VALUE_LENGTH:
                file = f"params/{name}.txt"
                self.client.log_text(self.run_id, value, file)
                note = f"... (whole value in the artifact {file})"
                flat[name] = value[: _MAX_VALUE_LENGTH - len(note)] + note
        items = [Param(name, value) for name, value in flat.items()]
        for some in _chunks(items, _MAX_PARAMS_PER_CALL):
            self.client.log_batch(self.run_id, params=some)

    def _metrics(self, points: Sequence[Sequence[Any]]) -> None:
        for some in _chunks([Metric(*point) for point in points], _MAX_METRICS_PER_CALL):
            self.client.log_batch(self.run_id, metrics=some)

    def _scores(self, metrics: Mapping[str, float], at_ms: int) -> None:
        scores = list(scores_of(self.client.get_run(self.run_id), metrics, at_ms))
        self.client.log_batch(self.run_id, metrics=scores)

    def _tags(self, tags: Mapping[str, str]) -> None:
        self.client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def _text(self, file: str, text: str) -> None:
        self.client.log_text(self.run_id, text, file)

    def _files(self, path: str, folder: str) -> None:
        log_files(self.client, self.run_id, self._base / path, folder)

    def _model(self, path: str, facts: Mapping[str, Any], example: str) -> None:
        log_model(self.client, self.run_id, self._base / path, facts, example)

    def _end(self, status: str, end_ms: int) -> None:
        if status == "RUNNING":  # others work on it
            return
        if self._worker is not None and _is_outdated(status, end_ms, self._worker, self.client.get_run(self.run_id)):
            return
        self.client.set_terminated(self.run_id, status, end_ms)


def _is_outdated(status: str, at_ms: int, worker: Mapping[str, str], run: StoredRun) -> bool:
    """Tell whether a study's run, which all its workers share, says what counts more than the word of one of them.

    Args:
        status: what the worker says of the run.
        at_ms: when; its journal may have waited since.
        worker: its process, see ``process_of``.
        run: as it stands in the store.
    """
    tags, info = run.data.tags, run.info
    is_own = process_of(tags) == worker
    if info.status == "RUNNING":  # whoever says FINISHED had the last trial, unless the other was started since
        is_of_another = not is_own and is_alive(tags) is True
        return is_of_another and (status != "FINISHED" or process_start_s(tags) * 1000 > at_ms)
    is_guess = is_own and info.status == "KILLED"  # of close_dead_runs, which knows less than the worker's journal
    return (info.end_time or 0) > at_ms and not is_guess


def _merged(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries, metrics that follow each other as one."""
    points: list[Any] = []
    for entry in entries:
        if entry["kind"] == "metrics":
            points += entry["points"]
            continue
        if points:
            yield {"kind": "metrics", "points": points}
            points = []
        yield entry
    if points:
        yield {"kind": "metrics", "points": points}


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[first : first + size] for first in range(0, len(items), size))
