"""The database of studies: SQLite in the project, or PostgreSQL by URL."""

import fcntl
import sqlite3
import warnings
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb.models import TrialModel, TrialParamModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from deepsky.errors import StudyError
from deepsky.files import whole_file
from deepsky.tracking.secrets import masked
from deepsky.tracking.store import project_root

_SQLITE = "sqlite:///"
_LOCK = 0x64656570  # PostgreSQL's locks have numbers
_SQLITE_WAIT_S = 30.0  # for another worker's write
_CONNECT_S = 5  # a server that does not answer by then is not there
_GRACE = 3  # heartbeats that may be missed
_MAX_RETRIES = 3  # of a trial whose workers die
optuna.logging.set_verbosity(optuna.logging.ERROR)  # our own lines say what happens


class WorkerStorage(_CachedStorage):
    """Optuna's storage that reads what other workers did only on `refresh`, and keeps up with this one by itself.

    Optuna reads every running trial again at each suggestion and each report: a millisecond for each of the trials
    that all workers train together. And it writes each parameter by itself: this keeps them until the trials' next
    write, `refresh` or `write_params`.
    """

    def __init__(self, backend: RDBStorage) -> None:
        """Read everything at the first question."""
        super().__init__(backend)
        self._current = set[int]()  # ids of studies
        self._ids = dict[str, int]()
        self._unwritten = list[TrialParamModel]()
        self._sorted = dict[int, list[FrozenTrial]]()

    def refresh(self) -> None:
        """Look again at the next question."""
        self.write_params()
        self._current.clear()

    def write_params(self) -> None:
        """Write the parameters that were suggested since the last write."""
        if self._unwritten:
            with self._backend.scoped_session() as session, session.begin():
                session.add_all(self._unwritten)
            self._unwritten.clear()

    def close(self) -> None:
        """Close the connections; the next question opens new ones."""
        self.write_params()
        self._backend.remove_session()
        self._backend.engine.dispose()

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return it; Optuna asks at every suggestion where the pruner is Hyperband."""
        if study_name not in self._ids:
            self._ids[study_name] = super().get_study_id_from_name(study_name)
        return self._ids[study_name]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials by number, sorted once and not at each of the many questions of an ask."""
        if deepcopy or states is not None:
            return list(super().get_all_trials(study_id, deepcopy, states))
        self._read_trials_from_remote_storage(study_id)
        if study_id not in self._sorted:
            self._sorted[study_id] = list(super().get_all_trials(study_id, deepcopy=False))
        return self._sorted[study_id].copy()

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial as this worker knows it."""
        known = trial_id in self._trial_id_to_study_id_and_number
        return deepcopy(self._known(trial_id)) if known else super().get_trial(trial_id)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Keep a parameter; a trial whose worker dies before it is written has none and draws again."""
        text = distribution_to_json(distribution)
        row = TrialParamModel(
            trial_id=trial_id, param_name=param_name, param_value=param_value_internal, distribution_json=text
        )
        self._unwritten.append(row)
        self._known(trial_id).distributions[param_name] = distribution
        self._known(trial_id).params[param_name] = distribution.to_external_repr(param_value_internal)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Write through."""
        self.write_params()
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        self._known(trial_id).intermediate_values[step] = intermediate_value

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write through."""
        super().set_trial_user_attr(trial_id, key, value)
        self._known(trial_id).user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write through."""
        super().set_trial_system_attr(trial_id, key, value)
        self._known(trial_id).system_attrs[key] = value

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        """Write, and read what came of it."""
        self.write_params()
        if state == TrialState.RUNNING:
            changed = self._claim(trial_id)
        else:
            changed = super().set_trial_state_values(trial_id, state, values)
        if trial_id in self._trial_id_to_study_id_and_number:
            study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
            self._add_trials_to_cache(study_id, [self._backend.get_trial(trial_id)])
        return changed

    def _claim(self, trial_id: int) -> bool:
        """Let a trial be this worker's if it still waits; as Optuna does it, two workers may get it on SQLite."""
        waits = (TrialModel.trial_id == trial_id) & (TrialModel.state == TrialState.WAITING)
        begun = update(TrialModel).where(waits).values(state=TrialState.RUNNING, datetime_start=datetime.now())
        with self._backend.scoped_session() as session, session.begin():
            claimed: int = session.connection().execute(begun).rowcount
        return claimed == 1

    def _add_trials_to_cache(self, study_id: int, trials: list[FrozenTrial]) -> None:
        super()._add_trials_to_cache(study_id, trials)
        self._sorted.pop(study_id, None)

    def _known(self, trial_id: int) -> FrozenTrial:
        study_id, number = self._trial_id_to_study_id_and_number[trial_id]
        return self._studies[study_id].trials[number]

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if study_id not in self._current:
            super()._read_trials_from_remote_storage(study_id)
            self._current.add(study_id)


