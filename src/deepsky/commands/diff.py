"""What runs differ in, and what that did to their figures."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click
import pandas as pd

from deepsky.commands.stored import find_stored
from deepsky.errors import ConfigError, TrackingError
from deepsky.intervals import unreliable
from deepsky.tracking.recorded import RecordedRun, differing
from deepsky.tracking.tags import flatten

_NARROW = 4  # runs that have room side by side
_NO_FIGURES = ("system/", "epoch/")  # metrics that are curves or the machine's load


def run(names: Sequence[str], *, as_json: bool) -> None:
    """Print what runs differ in, section by section, and their metrics.

    Args:
        names: of two runs or more, see ``find_stored``.
        as_json: print it for programs.

    Raises:
        ConfigError: fewer than two runs are named.
        DataError: there is no such run.
        TrackingError: the store cannot be used.
    """
    if len(names) < 2:
        raise ConfigError("diff", f"{len(names)} run has nothing to differ from", "name two or more")
    found = [find_stored(name) for name in names]
    sections = differences(found)
    labels = _labels(found)
    if as_json:
        click.echo(json.dumps({"runs": [one.run_id for one in found], **sections}, indent=1))
        return
    for title, rows in sections.items():
        click.secho(title, bold=True)
        shown = (
            _with_intervals(rows) if title == "metrics" else {name: list(map(_text, row)) for name, row in rows.items()}
        )
        click.echo(_table(shown, labels) if rows else "  the same")


def differences(runs: Sequence[RecordedRun]) -> dict[str, dict[str, list[Any]]]:
    """Return the names that differ, each with its value in every run, by ``settings``, ``data``, ``code``, ``stages``,
    ``machine`` and ``metrics``.

    Of metrics all are returned. A run that recorded nothing of its origin has None there.
    """
    origins = [_origin(one) for one in runs]
    code = [{"commit": one.tags.get("deepsky.code"), "fingerprint": of["settings"].get("code")}
            for one, of in zip(runs, origins, strict=True)]  # fmt: skip
    metrics = [{k: v for k, v in one.metrics.items() if not k.startswith(_NO_FIGURES)} for one in runs]
    names = sorted({name for one in metrics for name in one})
    return {
        "settings": differing([one.params for one in runs]),
        "data": differing([one.data for one in runs]),
        "code": differing(code),
        "stages": differing([_of_stages(of["made_by"]) for of in origins]),
        "machine": _machines([of["environment"] for of in origins]),
        "metrics": {name: [one.get(name) for one in metrics] for name in names},
    }


def _origin(one: RecordedRun) -> Mapping[str, Any]:
    try:
        return one.lineage()
    except TrackingError:
        return {"settings": {}, "made_by": {}, "environment": {}}


def _of_stages(made_by: Mapping[str, Any]) -> dict[str, str]:
    """Return what the stages before ran with, by STAGE.KEY."""
    return flatten({stage: one["settings"] for stage, one in made_by.items()})


def _machines(environments: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return in what processor, versions and packages differ; where one is not known, only that."""
    if not all(environments):
        known = [{"recorded": "yes" if one else "no"} for one in environments]
        return differing(known)
    return differing([{"deterministic": False, **one["packages"], **one, "packages": None} for one in environments])


def _labels(runs: Sequence[RecordedRun]) -> list[str]:
    """Return names that tell the runs apart."""
    names = [one.name for one in runs]
    return [f"{one.name} {one.run_id[:6]}" if names.count(one.name) > 1 else one.name for one in runs]


def _with_intervals(metrics: Mapping[str, Sequence[float | None]]) -> dict[str, list[str]]:
    """Write each metric with its interval, where that was logged as NAME_low and NAME_high; of two runs the change."""
    shown, doubts = {}, [""] * len(next(iter(metrics.values()), []))
    for place, n_groups in enumerate(metrics.get("n_test_groups", [])):
        if n_groups is not None and unreliable(n_groups):
            doubts[place] = f", {unreliable(n_groups)}"
    for name, row in metrics.items():
        if name.removesuffix("_low").removesuffix("_high") != name:
            continue
        ends = zip(
            metrics.get(f"{name}_low", [None] * len(row)), metrics.get(f"{name}_high", [None] * len(row)), strict=True
        )
        shown[name] = [
            _text(value) if None in (value, low, high) else f"{_text(value)} ({_text(low)} to {_text(high)}{doubt})"
            for value, (low, high), doubt in zip(row, ends, doubts, strict=True)
        ]
        if len(row) == 2:
            shown[name].append("" if row[0] is None or row[1] is None else f"{row[1] - row[0]:+.4g}")
    return shown


def _table(rows: Mapping[str, Sequence[str]], labels: Sequence[str]) -> str:
    """Write names down the side and runs across; the other way round where there are many runs."""
    columns = [*labels, *(["change"] if any(len(row) > len(labels) for row in rows.values()) else [])]
    table = pd.DataFrame(list(rows.values()), index=list(rows), columns=columns)
    return (table if len(labels) <= _NARROW else table.T).to_string()


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
