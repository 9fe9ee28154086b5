"""The MLflow store: where it stands, and its creation before anyone writes to it."""

import fcntl
import json
import logging
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from requests.exceptions import RequestException
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from deepsky.errors import TrackingError, UnreachableError
from deepsky.files import whole_file
from deepsky.tracking.lineage import workspace_root
from deepsky.tracking.secrets import masked

if TYPE_CHECKING:  # it takes seconds to import, and whoever only reads an SQLite file needs none of it
    from mlflow.entities import Experiment
    from mlflow.tracking import MlflowClient

_URI_VARIABLE = "MLFLOW_TRACKING_URI"
_ARTIFACTS, _DATABASE = "mlruns", "mlflow.db"
_SQLITE = "sqlite:///"
_ENGINES = ("sqlite", "postgresql")  # of those that MLflow takes; what others need (TLS, collation) is its business
_SQLITE_WAIT_S = 20.0  # as long as MLflow itself waits for another writer
# Where MLflow keeps the place of artifacts as an absolute path.
_PLACES = (
    ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
    ("experiment_tags", "value"), ("model_versions", "storage_location"),
)  # fmt: skip
_ERRORS = (SQLAlchemyError, sqlite3.Error, RequestException, ImportError, OSError)
_PASSING = (429, 502, 503, 504)  # what servers answer that are too busy, or have none behind them
_IMPATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_MADE_FOR = "mlflow.deepsky.artifacts"
_VIEW = "deepsky"
# What the table of runs shows beside their names, the best accuracy on top.
_COLUMNS = (
    "params.`dataset`", "params.`network`", "metrics.`test_accuracy`", "metrics.`test_f1_macro`", "metrics.`test_rmse`",
    "tags.`deepsky.remark`",
)  # fmt: skip


def project_root(start: Path | None = None) -> Path:
    """Return the folder that holds the store: the project a stage belongs to, wherever DVC runs it.

    ``dvc exp run --temp`` and ``--queue`` copy the project below its ``.dvc/tmp/exps``; runs must not vanish with the
    copy, so there the root is the original project.

    Args:
        start: a folder in the project; the current one by default.

    Raises:
        TrackingError: no dvc.yaml there or in any folder above.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if folder.name == "exps" and folder.parent.name == "tmp" and folder.parent.parent.name == ".dvc":
            return folder.parents[2]
    root = workspace_root(here)
    if root is None:
        raise TrackingError(here, "is in no project (no dvc.yaml)", f"run inside the project or set {_URI_VARIABLE}")
    return root


def tracking_uri() -> str:
    """Return the store's URI: MLFLOW_TRACKING_URI, else ``mlflow.db`` in the project's root.

    A relative SQLite path counts from the project's root, not from the current folder.

    Raises:
        TrackingError: neither is there.
    """
    uri = os.environ.get(_URI_VARIABLE, "").strip()
    if not uri:
        return f"{_SQLITE}{project_root() / _DATABASE}"
    if uri.startswith(_SQLITE) and not uri.startswith(f"{_SQLITE}/"):
        return f"{_SQLITE}{project_root() / uri.removeprefix(_SQLITE)}"
    return uri


def prepare(experiment: str) -> tuple["MlflowClient", str]:
    """Create the database and the experiment where they are missing; any number of processes may call it at once.

    Args:
        experiment: its name.

    Returns:
        A client of the store and the experiment's id.

    Raises:
        TrackingError: the store cannot be reached, read or written, or the experiment was deleted in it.
    """
    from mlflow.tracking import MlflowClient

    uri = tracking_uri()
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints tracebacks; we raise one line
    with store_errors(), one_at_a_time(), impatient():
        _prepare_sqlite(uri)
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment) or _create(client, experiment, _artifact_root(uri))
    check_active(experiment, found.experiment_id, found.lifecycle_stage)
    return client, found.experiment_id


def readable_database() -> str | None:
    """Return the URI of the database that is the store, ready to be read; None where only MLflow's client can.

    Raises:
        TrackingError: it cannot be used.
    """
    uri = tracking_uri()
    if not is_database(uri):
        return None
    with store_errors(), one_at_a_time():
        _prepare_sqlite(uri)
    return uri


def is_database(uri: str) -> bool:
    """Tell whether a store is a database whose tables are read and written without MLflow's client."""
    return uri.partition("://")[0].partition("+")[0] in _ENGINES


