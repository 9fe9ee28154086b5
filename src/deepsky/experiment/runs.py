"""What a run inherits: the code's defaults, then ``train``, ``networks.NETWORK`` and the run's own entry."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints

from deepsky.config import Problems, build
from deepsky.datasets.params import Target
from deepsky.networks.registry import BACKBONES, known_networks
from deepsky.training.recipe import Answer, Learn, Recipe, Start, applying, check_values

DEFAULT = "default"
_HINTS = get_type_hints(Recipe)
_KEYS = tuple(field.name for field in fields(Recipe))
_OF_RUNS_ONLY = ("dataset", "network", "answer", "origin")


@dataclass(frozen=True)
class Run:
    """One trained network to be.

    Attributes:
        name: DATASET-NETWORK for a cell of ``compare``, else its name under ``runs``.
        recipe: how it learns.
        places: where in params.yaml each setting comes from, by key; ``default`` where nobody set it.
        is_cell: whether it comes from ``compare``.
    """

    name: str
    recipe: Recipe
    places: Mapping[str, str]
    is_cell: bool

    @property
    def own_head(self) -> bool:
        """Tell whether the network ends in layers of its own."""
        return self.recipe.network not in BACKBONES

    @property
    def label(self) -> str:
        """Return what its folder below models/trained/DATASET is called."""
        return self.recipe.network if self.is_cell else self.name

    @property
    def settings(self) -> dict[str, Any]:
        """Return what shapes its result, as run.json holds it."""
        return self.recipe.settings(own_head=self.own_head)


@dataclass(frozen=True)
class Inheritance:
    """Where runs get what they do not say themselves.

    Attributes:
        path: the file, for errors.
        train: section ``train``.
        networks: section ``networks``.
        targets: what there is to learn of each dataset, by name; None where its own entry is wrong.
        is_sound: whether ``check`` found nothing wrong; else what runs inherit is not looked at again.
    """

    path: str
    train: Mapping[str, Any]
    networks: Mapping[str, Any]
    targets: Mapping[str, Target | None]
    is_sound: bool = True

    def check(self, problems: Problems) -> "Inheritance":
        """Note unknown keys, networks and values of ``train`` and ``networks``; return the same, sound or not."""
        n_before = len(problems.errors)
        for place, entry in [("train", self.train), *((f"networks.{key}", one) for key, one in self.networks.items())]:
            where = f"{self.path}: {place}"
            if not isinstance(entry, dict):
                problems.add(where, f"{entry!r} is not a mapping", "write it as key: value lines")
                continue
            _check_keys(entry, where, [key for key in _KEYS if key not in _OF_RUNS_ONLY], problems)
            _check_shared(entry, where, problems)
        for network in self.networks:
            if network not in known_networks():
                remedy = f"choose one of: {', '.join(known_networks())}"
                problems.add(f"{self.path}: networks", f"network {network!r} is unknown", remedy)
        return replace(self, is_sound=len(problems.errors) == n_before)

    def cell(self, dataset: str, network: str, problems: Problems) -> Run | None:
        """Return the run of a dataset by a network; None, with the reasons noted, where there can be none."""
        entry = {"dataset": dataset, "network": network}
        return self.run(f"{dataset}-{network}", "compare", entry, problems, is_cell=True)

    def run(
        self, name: str, place: str, entry: Mapping[str, Any], problems: Problems, *, is_cell: bool = False
    ) -> Run | None:
        """Resolve one run.

        Args:
            name: of the run.
            place: of its entry in the file.
            entry: what it says itself: dataset, network and what differs.
            problems: get what is wrong.
            is_cell: whether it comes from ``compare``.

        Returns:
            None where something is wrong.
        """
        where, n_before = f"{self.path}: {place}", len(problems.errors)
        if not self._knows(entry, where, problems):
            return None
        dataset, network = entry["dataset"], entry["network"]
        if self.targets[dataset] is None:  # what is wrong with it was noted
            return None
        own = self.networks.get(network)
        layers = [
            (place, entry),
            (f"networks.{network}", own if isinstance(own, dict) else {}),
            ("train", self.train if isinstance(self.train, dict) else {}),
        ]
        _check_keys(entry, where, _KEYS, problems)
        first = _First(layers)
        start: Start = first.of("start", "pretrained" if network in BACKBONES else "scratch")
        learn: Learn = first.of("learn", "head" if start == "pretrained" else "all")
        answer: Answer = first.of("answer", "softmax" if self.targets[dataset] == "class" else "tree")
        self._check_choice(where, network, dataset, start, answer, problems)
        n_views = first.of("n_views", 0)
        names = {"origin", *applying(start, learn, answer, n_views, own_head=network not in BACKBONES)}
        for key in entry:
            if key in _KEYS and key not in names:
                problems.add(
                    f"{where}.{key}", f"has no effect here: {_why(key, network, start, learn)}", "take it away"
                )
        values = {"dataset": dataset, "network": network, "start": start, "learn": learn, "answer": answer}
        values |= {key: first.of(key) for key in names if key not in values and first.has(key)}
        if not self.is_sound or len(problems.errors) > n_before:
            _check_shared({key: value for key, value in entry.items() if key in names}, where, problems)
            return None
        with problems.kept():
            recipe = build(values, Recipe, where)
            places = {key: first.place(key) for key in names if key != "origin" or first.has(key)}
            return Run(name, recipe, places, is_cell)
        return None

    def _knows(self, entry: object, where: str, problems: Problems) -> bool:
        """Note what is missing or unknown of an entry's dataset and network."""
        n_before = len(problems.errors)
        if not isinstance(entry, dict):
            problems.add(where, f"{entry!r} is not a mapping", "give it a dataset and a network")
            return False
        for key, known in (("dataset", tuple(self.targets)), ("network", known_networks())):
            remedy = f"choose one of: {', '.join(known) or 'none is there'}"
            if key not in entry:
                problems.add(where, f"{key!r} is missing", remedy)
            elif entry[key] not in known:
                problems.add(where, f"{key} {entry[key]!r} is unknown", remedy)
        return len(problems.errors) == n_before

    def _check_choice(
        self, where: str, network: str, dataset: str, start: Start, answer: Answer, problems: Problems
    ) -> None:
        if start == "pretrained" and network not in BACKBONES:
            remedy = f"set start: scratch, or choose one of: {', '.join(BACKBONES)}"
            problems.add(where, f"network {network} has no pretrained weights", remedy)
        if (answer == "softmax") != (self.targets[dataset] == "class"):
            what = "classes" if answer == "softmax" else "vote fractions"
            problems.add(where, f"answer {answer} is for {what}, dataset {dataset} has others", "take answer away")


