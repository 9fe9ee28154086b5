"""YAML -> frozen dataclasses, refusing whatever does not fit exactly; all that is wrong is told at once."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.events import AliasEvent

from deepsky.errors import ConfigError, ConfigErrors

PARAMS = Path("params.yaml")
_WORDS = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


def read_yaml(path: Path = PARAMS) -> dict[str, Any]:
    """Return a YAML file's mapping as plain dicts, lists and scalars; an empty file is an empty mapping.

    Raises:
        ConfigError: the file cannot be read or parsed, or has a key twice.
    """
    try:
        value = YAML(typ="safe").load(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise ConfigError(path, f"cannot be read ({reason})", "run from the project's root") from error
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        key = str(error.problem).partition("duplicate key ")[2].partition(" with")[0].strip("'\"")
        raise ConfigError(
            f"{path}, line {line}", f"{key!r} stands there twice", "give each a name of its own"
        ) from error
    except YAMLError as error:
        raise ConfigError(path, f"is not valid YAML: {error}", "mend that line") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(path, "is not a mapping", "write it as section: lines")
    return value


def refuse_aliases(path: Path) -> None:
    """Refuse anchors' aliases: ``dvc exp run -S`` would change one of the places that share a value, and say nothing.

    Raises:
        ConfigError: names the first one's line.
    """
    for event in YAML().parse(path.read_text(encoding="utf-8")):
        if isinstance(event, AliasEvent):
            where = f"{path}, line {event.start_mark.line + 1}"
            problem = f"alias *{event.anchor} shares a value, which dvc exp run -S would change in one place only"
            remedy = "write the value out, or put it under train, from which all runs inherit"
            raise ConfigError(where, problem, remedy)


class Problems:
    """Collects what is wrong, to tell all of it at once."""

    def __init__(self) -> None:
        """Nothing is wrong yet."""
        self.errors: list[ConfigError] = []

    def add(self, where: str, problem: str, remedy: str) -> None:
        """Note one."""
        self._note([ConfigError(where, problem, remedy)])

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Note the errors that the block raises, and go on behind it."""
        try:
            yield
        except ConfigErrors as error:
            self._note(error.errors)
        except ConfigError as error:
            self._note([error])

    def _note(self, errors: Sequence[ConfigError]) -> None:
        """Keep those that are not there yet: what many runs inherit is wrong once."""
        known = set(map(str, self.errors))
        self.errors += [error for error in errors if str(error) not in known]

    def stop(self) -> None:
        """Raise all that was noted, if anything was.

        Raises:
            ConfigErrors: with a line each.
        """
        if self.errors:
            raise ConfigErrors(self.errors)


def check_name(name: object, where: str, problems: Problems) -> None:
    """Note a name with anything but letters, digits and ``_``: names reach shell commands and paths."""
    if not (isinstance(name, str) and name.isascii() and name.replace("_", "a").isalnum()):
        problems.add(where, f"{name!r} is no name", "use letters, digits and _")


def build(value: Any, kind: Any, where: str) -> Any:
    """Convert a parsed YAML value to ``kind``, refusing whatever does not fit exactly.

    Args:
        value: dicts, lists and scalars.
        kind: a frozen dataclass or the type of one of its fields; lists become tuples.
        where: names the value in errors.

    Raises:
        ConfigError: keys unknown, missing or of the wrong type, or refused by the dataclass itself; all of them.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _build_dataclass(value, kind, where)
    if origin is Literal:
        if not _is_one_of(value, arguments):
            raise ConfigError(where, f"{value!r} is unknown", f"choose one of: {', '.join(map(str, arguments))}")
        return value
    if origin in (Union, UnionType):
        return _build_one_of(value, arguments, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(where, f"{value!r} is not a list", "write it as [a, b, c]")
        return tuple(_build_all([(item, arguments[0], where) for item in value]))
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise ConfigError(where, f"{value!r} is not a mapping", "write it as key: value lines")
        made = _build_all([(item, arguments[1], f"{where}.{key}") for key, item in value.items()])
        return dict(zip(map(str, value), made, strict=True))
    return _build_scalar(value, kind, where)


def _build_scalar(value: Any, kind: Any, where: str) -> Any:
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 1e300 else math.inf
    if type(value) is not kind:
        raise ConfigError(where, f"{value!r} is not {_WORDS.get(kind, kind.__name__)}", "correct the value")
    if kind is float and not math.isfinite(value):
        raise ConfigError(where, f"{value} is not finite", "give a finite number")
    return value


def _build_all(parts: Sequence[tuple[Any, Any, str]]) -> list[Any]:
    """Build every (value, kind, where); if some fail, all their errors are told."""
    problems, made = Problems(), []
    for value, kind, where in parts:
        with problems.kept():
            made.append(build(value, kind, where))
    problems.stop()
    return made


def _build_one_of(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    """Build the member of a union whose form the value has: null, a mapping, a list, a number or one of its words."""
    if value is None and NoneType in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not NoneType)
    fitting = [kind for kind in kinds if _has_form(value, kind)] or kinds
    if len(fitting) > 1:
        raise ConfigError(where, f"{value!r} does not fit", f"write {' or '.join(map(_form, kinds))}")
    return build(value, fitting[0], where)


def _has_form(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return _is_one_of(value, get_args(kind))
    if is_dataclass(kind) or get_origin(kind) in (dict, Mapping):
        return isinstance(value, dict)
    if get_origin(kind) is tuple:
        return isinstance(value, list)
    return type(value) is kind or (kind is float and type(value) is int)


def _is_one_of(value: Any, words: tuple[Any, ...]) -> bool:
    return any(value == word and type(value) is type(word) for word in words)  # True == 1, but is no number


def _form(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if is_dataclass(kind):
        return "{" + ", ".join(f"{field.name}: ..." for field in fields(kind)) + "}"
    words = {tuple: "a list [a, b]", dict: "a mapping", **_WORDS}
    return words.get(get_origin(kind) or kind, f"a value of type {kind.__name__}")


def _build_dataclass(value: Any, kind: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(where, f"{value!r} is not a mapping", "write it as key: value lines")
    hints, known, problems = get_type_hints(kind), {field.name: field for field in fields(kind)}, Problems()
    built = {}
    for key, item in value.items():
        if key not in known:
            problems.add(where, f"{key!r} is unknown", f"known keys: {', '.join(known)}")
            continue
        with problems.kept():
            built[key] = build(item, hints[key], f"{where}.{key}")
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            problems.add(where, f"{name!r} is missing", "add it")
    problems.stop()
    try:
        return kind(**built)
    except ValueError as error:  # a dataclass' own __post_init__ check; an argument for each thing that is wrong
        raise ConfigErrors([ConfigError(where, str(one), "correct the value") for one in error.args]) from error