def engine_of(uri: str) -> Engine:
    """Return an engine for such a database, without a pool; with SQLite it waits for a writer as long as MLflow."""
    wait = {"timeout": _SQLITE_WAIT_S} if make_url(uri).get_backend_name() == "sqlite" else {}
    return create_engine(uri, poolclass=NullPool, connect_args=wait)


def check_active(experiment: str, experiment_id: str, stage: str) -> None:
    """Refuse a deleted experiment.

    Args:
        experiment: its name.
        experiment_id: MLflow's.
        stage: of its life, in MLflow's words.

    Raises:
        TrackingError: it is not active.
    """
    if stage != "active":
        raise TrackingError(
            masked(tracking_uri()),
            f"experiment {experiment!r} is deleted",
            f"run mlflow experiments restore -x {experiment_id}, or name another under tracking in params.yaml",
        )


def page_of_runs(experiment: str) -> str:
    """Prepare the table of an experiment's runs with columns that tell them apart; return where it is in the pages.

    Raises:
        TrackingError: the store cannot be used.
    """
    client, experiment_id = prepare(experiment)
    state = {"selectedColumns": _COLUMNS, "orderByKey": "metrics.`test_accuracy`", "orderByAsc": False}
    made_ms = client.get_experiment(experiment_id).creation_time
    view = {"name": _VIEW, "createdAt": made_ms, "updatedAt": made_ms, "state": json.dumps(state)}
    with store_errors():
        client.set_experiment_tag(experiment_id, f"mlflow.sharedViewState.{_VIEW}", json.dumps(view))
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={_VIEW}"


def ui_command(host: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Return the command that serves the store's web pages, and its environment; to be called after `prepare`.

    The store's URI may hold a password, and everybody on this machine can read command lines.
    """
    uri = tracking_uri()
    root = _artifact_root(uri)
    stores = {"MLFLOW_BACKEND_STORE_URI": uri} | ({"MLFLOW_DEFAULT_ARTIFACT_ROOT": root} if root else {})
    # Each worker takes seconds of a processor to start, and dies where it gets too few of them.
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port), "--workers", "1"]
    return command, {**os.environ, **stores}


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one process of this machine write to the store; the lock goes with the process, however it ends.

    Not to be entered twice: `prepare` enters it too.

    Raises:
        TrackingError: no store is named, see `tracking_uri`.
    """
    database = _sqlite_path(tracking_uri())
    root = workspace_root(Path.cwd())
    if database is None and root is None:  # a server, used from outside any project: it has only its own locks
        yield
        return
    lock = database.with_name(f"{database.name}.lock") if database else project_root() / "mlflow.db.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn what MLflow, its database and its transport raise into one line.

    Raises:
        UnreachableError: the store does not answer, or not now; names it, the first line of the cause and the remedy.
        TrackingError: it refuses; names the same.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, _errors()):
            raise
        transport = _of_transport(error)
        said = (
            type(transport).__name__ if transport else next(iter(str(error).strip().splitlines()), type(error).__name__)
        )
        may_pass = transport is not None or _may_pass(error)
        problem = "does not answer" if may_pass else "cannot be used"
        raise (UnreachableError if may_pass else TrackingError)(
            masked(tracking_uri()),
            f"the MLflow store {problem} ({masked(said)[:300]})",
            f"check that it is reachable, whole and writable, or set {_URI_VARIABLE} to another store",
        ) from error


@contextmanager
def without_if_away(remedy: str) -> Iterator[None]:
    """Leave the rest of the block out where the store does not answer, and say so.

    Args:
        remedy: how what is left out is made up for.
    """
    try:
        with impatient():
            yield
    except UnreachableError as error:
        print(f"WARNING: {error.where}: {error.problem}; {remedy}", file=sys.stderr)