class _First:
    """Looks a key up: in a run's own entry, its network's, then ``train``."""

    def __init__(self, layers: list[tuple[str, Mapping[str, Any]]]) -> None:
        self._layers = layers

    def has(self, key: str) -> bool:
        return any(key in entry for _, entry in self._layers)

    def of(self, key: str, default: Any = None) -> Any:
        """Return its value; the keys of ``augment`` are inherited one by one."""
        found = [entry[key] for _, entry in self._layers if key in entry]
        if key == "augment" and all(isinstance(one, dict) for one in found):
            return {name: value for one in reversed(found) for name, value in one.items()}
        return found[0] if found else default

    def place(self, key: str) -> str:
        return next((place for place, entry in self._layers if key in entry), DEFAULT)


def _check_keys(entry: Mapping[str, Any], where: str, known: Any, problems: Problems) -> None:
    for key in entry:
        if key not in known:
            problems.add(where, f"{key!r} is unknown", f"known keys: {', '.join(known)}")


def _check_shared(entry: Mapping[str, Any], where: str, problems: Problems) -> None:
    """Note values that no run may have; together with the defaults they must make a recipe."""
    values = {}
    for key in (key for key in entry if key in _HINTS):
        with problems.kept():
            values[key] = build(entry[key], _HINTS[key], f"{where}.{key}")
    defaults = {field.name: field.default for field in fields(Recipe)}
    try:
        check_values(defaults | values)
    except ValueError as error:
        for one in error.args:
            problems.add(where, str(one), "correct the value")


def _why(key: str, network: str, start: Start, learn: Learn) -> str:
    """Say why a key has no effect."""
    if key in ("class_weights", "label_smoothing", "monitor", "calibrate"):
        return "vote fractions have no classes"
    if learn == "head":
        if key == "augment":
            return "a head sees random views only where n_views is above 0"
        return "only a head learns, on cached features"
    if key in ("hidden_units", "dropout"):
        return f"{network} ends in layers of its own"
    if key in ("norm", "head_epochs", "head_learning_rate"):
        return f"start is {start}"
    return f"it is for learn: head, and learn is {learn}"