def open_database(url: str, *, heartbeat_s: int | None = None, create: bool = False) -> WorkerStorage:
    """Connect to the database of studies.

    Args:
        url: ``sqlite:///PATH``, relative to the project's root, or ``postgresql://USER:PASSWORD@HOST/DATABASE``.
        heartbeat_s: seconds between the signs of life that running trials are expected to give; None: no retries.
        create: whether to make the tables where they are missing; any number of processes may at once.

    Raises:
        StudyError: it cannot be reached, read or written, or holds something else.
    """
    with study_errors(url), quiet():
        if url.startswith(_SQLITE):
            path = project_root() / url.removeprefix(_SQLITE)
            with _one_at_a_time(path):
                _check_or_create(path, url, create)
            return _connect(f"{_SQLITE}{path}", heartbeat_s, {"creator": lambda: _connect_sqlite(path)})
        scheme, separator, rest = url.partition("://")
        if scheme in ("postgres", "postgresql"):  # psycopg 3; SQLAlchemy would take its predecessor
            scheme = "postgresql+psycopg"
        if not separator or not scheme.startswith("postgresql+"):
            raise StudyError(masked(url), "is no storage for studies", "give sqlite:///FILE or postgresql://...")
        options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": _CONNECT_S}}
        with _one_creator(f"{scheme}://{rest}", options):
            return _connect(f"{scheme}://{rest}", heartbeat_s, options)


@contextmanager
def study_errors(url: str) -> Iterator[None]:
    """Turn what Optuna and the database raise into one line without the password.

    Raises:
        StudyError: names the database, the cause and the remedy.
    """
    try:
        yield
    except (OptunaError, SQLAlchemyError, sqlite3.Error) as error:
        cause: BaseException = error
        while (inner := getattr(cause, "orig", None) or cause.__cause__) is not None:
            cause = inner
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise StudyError(
            masked(url),
            f"the studies cannot be read or written ({lines[0][:200]})",
            "check that it is reachable, whole and writable, or name another under tune.storage in params.yaml",
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from saying that heartbeats and groups are experimental, and that ask and tell start no heartbeat."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed", UserWarning)
        yield


def _connect(url: str, heartbeat_s: int | None, options: Mapping[str, Any]) -> WorkerStorage:
    alive: dict[str, Any] = {}
    if heartbeat_s is not None:
        retry = RetryHeartbeatStaleTrialCallback(max_retry=_MAX_RETRIES)
        alive = {
            "heartbeat_interval": heartbeat_s,
            "grace_period": _GRACE * heartbeat_s,
            "heartbeat_stale_trial_callback": retry,
        }
    braces = url.replace("{", "{{").replace("}", "}}")  # Optuna formats it
    try:
        return WorkerStorage(RDBStorage(braces, dict(options), **alive))
    except ImportError as error:
        raise StudyError(masked(url), "needs a driver", "run pip install 'deepsky[postgres]'") from error
    except RuntimeError as error:  # tables of another version
        problem = f"does not fit this Optuna ({str(error).splitlines()[0]})"
        raise StudyError(masked(url), problem, "run optuna storage upgrade, or name another storage") from error


def _connect_sqlite(path: Path) -> sqlite3.Connection:
    """Connect so that a commit need not wait for the disk: a power failure may cost the last trials, never the file."""
    # A transaction that is locked from its first statement on never finds that another worker wrote after its read.
    connection = sqlite3.connect(path, timeout=_SQLITE_WAIT_S, check_same_thread=False, isolation_level="IMMEDIATE")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _check_or_create(path: Path, url: str, create: bool) -> None:
    """Make the tables whole or not at all, and fail at once where Optuna would try again and again."""
    if not path.exists() or not path.stat().st_size:
        if not create:
            raise StudyError(masked(url), "does not exist", "run make tune first, or give another --storage")
        with whole_file(path) as fresh:
            _connect(f"{_SQLITE}{fresh}", None, {"creator": lambda: sqlite3.connect(fresh)}).close()
    connection = sqlite3.connect(path, timeout=_SQLITE_WAIT_S, isolation_level=None)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"studies", "trials"} <= tables:
            problem = "is a database of something else"
            raise StudyError(masked(url), problem, "name another under tune.storage in params.yaml")
        if create:
            # The switch syncs under an exclusive lock, which a busy disk may hold for longer than a worker waits: so
            # it happens in here, one worker at a time. It lasts; a file that has switched is only asked.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    finally:
        connection.close()


@contextmanager
def _one_creator(url: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Let one worker of all machines make the tables; the lock goes with the connection, however it ends."""
    engine = create_engine(url, poolclass=NullPool, connect_args=options["connect_args"])
    with engine.connect() as database:
        database.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        yield


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process of this machine in; the lock goes with the process, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
