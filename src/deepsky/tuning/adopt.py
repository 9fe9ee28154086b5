"""Section ``tuned`` of params.yaml: read with checks, and changed without touching any other line."""

import difflib
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from deepsky.config import PARAMS, build, read_entries
from deepsky.errors import ConfigError
from deepsky.tuning.adopted import Adopted

# Part of section tuned -> the section that names its networks.
NETWORKS_OF = {"heads": "backbones", "scratch": "scratch"}


def read_adopted(path: Path = PARAMS) -> Iterator[Adopted]:
    """Give the head of every entry.

    Raises:
        ConfigError: an entry lacks a key, stands under another one's, or is about a dataset or network that
            params.yaml does not have.
    """
    known = {field.name for field in fields(Adopted)}
    for part, networks in NETWORKS_OF.items():
        for key, entry in read_entries(f"tuned.{part}", path).items():
            where = f"{path}: tuned.{part}.{key}"
            own = {name: entry[name] for name in known & set(entry)} if isinstance(entry, dict) else entry
            adopted: Adopted = build(own, Adopted, where)
            if adopted.key != key:
                problem = f"is about {adopted.dataset} x {adopted.network}"
                raise ConfigError(where, problem, f"name it {adopted.key}, or adopt the study again")
            for section, name in (("datasets", adopted.dataset), (networks, adopted.network)):
                if name not in read_entries(section, path):
                    raise ConfigError(where, f"{section} has no {name!r}", "put it back, or delete the entry")
            yield adopted


def adopt(text: str, part: str, key: str, entry: Mapping[str, Any]) -> str:
    """Return params.yaml with one entry added or replaced; every other byte stays.

    Args:
        text: params.yaml.
        part: ``heads`` or ``scratch``.
        key: of the entry.
        entry: its values: mappings, lists and scalars.

    Raises:
        ConfigError: section ``tuned`` is missing, or is written so that no entry can be placed in it.
    """
    where = f"{PARAMS}: tuned.{part}"
    _, tuned = _pair(YAML().compose(text), "tuned", str(PARAMS))
    name, entries = _pair(tuned, part, f"{PARAMS}: tuned")
    in_block = isinstance(tuned, MappingNode) and not tuned.flow_style
    if not (in_block and isinstance(entries, MappingNode)) or (entries.flow_style and entries.value):
        raise ConfigError(where, "is not an indented mapping", "write each entry on lines of its own")
    if YAML(typ="safe").load(text)["tuned"][part].get(key) == entry:
        return text
    if not entries.value:  # {} makes room for the first entry
        text = f"{text[: name.end_mark.index]}:{text[entries.end_mark.index :]}"
        return _spliced(text, name.start_mark.column + 2, {key: entry}, after=name)
    indent = entries.value[0][0].start_mark.column
    replaced = next((pair for pair in entries.value if pair[0].value == key), None)
    if replaced is None:
        return _spliced(text, indent, {key: entry}, after=entries)
    return _spliced(text, indent, {key: entry}, after=replaced[1], instead_of=replaced[0])


def diff(before: str, after: str) -> str:
    """Return what changed in params.yaml, as a unified diff."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, new, fromfile=str(PARAMS), tofile=str(PARAMS)))


def _pair(node: Node | None, key: str, where: str) -> tuple[Node, Node]:
    """Return a mapping's key and value as they stand in the text."""
    for name, value in node.value if isinstance(node, MappingNode) else ():
        if name.value == key:
            return name, value
    raise ConfigError(where, f"{key!r} is missing", "write tuned with heads: {} and scratch: {} below it")


def _spliced(text: str, indent: int, entry: Mapping[str, Any], *, after: Node, instead_of: Node | None = None) -> str:
    """Put an entry on the lines after a node, or on those that reach from ``instead_of`` to it."""
    end = text.find("\n", _last_mark(after)) + 1 or len(text)
    start = end if instead_of is None else instead_of.start_mark.index - instead_of.start_mark.column
    before = text[:start] if text[:start].endswith("\n") else f"{text[:start]}\n"
    return before + textwrap.indent(_written(entry), " " * indent) + text[end:]


def _last_mark(node: Node) -> int:
    """Return where the last value of a node ends; a block's own mark stands after the comments that follow it."""
    if isinstance(node, CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _last_mark(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _written(entry: Mapping[str, Any]) -> str:
    """Write an entry as the rest of params.yaml is written: lists in one line, null as a word."""
    yaml, out = YAML(), StringIO()
    yaml.Representer, yaml.width = _Plain, 4096
    yaml.dump(_blocks(entry), out)
    return out.getvalue()


def _blocks(value: Any) -> Any:
    if isinstance(value, Mapping):
        return CommentedMap({name: _blocks(item) for name, item in value.items()})
    if isinstance(value, list):
        flowing = CommentedSeq(value)
        flowing.fa.set_flow_style()
        return flowing
    return value


class _Plain(RoundTripRepresenter):
    """Writes what every YAML reader takes for a number or for nothing."""

    def represent_float(self, data: float) -> ScalarNode:
        """Write every digit, and 1.0e-05 for 1e-05, which YAML 1.1 takes for a word."""
        text = repr(data)
        text = text if "." in text else text.replace("e", ".0e", 1)
        return self.represent_scalar("tag:yaml.org,2002:float", text)

    def represent_none(self, data: None) -> ScalarNode:
        """Write null instead of nothing at all."""
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Plain.add_representer(float, _Plain.represent_float)
_Plain.add_representer(type(None), _Plain.represent_none)
