"""The one writer of params.yaml: comments and layout stay, and what is added looks like the rest of the file."""

import difflib
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark
from ruamel.yaml.nodes import MappingNode, ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString
from ruamel.yaml.tokens import CommentToken

from deepsky.config import PARAMS
from deepsky.errors import ConfigError
from deepsky.files import whole_file

Keys = tuple[str, ...]  # where something stands, from the file's root


def load(path: Path = PARAMS) -> CommentedMap:
    """Read params.yaml to change it.

    Raises:
        ConfigError: it cannot be read, or is no YAML mapping.
    """
    try:
        document = _yaml().load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(path, f"cannot be read ({error.strerror})", "run from the project's root") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"is not valid YAML: {error}", "mend that line") from error
    if document is None:
        return CommentedMap()
    if not isinstance(document, CommentedMap):
        raise ConfigError(path, "is not a mapping", "write it as section: lines")
    return document


def save(document: CommentedMap, path: Path = PARAMS) -> None:
    """Write params.yaml, whole or not at all; the file's own line ends stay."""
    ends = "\r\n" if path.exists() and b"\r\n" in path.read_bytes() else "\n"
    with whole_file(path) as temporary:
        temporary.write_text(text_of(document), encoding="utf-8", newline=ends)


def text_of(document: CommentedMap) -> str:
    """Return the text that ``save`` writes."""
    out = StringIO()
    _yaml().dump(document, out)
    return out.getvalue().rstrip("\n") + "\n" if document else ""


def diff(before: str, after: str) -> str:
    """Return what changed in params.yaml, as a unified diff."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, new, fromfile=str(PARAMS), tofile=str(PARAMS)))


def set_entry(document: CommentedMap, keys: Keys, entry: Any) -> None:
    """Add or replace one entry; a mapping gets a line for each of its keys, what is inside of them stands in one line.

    Args:
        document: params.yaml.
        keys: where, for example ``("runs", "mine")``; sections that are absent are made.
        entry: a mapping or a scalar, of mappings, lists, tuples and scalars.

    Raises:
        ConfigError: a section on the way is no mapping.
    """
    section = _section(document, keys[:-1])
    if section.fa.flow_style():
        section.fa.set_block_style()
    if keys[-1] in section:
        tail = _take_tail(section, keys[-1])
        section[keys[-1]] = _block(entry)
        _give_tail(section, keys[-1], tail)
    else:
        _append(document, keys, _block(entry))


def add_member(document: CommentedMap, keys: Keys, name: str) -> None:
    """Add a name to a set, ``{a, b}``; one that has it stays as it is.

    Args:
        document: params.yaml.
        keys: of the set, for example ``("compare", "datasets")``; what is absent of them is made.
        name: the member.

    Raises:
        ConfigError: what stands there is no set or mapping.
    """
    section = _section(document, keys[:-1])
    if section.get(keys[-1]) is None:
        members = CommentedMap()
        members.fa.set_flow_style()
        if keys[-1] in section:
            section[keys[-1]] = members
        else:
            _append(document, keys, members)
    members = _section(document, keys)
    if name in members:
        return
    if members.fa.flow_style():
        members[name] = None
    else:
        _append(document, (*keys, name), None)


def remove(document: CommentedMap, keys: Keys) -> None:
    """Remove what stands at ``keys``, and every section that it leaves empty; comments of what follows stay.

    Args:
        document: params.yaml.
        keys: of an entry, a member of a set, or a section; nothing there is nothing to do.
    """
    section = document
    for key in keys[:-1]:
        if not isinstance(section.get(key), CommentedMap):
            return
        section = section[key]
    if keys[-1] not in section:
        return
    if len(section) == 1 and len(keys) > 1:
        remove(document, keys[:-1])
        return
    tail = "" if section.fa.flow_style() else _take_tail(section, keys[-1])
    names = list(section)
    place = names.index(keys[-1])
    del section[keys[-1]]
    section.ca.items.pop(keys[-1], None)
    if place:
        owner, name = _leaf(section, names[place - 1])
        _write_after(owner, name, _joined(_cut_after(owner, name), tail))
    else:
        _write_below(document, keys[:-1], tail)


def _section(document: CommentedMap, keys: Keys) -> CommentedMap:
    """Return the mapping at ``keys``; make what is absent of it."""
    section = document
    for place, key in enumerate(keys, start=1):
        if section.get(key) is None:
            if key in section:
                section[key] = CommentedMap()
            else:
                _append(document, keys[:place], CommentedMap())
        section = section[key]
        if not isinstance(section, CommentedMap):
            where = f"{PARAMS}: {'.'.join(keys[:place])}"
            raise ConfigError(where, f"{section!r} is not a mapping", "write it as key: value lines")
    return section


def _append(document: CommentedMap, keys: Keys, value: Any) -> None:
    """Add a key at the end of its section, before the blank lines and comments that follow the section."""
    section = above = document
    for key in keys[:-1]:
        above, section = section, section[key]
    last = next(reversed(section), None)
    if last is not None:
        tail = "" if section.fa.flow_style() else _take_tail(section, last)
    else:
        tail = _cut_after(above, keys[-2]) if len(keys) > 1 else ""
    if last is not None and len(keys) == 1:  # a new section stands apart
        _give_tail(section, last, "\n")
    section[keys[-1]] = value
    _give_tail(section, keys[-1], tail)


def _leaf(section: CommentedMap, key: str) -> tuple[CommentedMap, str]:
    """Find what stands on the last line of ``section[key]``: what follows that line is its comment, to ruamel."""
    value = section[key]
    while isinstance(value, CommentedMap) and value and not value.fa.flow_style():
        section, key = value, next(reversed(value))
        value = section[key]
    return section, key


def _take_tail(section: CommentedMap, key: str) -> str:
    """Cut off the blank lines and comments that follow an entry's last line, and return them."""
    return _cut_after(*_leaf(section, key))