def _errors() -> tuple[type[Exception], ...]:
    """Return what a store raises; MLflow's own errors only where somebody imported it, else there can be none."""
    of_mlflow = sys.modules.get("mlflow.exceptions")
    return (*_ERRORS, of_mlflow.MlflowException) if of_mlflow else _ERRORS


def _of_transport(error: BaseException) -> BaseException | None:
    """Return the error of the transport that this is, or that MLflow hides behind one of its own."""
    hidden = (error, error.__cause__, error.__context__)
    return next((one for one in hidden if isinstance(one, RequestException)), None)


def _may_pass(error: BaseException) -> bool:
    """Tell a store that is busy or ill from one that refuses."""
    if answered := getattr(error, "get_http_status_code", None):
        return answered() in _PASSING
    cause = error.orig if isinstance(error, OperationalError) else error
    if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:  # no such table or column
        return False
    return isinstance(error, OperationalError | sqlite3.OperationalError)


def _create(client: "MlflowClient", experiment: str, artifact_root: str | None) -> "Experiment":
    from mlflow.exceptions import MlflowException

    try:
        tags = {"mlflow.experimentKind": "custom_model_development"}  # else its page is one of language models
        tags |= {_MADE_FOR: artifact_root} if artifact_root else {}
        made = client.create_experiment(experiment, artifact_location=artifact_root, tags=tags)
        return client.get_experiment(made)
    except MlflowException:
        found = client.get_experiment_by_name(experiment)
        if found is None:  # not merely that another machine was faster
            raise
        return found


def _artifact_root(uri: str) -> str | None:
    """Return where artifacts of new experiments go; None where a server decides."""
    return None if uri.startswith(("http:", "https:")) else str(project_root() / _ARTIFACTS)


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]) if uri.startswith(_SQLITE) else None


def _prepare_sqlite(uri: str) -> None:
    """Make the database of a project where it is missing, and let it follow the project; nothing of another store."""
    if (database := _sqlite_path(uri)) is not None:
        _check_or_create_sqlite(database)
        if database == project_root() / _DATABASE:  # not one that several projects share
            _follow_project(database)


def _check_or_create_sqlite(path: Path) -> None:
    """Fail at once on a database that is locked, unwritable or no database: MLflow would retry for minutes."""
    if not path.exists() or not path.stat().st_size:
        from mlflow.tracking import MlflowClient

        with whole_file(path) as fresh:  # a process killed meanwhile leaves no half-made store
            MlflowClient(f"{_SQLITE}{fresh}").search_experiments(max_results=1)
    with closing(sqlite3.connect(path, timeout=_SQLITE_WAIT_S, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("ROLLBACK")


def _follow_project(database: Path) -> None:
    """Point the experiments that deepsky made in a project that was copied or renamed since to its artifacts here."""
    here = str(project_root() / _ARTIFACTS)
    query = "SELECT DISTINCT value FROM experiment_tags WHERE key = ? AND value != ?"
    with closing(sqlite3.connect(database, timeout=_SQLITE_WAIT_S)) as connection, connection:
        for (there,) in connection.execute(query, (_MADE_FOR, here)).fetchall():
            for table, column in _PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR {column} LIKE ?",
                    (here, len(there) + 1, there, f"{there}/%"),
                )


@contextmanager
def impatient() -> Iterator[None]:
    """Say soon that a server is not there or hangs; by itself MLflow tries for minutes. May be entered twice."""
    own = {name: value for name, value in _IMPATIENCE.items() if name not in os.environ}
    retries = logging.getLogger("urllib3.connectionpool")  # it warns of each try; we say once what came of them
    level = retries.level
    os.environ.update(own)
    retries.setLevel(logging.ERROR)
    try:
        yield
    finally:
        retries.setLevel(level)
        for name in own:
            del os.environ[name]
