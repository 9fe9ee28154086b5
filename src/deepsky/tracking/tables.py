"""Runs read from MLflow's own tables: its client takes seconds to open a database, a run is read in milliseconds.

A test compares what is read here with what the client says.
"""

import math
from typing import Any

from sqlalchemy import Connection, Row, column, create_engine, select, table
from sqlalchemy.pool import NullPool

from deepsky.tracking.recorded import RecordedRun, check_there, recorded
from deepsky.tracking.store import check_active, store_errors

_EXPERIMENTS = table("experiments", *map(column, ("experiment_id", "name", "lifecycle_stage")))
_RUNS = table(
    "runs",
    *map(column, ("run_uuid", "name", "status", "start_time", "artifact_uri", "experiment_id", "lifecycle_stage")),
)
_TAGS, _PARAMS = (table(name, *map(column, ("run_uuid", "key", "value"))) for name in ("tags", "params"))
_METRICS = table("latest_metrics", *map(column, ("run_uuid", "key", "value", "is_nan")))
_INPUTS = table("inputs", *map(column, ("source_type", "source_id", "destination_type", "destination_id", "step")))


def run_in(uri: str, run_id: str) -> RecordedRun | None:
    """Return a run by MLflow's id; None where there is none.

    Raises:
        TrackingError: the database cannot be used, or the run was deleted.
    """
    with store_errors(), create_engine(uri, poolclass=NullPool).connect() as database:
        row = database.execute(select(_RUNS).where(_RUNS.c.run_uuid == run_id)).first()
        found = _recorded(database, row) if row else None
    if row:
        check_there(run_id, row.lifecycle_stage)
    return found


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
    with store_errors(), create_engine(uri, poolclass=NullPool).connect() as database:
        there = database.execute(of_experiment).first()
    if there is None:
        return []
    check_active(experiment, there.experiment_id, there.lifecycle_stage)
    wanted = select(_RUNS).where(_RUNS.c.experiment_id == there.experiment_id, _RUNS.c.lifecycle_stage == "active")
    if tag is not None:
        tagged = select(_TAGS.c.run_uuid).where(_TAGS.c.key == tag[0], _TAGS.c.value == tag[1])
        wanted = wanted.where(_RUNS.c.status == "FINISHED", _RUNS.c.run_uuid.in_(tagged))
    ordered = wanted.order_by(_RUNS.c.start_time.desc(), _RUNS.c.run_uuid).limit(limit)
    with store_errors(), create_engine(uri, poolclass=NullPool).connect() as database:
        return [_recorded(database, row) for row in database.execute(ordered).all()]


def _recorded(database: Connection, row: Row[Any]) -> RecordedRun:
    tags, params = (
        {one.key: one.value for one in database.execute(select(kind).where(kind.c.run_uuid == row.run_uuid))}
        for kind in (_TAGS, _PARAMS)
    )
    metrics = database.execute(select(_METRICS).where(_METRICS.c.run_uuid == row.run_uuid))
    models = select(_INPUTS.c.destination_id).where(
        _INPUTS.c.source_type == "RUN_OUTPUT",
        _INPUTS.c.source_id == row.run_uuid,
        _INPUTS.c.destination_type == "MODEL_OUTPUT",
    )
    return recorded(
        row.run_uuid,
        row.name,
        row.status,
        row.start_time,
        tags,
        params,
        {one.key: math.nan if one.is_nan else one.value for one in metrics},
        row.artifact_uri,
        database.scalars(models).all(),
    )
