"""One params.yaml section -> one frozen dataclass. The dataclass lives beside the code that it configures."""

from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ruamel.yaml import YAML, YAMLError

from deepsky.errors import ConfigError

PARAMS = Path("params.yaml")
SECTIONS = (
    "on_bad_file", "catalogue", "archive", "download", "frames", "images", "datasets", "split",
    "weights", "backbones", "features", "train", "scratch", "simulate", "collections", "recipes",
    "tune", "tuned", "tracking",
)  # fmt: skip
WAYS = ("frozen", "fine_tune", "from_scratch")  # of section recipes
T = TypeVar("T")


def read_section(section: str, kind: type[T], path: Path = PARAMS) -> T:
    """Read one section of params.yaml into its dataclass.

    Args:
        section: dotted path of the section, for example ``frames.sdss``; empty for the whole file.
        kind: the frozen dataclass that describes it; lists become tuples.
        path: the YAML file.

    Raises:
        ConfigError: file or section missing, a key unknown, missing or of the wrong type.
    """
    return build(read_yaml(section, path), kind, f"{path}: {section}")


def read_choice(section: str, choices: tuple[str, ...], path: Path = PARAMS) -> str:
    """Read one word of params.yaml that must be one of ``choices``.

    Raises:
        ConfigError: the key is missing or its value unknown.
    """
    value = read_yaml(section, path)
    if value not in choices:
        raise ConfigError(f"{path}: {section}", f"{value!r} is unknown", f"choose one of: {', '.join(choices)}")
    return str(value)


def read_yaml(section: str = "", path: Path = PARAMS) -> Any:
    """Return one section of params.yaml as plain dicts, lists and scalars.

    Raises:
        ConfigError: the file cannot be read or parsed, or has no such section.
    """
    try:
        value = YAML(typ="safe").load(path)
    except OSError as error:
        raise ConfigError(path, f"cannot be read ({error.strerror})", "run from the project's root") from error
    except YAMLError as error:
        raise ConfigError(path, f"is not valid YAML: {error}", "mend that line") from error
    for key in value if isinstance(value, dict) else ():
        if key not in SECTIONS:
            raise ConfigError(path, f"{key!r} is unknown", f"known keys: {', '.join(SECTIONS)}")
    for key in filter(None, section.split(".")):
        if not isinstance(value, dict) or key not in value:
            known = ", ".join(value) if isinstance(value, dict) else "nothing"
            raise ConfigError(f"{path}: {section}", f"{key!r} is missing", f"choose one of: {known}")
        value = value[key]
    return value


def read_entries(section: str, path: Path = PARAMS) -> dict[str, Any]:
    """Return a section whose keys are names that the user chooses.

    Raises:
        ConfigError: the section is missing or no mapping.
    """
    value = read_yaml(section, path)
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {section}", f"{value!r} is not a mapping", "write {} where there is no entry")
    return value


def read_recipes(path: Path = PARAMS) -> dict[str, dict[str, Any]]:
    """Return section ``recipes`` as it is written, way -> name -> entry.

    Raises:
        ConfigError: a way is missing, unknown or no mapping.
    """
    for way in read_entries("recipes", path):
        if way not in WAYS:
            raise ConfigError(f"{path}: recipes", f"{way!r} is unknown", f"known ways: {', '.join(WAYS)}")
    return {way: read_entries(f"recipes.{way}", path) for way in WAYS}


def build(value: Any, kind: Any, where: str) -> Any:
    """Convert a parsed YAML value to ``kind``, refusing whatever does not fit exactly.

    Args:
        value: dicts, lists and scalars.
        kind: a frozen dataclass or the type of one of its fields.
        where: names the value in errors.

    Raises:
        ConfigError: a key unknown, missing or of the wrong type, or refused by the dataclass itself.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _build_dataclass(value, kind, where)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(where, f"{value!r} is unknown", f"choose one of: {', '.join(map(str, arguments))}")
        return value
    if origin in (Union, UnionType):
        return _build_one_of(value, arguments, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(where, f"{value!r} is not a list", "write it as [a, b, c]")
        return tuple(build(item, arguments[0], where) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(where, f"{value!r} is not a mapping", "write it as key: value lines")
        return {str(key): build(item, arguments[1], f"{where}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ConfigError(where, f"{value!r} is not of type {kind.__name__}", "correct the value")
    return value


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
        return value in get_args(kind)
    if is_dataclass(kind) or get_origin(kind) is dict:
        return isinstance(value, dict)
    if get_origin(kind) is tuple:
        return isinstance(value, list)
    return type(value) is kind or (kind is float and type(value) is int)


def _form(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if is_dataclass(kind):
        return "{" + ", ".join(f"{field.name}: ..." for field in fields(kind)) + "}"
    return {tuple: "a list [a, b]", dict: "a mapping"}.get(get_origin(kind) or kind, f"a value of type {kind.__name__}")


def _build_dataclass(value: Any, kind: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(where, f"{value!r} is not a mapping", "write it as key: value lines")
    hints, known = get_type_hints(kind), {field.name: field for field in fields(kind)}
    for key in value:
        if key not in known:
            raise ConfigError(where, f"{key!r} is unknown", f"known keys: {', '.join(known)}")
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(
                where,
                f"{name!r} is missing",
                "add it (docs/architecture.md says what explains it)",
            )
    built = {key: build(item, hints[key], f"{where}.{key}") for key, item in value.items()}
    try:
        return kind(**built)
    except ValueError as error:  # a dataclass' own __post_init__ check
        raise ConfigError(where, str(error), "correct the value") from error
