"""Runs read back from the store: what each was, what it came from, what it reached."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepsky.errors import TrackingError
from deepsky.tracking.artifacts import local_folder
from deepsky.tracking.lineage import LINEAGE, PATCH
from deepsky.tracking.store import impatient, prepare, readable_database, store_errors, tracking_uri
from deepsky.tracking.tags import HIDDEN
from deepsky.tracking.trained_files import NETWORK_FILE

if TYPE_CHECKING:  # mlflow takes seconds to import: a database is read without it
    from mlflow.entities import Run as StoredRun

_PAGE = 1000


@dataclass(frozen=True)
class RecordedRun:
    """One run of the store.

    Attributes:
        run_id: MLflow's.
        name: of the run in params.yaml.
        status: FINISHED, FAILED, KILLED or RUNNING.
        started: when, in UTC.
        params: settings, as MLflow has them.
        metrics: the last value of each.
        tags: all of them.
        artifact_uri: where its files are.
        model_ids: of the models that it made.
    """

    run_id: str
    name: str
    status: str
    started: datetime
    params: Mapping[str, str] = field(repr=False)
    metrics: Mapping[str, float] = field(repr=False)
    tags: Mapping[str, str] = field(repr=False)
    artifact_uri: str
    model_ids: tuple[str, ...] = ()

    def hidden(self, name: str) -> str:
        """Return one of the tags that MLflow's pages do not show; empty where it is missing."""
        return self.tags.get(f"{HIDDEN}{name}", "")

    @property
    def data(self) -> dict[str, str]:
        """Return the hash of each input by its path."""
        prefix = f"{HIDDEN}data."
        return {name.removeprefix(prefix): value for name, value in self.tags.items() if name.startswith(prefix)}

    def lineage(self) -> dict[str, Any]:
        """Return what the run recorded of its origin, see ``Lineage.as_json``.

        Raises:
            TrackingError: it recorded nothing, or the store cannot be used.
        """
        text = self._text(LINEAGE)
        if text is None:
            remedy = "train it again: it was made before runs recorded where they came from"
            raise TrackingError(f"run {self.run_id}", f"has no {LINEAGE} among its artifacts", remedy)
        found: dict[str, Any] = json.loads(text)
        return found

    def patch(self) -> str:
        """Return what turns its commit into the code that ran; empty where nothing differed.

        Raises:
            TrackingError: the store cannot be used.
        """
        if self.hidden("git_dirty") != "true":
            return ""
        with tempfile.TemporaryDirectory() as folder:
            return self.file(PATCH, Path(folder)).read_bytes().decode()

    @property
    def is_local(self) -> bool:
        """Tell whether its files are in a folder of this machine."""
        return local_folder(self.artifact_uri) is not None

    def network_file(self) -> Path | None:
        """Return where a local store keeps its network; None where it made none.

        Raises:
            TrackingError: the store cannot be used.
        """
        from mlflow.tracking import MlflowClient

        with impatient(), store_errors():
            models = [MlflowClient(tracking_uri()).get_logged_model(one) for one in self.model_ids]
        folders = [local_folder(one.artifact_location) for one in models]
        return next((folder / NETWORK_FILE for folder in folders if folder is not None), None)

    def file(self, name: str, folder: Path) -> Path:
        """Bring one of the run's artifacts into a folder, unless the store is one; return where it is.

        Raises:
            TrackingError: the run has none of this name, or the store cannot be used.
        """
        from mlflow.artifacts import download_artifacts

        with impatient(), store_errors():
            return Path(download_artifacts(f"{self.artifact_uri}/{name}", dst_path=str(folder)))

    def _text(self, name: str) -> str | None:
        """Return the text of an artifact; None where the run has none of this name."""
        folder = local_folder(self.artifact_uri)
        with impatient(), store_errors():
            if folder is None:
                return self._downloaded(name)
            try:
                return (folder / name).read_text(encoding="utf-8")
            except FileNotFoundError:
                return None

    def _downloaded(self, name: str) -> str | None:
        from mlflow.artifacts import load_text
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            text: str = load_text(f"{self.artifact_uri}/{name}")
        except (MlflowException, OSError):  # of every kind of store another one
            client = MlflowClient(tracking_uri())
            if name in (file.path for file in client.list_artifacts(self.run_id, name.rpartition("/")[0])):
                raise
            return None
        return text


