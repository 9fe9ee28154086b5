"""Runs read from MLflow's own tables: its client takes seconds to open a database, a run is read in milliseconds.

A test compares what is read here with what the client says.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, column, inspect, select, table

from deepsky.tracking.recorded import RecordedRun, check_there, in_utc, own_name
from deepsky.tracking.store import check_active, engine_of, store_errors

_EXPERIMENTS = table("experiments", *map(column, ("experiment_id", "name", "lifecycle_stage")))
_RUNS = table(
    "runs",
    *map(column, ("run_uuid", "name", "status", "start_time", "artifact_uri", "experiment_id", "lifecycle_stage")),
)
_TAGS, _PARAMS = (table(name, *map(column, ("run_uuid", "key", "value"))) for name in ("tags", "params"))
_METRICS = table("latest_metrics", *map(column, ("run_uuid", "key", "value", "is_nan")))
_INPUTS = table("inputs", *map(column, ("source_type", "source_id", "destination_type", "destination_id")))
_MODELS = select(_INPUTS.c.source_id.label("run_uuid"), _INPUTS.c.destination_id).where(
    _INPUTS.c.source_type == "RUN_OUTPUT", _INPUTS.c.destination_type == "MODEL_OUTPUT"
)
_RUNS_PER_STATEMENT = 500  # SQLite takes 999 variables where it is old


def run_in(uri: str, run_id: str) -> RecordedRun | None:
    """Return a run by MLflow's id; None where there is none.

    Raises:
        TrackingError: the database cannot be used, or the run was deleted.
    """
    of_id = select(_RUNS).where(_RUNS.c.run_uuid == run_id)
    with _opened(uri) as database:
        if database is None or (row := database.execute(of_id).first()) is None:
            return None
        check_there(run_id, row.lifecycle_stage)
        return next(_recorded(database, [row]))


def runs_in(
    uri: str, experiment: str, tag: tuple[str, str] | None = None, *, limit: int | None = None
) -> list[RecordedRun]:
    """Return runs of an experiment, the newest first.

    Args:
        uri: of the database.
        experiment: its name.
        tag: name and value of a tag of the runs, which have finished; None: every run.
        limit: at most so many.

    Raises:
        TrackingError: the database cannot be used, or the experiment is deleted.
    """
    of_experiment = select(_EXPERIMENTS).where(_EXPERIMENTS.c.name == experiment)
    with _opened(uri) as database:
        if database is None or (there := database.execute(of_experiment).first()) is None:
            return []
        check_active(experiment, there.experiment_id, there.lifecycle_stage)
        wanted = select(_RUNS).where(_RUNS.c.experiment_id == there.experiment_id, _RUNS.c.lifecycle_stage == "active")
        if tag is not None:
            tagged = select(_TAGS.c.run_uuid).where(_TAGS.c.key == tag[0], _TAGS.c.value == tag[1])
            wanted = wanted.where(_RUNS.c.status == "FINISHED", _RUNS.c.run_uuid.in_(tagged))
        ordered = wanted.order_by(_RUNS.c.start_time.desc(), _RUNS.c.run_uuid).limit(limit)
        return list(_recorded(database, database.execute(ordered).all()))


@contextmanager
def _opened(uri: str) -> Iterator[Connection | None]:
    """Connect to a database; None where MLflow never was: it makes its tables when something is written."""
    with store_errors(), engine_of(uri).connect() as database:
        yield database if inspect(database).has_table(_EXPERIMENTS.name) else None


def _recorded(database: Connection, rows: Sequence[Row[Any]]) -> Iterator[RecordedRun]:
    for first in range(0, len(rows), _RUNS_PER_STATEMENT):
        some = rows[first : first + _RUNS_PER_STATEMENT]
        ids = [row.run_uuid for row in some]
        tags, params, metrics = (
            _by_run(database, select(kind), kind.c.run_uuid, ids) for kind in (_TAGS, _PARAMS, _METRICS)
        )
        models = _by_run(database, _MODELS, _INPUTS.c.source_id, ids)
        for row in some:
            of_run = row.run_uuid
            own_tags = {one.key: one.value for one in tags[of_run]}
            yield RecordedRun(
                run_id=of_run,
                name=own_name(own_tags, row.name),
                status=row.status,
                started=in_utc(row.start_time),
                params={one.key: one.value for one in params[of_run]},
                metrics={one.key: math.nan if one.is_nan else one.value for one in metrics[of_run]},
                tags=own_tags,
                artifact_uri=row.artifact_uri,
                model_ids=tuple(one.destination_id for one in models[of_run]),
            )


def _by_run(
    database: Connection, wanted: Select[Any], run_id: ColumnElement[str], ids: Sequence[str]
) -> Mapping[str, Sequence[Row[Any]]]:
    found = defaultdict[str, list[Row[Any]]](list)
    for one in database.execute(wanted.where(run_id.in_(ids))):
        found[one.run_uuid].append(one)
    return found