def _give_tail(section: CommentedMap, key: str, tail: str) -> None:
    """Put blank lines and comments after an entry's last line."""
    _write_after(*_leaf(section, key), tail)


def _cut_after(owner: CommentedMap, key: str) -> str:
    """Cut off what follows the line of a key, and return it; a comment on that line stays."""
    slots = owner.ca.items.get(key)
    token = slots[2] if slots else None
    if token is None:
        return ""
    own, end, tail = token.value.partition("\n")
    token.value = own + end
    return str(tail)


def _write_after(owner: CommentedMap, key: str, tail: str) -> None:
    """Put blank lines and comments after the line of a key."""
    if not tail:
        return
    slots = owner.ca.items.setdefault(key, [None, None, None, None])
    if slots[2] is None:
        slots[2] = CommentToken("\n", CommentMark(0))
    slots[2].value += tail


def _write_below(document: CommentedMap, keys: Keys, tail: str) -> None:
    """Put comments below the line that opens a section, or at the file's beginning."""
    if not tail.strip():
        return
    if keys:
        owner = document
        for key in keys[:-1]:
            owner = owner[key]
        _write_after(owner, keys[-1], tail)
    else:
        document.ca.comment = document.ca.comment or [None, []]
        document.ca.comment[1].append(CommentToken(tail, CommentMark(0)))


def _joined(first: str, second: str) -> str:
    """Join two tails; where both have a blank line, one is enough."""
    is_blank = first == "\n" or first.endswith("\n\n")
    return first + (second.removeprefix("\n") if is_blank else second)


def _block(value: Any) -> Any:
    """Write the keys of a mapping one a line."""
    if not isinstance(value, Mapping):
        return _flow(value)
    return CommentedMap({key: _flow(item) for key, item in value.items()})


def _flow(value: Any) -> Any:
    """Write lists and mappings in one line."""
    if isinstance(value, Mapping):
        flowing: Any = CommentedMap({key: _quoted(_flow(item)) for key, item in value.items()})
    elif isinstance(value, list | tuple):
        flowing = CommentedSeq([_quoted(_flow(item)) for item in value])
    else:
        return value
    flowing.fa.set_flow_style()
    return flowing


def _quoted(value: Any) -> Any:
    """Quote a word that libyaml, by which DVC reads, takes for a key within a line."""
    return DoubleQuotedScalarString(value) if isinstance(value, str) and ":" in value else value


def _yaml() -> YAML:
    yaml = YAML()
    yaml.Representer, yaml.width, yaml.preserve_quotes = _Plain, 4096, True
    return yaml


class _Plain(RoundTripRepresenter):
    """Writes what every YAML reader takes for a number or for nothing, and sets as ``{a, b}``."""

    def represent_float(self, data: float) -> ScalarNode:
        """Write every digit, and 1.0e-05 for 1e-05, which YAML 1.1 takes for a word."""
        text = repr(data)
        text = text if "." in text else text.replace("e", ".0e", 1)
        return self.represent_scalar("tag:yaml.org,2002:float", text)

    def represent_none(self, data: None) -> ScalarNode:
        """Write null instead of nothing at all."""
        return self.represent_scalar("tag:yaml.org,2002:null", "null")

    def represent_mapping(self, tag: Any, mapping: Any, flow_style: Any = None) -> MappingNode:
        """Write a mapping in one line without any values as a set."""
        node = super().represent_mapping(tag, mapping, flow_style=flow_style)
        values = [value for _, value in node.value]
        if node.flow_style and all(str(value.tag) == "tag:yaml.org,2002:null" for value in values):
            for value in values:
                value.value, value.style = "", "-"  # by which the emitter leaves the colon out
        return node


_Plain.add_representer(float, _Plain.represent_float)
_Plain.add_representer(type(None), _Plain.represent_none)