def run_by_id(run_id: str) -> RecordedRun | None:
    """Return a run by MLflow's id; None where there is none.

    Raises:
        TrackingError: the store cannot be used, or the run was deleted.
    """
    if (database := readable_database()) is not None:
        from deepsky.tracking.tables import run_in

        return run_in(database, run_id)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    with impatient(), store_errors():
        try:
            run = MlflowClient(tracking_uri()).get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
    check_there(run_id, run.info.lifecycle_stage)
    return _of_client(run)


def check_there(run_id: str, stage: str) -> None:
    """Refuse a deleted run.

    Args:
        run_id: MLflow's.
        stage: of its life, in MLflow's words.

    Raises:
        TrackingError: it is not active.
    """
    if stage != "active":
        raise TrackingError(f"run {run_id}", "was deleted", f"run mlflow runs restore --run-id {run_id}")


def newest_run(experiment: str, tag: str, value: str) -> RecordedRun | None:
    """Return the newest finished run that has a tag of deepsky's own, without its prefix; None where there is none.

    Raises:
        TrackingError: the store cannot be used.
    """
    return next(_search(experiment, (f"{HIDDEN}{tag}", value), 1), None)


def tag_run(run_id: str, name: str, value: str) -> None:
    """Set or replace a tag of a run.

    Raises:
        TrackingError: the store cannot be used.
    """
    from mlflow.tracking import MlflowClient

    with impatient(), store_errors():
        MlflowClient(tracking_uri()).set_tag(run_id, name, value)


def recorded_runs(experiment: str) -> Iterator[RecordedRun]:
    """Yield every run of an experiment, the newest first.

    Raises:
        TrackingError: the store cannot be used.
    """
    yield from _search(experiment)


def _search(experiment: str, tag: tuple[str, str] | None = None, limit: int | None = None) -> Iterator[RecordedRun]:
    """Yield runs, the newest first: those that finished with a tag of this name and value, or every one."""
    if tag and "'" in tag[1]:  # `config.check_name` lets no run have one, and MLflow's queries know no way to say it
        return
    if (database := readable_database()) is not None:
        from deepsky.tracking.tables import runs_in

        yield from runs_in(database, experiment, tag, limit=limit)
        return
    client, experiment_id = prepare(experiment)
    query = f"attributes.status = 'FINISHED' and tags.`{tag[0]}` = '{tag[1]}'" if tag else ""
    token, order, at_once = None, ["attributes.start_time DESC"], limit or _PAGE
    while True:
        with impatient(), store_errors():
            page = client.search_runs([experiment_id], query, max_results=at_once, order_by=order, page_token=token)
        yield from map(_of_client, page)
        token = page.token
        if not token or limit:
            return


def _of_client(stored: "StoredRun") -> RecordedRun:
    """Return a run as MLflow's client tells it."""
    info, data = stored.info, stored.data
    models = stored.outputs.model_outputs if stored.outputs else []
    return RecordedRun(
        run_id=info.run_id,
        name=own_name(data.tags, info.run_name),
        status=info.status,
        started=in_utc(info.start_time),
        params=data.params,
        metrics=data.metrics,
        tags=data.tags,
        artifact_uri=info.artifact_uri,
        model_ids=tuple(one.model_id for one in models),
    )


def own_name(tags: Mapping[str, str], shown: str) -> str:
    """Return a run's name in params.yaml; of a run that has none there, the one that MLflow shows."""
    return tags.get(f"{HIDDEN}run") or shown


def in_utc(since_1970_ms: int) -> datetime:
    """Return one of MLflow's times."""
    return datetime.fromtimestamp(since_1970_ms / 1000, UTC)


def differing(values: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the names that have not the same value in all mappings, each with its values; None where it is missing."""
    names = sorted({name for one in values for name in one})
    table = {name: [one.get(name) for one in values] for name in names}
    return {name: row for name, row in table.items() if any(value != row[0] for value in row[1:])}
