"""Take datasets, networks and runs out of params.yaml, with all that refers to them."""

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

import click
from ruamel.yaml.comments import CommentedMap

from deepsky.config import PARAMS
from deepsky.errors import ConfigError
from deepsky.experiment import edit
from deepsky.formats.params import datasets_of

DEMO = "demo"
# The datasets that deepsky comes with, and the folder that its stages write their sources to.
_DEMO = {
    "frames": ("sdss",),
    "pictures": ("sdss_jpg", "stsci_jpg", "galaxy_zoo", "galaxy_zoo_classes", "galaxy_zoo1", "galaxy10"),
}
_RAW = ("data", "raw")


def run(names: Sequence[str]) -> None:
    """Drop some names, or the whole ``demo``, and print what was removed.

    Args:
        names: of datasets, frames, runs and networks; everything of a name goes.

    Raises:
        ConfigError: nothing in params.yaml has that name; nothing was removed then.
    """
    document = edit.load()
    before, removed = edit.text_of(document), list[str]()
    for name in names:
        lines = drop_demo(document) if name == DEMO else drop_name(document, name)
        if not lines and name != DEMO:
            known = ", ".join(_known(edit.load())) or "it has none"
            raise ConfigError(f"{PARAMS}: {name}", "is no dataset, run or network there", f"choose of: {known}")
        removed += lines
    if not removed:
        click.echo(f"{PARAMS} has nothing of the {DEMO}")
        return
    edit.save(document)
    for line in removed:
        click.echo(line)
    click.echo(edit.diff(before, edit.text_of(document)))


def drop_name(document: CommentedMap, name: str) -> list[str]:
    """Remove everything of one name.

    Args:
        document: params.yaml, changed in place.
        name: of a dataset, of frames, of a run or of a network.

    Returns:
        What was removed, a line each.
    """
    removed = _remove(document, ("datasets", "pictures", name))
    own = [name]
    if name in _mapping(document, "datasets", "frames"):
        own += datasets_of(name)
    removed += _remove(document, ("datasets", "frames", name)) + _forget(document, "dataset", own)
    removed += _remove(document, ("networks", name)) + _forget(document, "network", [name])
    return _with_search(document, removed + _remove(document, ("runs", name)), own)


def drop_demo(document: CommentedMap) -> list[str]:
    """Remove the datasets that deepsky comes with, and what learns from them; a person's own stay.

    Args:
        document: params.yaml, changed in place.

    Returns:
        What was removed, a line each.
    """
    removed, gone = list[str](), list[str]()
    for kind, place in (("frames", "folder"), ("pictures", "source")):
        entries = _mapping(document, "datasets", kind)
        for name in [name for name in _DEMO[kind] if name in entries and _is_raw(entries[name], place)]:
            removed += _remove(document, ("datasets", kind, name))
            gone += datasets_of(name) if kind == "frames" else [name]
    return _with_search(document, removed + _forget(document, "dataset", gone), gone)


def _forget(document: CommentedMap, key: str, names: Iterable[str]) -> list[str]:
    """Remove what refers to datasets or networks: members of compare, runs, and the default of a search."""
    removed, gone = list[str](), set(names)
    for name in [name for name in _mapping(document, "compare", f"{key}s") if name in gone]:
        removed += _remove(document, ("compare", f"{key}s", name))
    if "compare" in document and removed and not _mapping(document, "compare", f"{key}s"):
        removed += _remove(document, ("compare",))
    runs = _mapping(document, "runs")
    for name in [name for name, run in runs.items() if isinstance(run, dict) and run.get(key) in gone]:
        removed += _remove(document, ("runs", name))
    return removed


def _with_search(document: CommentedMap, removed: list[str], names: Iterable[str]) -> list[str]:
    """Remove also the run that a search takes by default, one under runs or DATASET-NETWORK, if it is gone."""
    searched = str(_mapping(document, "tune").get("run", ""))
    gone = {*names, *(line.rpartition(".")[2] for line in removed)}
    return removed + (_remove(document, ("tune", "run")) if gone & {searched, *searched.split("-")} else [])


def _remove(document: CommentedMap, keys: edit.Keys) -> list[str]:
    if keys[-1] not in _mapping(document, *keys[:-1]):
        return []
    edit.remove(document, keys)
    return [f"removed {'.'.join(keys)}"]


def _mapping(document: CommentedMap, *keys: str) -> dict[str, Any]:
    """Return a section; what is absent or no mapping is empty."""
    section: Any = document
    for key in keys:
        section = section.get(key) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else {}


def _is_raw(entry: Any, key: str) -> bool:
    """Tell whether an entry's source is one that stages write."""
    return isinstance(entry, dict) and PurePath(str(entry.get(key))).parts[:2] == _RAW


def _known(document: CommentedMap) -> list[str]:
    """Name everything that can be dropped."""
    places = (("datasets", "frames"), ("datasets", "pictures"), ("compare", "datasets"), ("compare", "networks"))
    named = [name for keys in (*places, ("networks",), ("runs",)) for name in _mapping(document, *keys)]
    return list(dict.fromkeys(named))
