"""Where a run came from: code, settings, data, raw files; and what became of one object."""

import gc
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from deepsky.commands.stored import find_stored
from deepsky.commands.traced import RawFiles, Traced
from deepsky.tracking.cached import Cache
from deepsky.tracking.lineage import workspace_root
from deepsky.tracking.recorded import RecordedRun

_FEW = 5


@contextmanager
def _without_collection() -> Iterator[None]:
    """Search for no cycles: among modules, and tables of which every line stays, that took a sixth of the command."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@_without_collection()
def run(name: str, object_id: str | None, *, as_json: bool) -> None:
    """Print what a run came from, as it was recorded when the run was made.

    Args:
        name: see ``find_stored``.
        object_id: of an object that is to be followed through every stage, into a strip of pictures.
        as_json: print all of it, every raw file and object too, for programs.

    Raises:
        DataError: there is no such run or object.
        TrackingError: the store cannot be used, or the run recorded nothing.
    """
    stored = find_stored(name)
    recorded, root = stored.lineage(), workspace_root(Path.cwd()) or Path.cwd()
    traced = Traced(stored.params.get("dataset", ""), recorded, Cache(root))
    if object_id is not None:
        from deepsky.commands import followed  # pictures are slow to import

        followed.run(object_id, traced, root)
        return
    if as_json:
        click.echo(json.dumps(_as_json(stored, recorded, traced), indent=1))
        return
    for title, line in _lines(stored, recorded, traced):
        click.echo(f"{click.style(f'{title:10}', bold=True)}{line}")


def _as_json(stored: RecordedRun, recorded: Mapping[str, Any], traced: Traced) -> dict[str, Any]:
    about = {"id": stored.run_id, "name": stored.name, "status": stored.status, "started": stored.started.isoformat()}
    return {
        "run": about,
        **recorded,
        "params": dict(stored.params),
        "metrics": dict(stored.metrics),
        "weights": {name: stored.hidden(f"weights_{name}") for name in ("source", "sha256")},
        "outputs": {name: stored.hidden(name) for name in ("key", "model")},
        "raw": traced.as_json(),
    }


def _lines(stored: RecordedRun, recorded: Mapping[str, Any], traced: Traced) -> Iterator[tuple[str, str]]:
    by = f"{stored.tags.get('mlflow.user', '?')} on {stored.hidden('host') or '?'}"
    yield "run", f"{stored.name} {stored.run_id}, {stored.status.lower()}, {stored.started:%Y-%m-%d %H:%M} UTC, by {by}"
    yield "", " ".join(recorded["command"]) or "(its files came from the DVC cache)"
    code = recorded["code"]
    if code["commit"]:
        patched = " and lineage/patch.diff of its artifacts" if code["is_dirty"] else ", nothing changed"
        yield "code", f"commit {code['commit']}{patched}"
    else:
        yield "code", f"no commit can be told: {code['why']}"
    yield "", f"fingerprint {recorded['settings'].get('code', '?')}"
    yield "settings", _listed(stored.params.items())
    yield "seeds", _listed(_seeds(stored.params, recorded["made_by"]))
    weights = (stored.params.get("weights", "?"), stored.hidden("weights_source"), stored.hidden("weights_sha256"))
    yield "weights", " ".join(filter(None, weights))
    yield "machine", _machine(recorded["environment"])
    yield "outputs", f"model.h5 {stored.hidden('model') or '?'}"
    yield "", f"run.json and predictions.csv {stored.hidden('key') or '?'}"
    for number, (stage, entry) in enumerate(recorded["made_by"].items()):
        made = ", ".join(f"{path} {digest[:12]}" for path, digest in entry["outs"].items())
        yield "stages" if not number else "", f"{stage} (code {entry['settings'].get('code', '?')}): {made}"
    for number, raw in enumerate(traced.raw):
        yield from _raw_lines(raw, "raw files" if not number else "")


def _raw_lines(raw: RawFiles, title: str) -> Iterator[tuple[str, str]]:
    total = f", {sum(one.bytes or 0 for one in raw.files) / 1e6:.1f} MB" if any(one.bytes for one in raw.files) else ""
    yield title, f"{raw.path} {raw.digest}: {raw.problem or f'{len(raw.files)} files{total}'}"
    for one in raw.files[:_FEW]:
        parts = ", ".join(f"{count} {split}" for split, count in one.counts().items())
        yield "", f"  {one.path} {one.digest} {one.url}{f': objects {parts}' if parts else ''}"
    if len(raw.files) > _FEW:
        yield "", f"  ... and {len(raw.files) - _FEW} more: --json"


def _seeds(params: Mapping[str, str], made_by: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if "seed" in params:
        yield "train", params["seed"]
    for stage, entry in made_by.items():
        if "seed" in entry["settings"]:
            yield stage, entry["settings"]["seed"]


def _machine(found: Mapping[str, Any]) -> str:
    if not found:
        return "not known: the files came from the DVC cache"
    names = ("keras", "tensorflow", "jax", "numpy", "deepsky")
    versions = [f"{name} {found['packages'][name]}" for name in names if name in found["packages"]]
    devices = ", ".join(found.get("devices", ()))
    place = f"{found['processor']}, {found['n_processors']} processors{f', {devices}' if devices else ''}"
    cards = f"; {found['driver']}" if found["driver"] else ""
    return f"{place}{cards}; python {found['python']}, backend {found.get('backend', '?')}, {', '.join(versions)}"


def _listed(items: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in items)
