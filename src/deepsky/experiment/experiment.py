"""params.yaml, read whole: the datasets, how they are made, and every run; all that is wrong is told at once."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from deepsky.archives.params import ArchiveParams, DownloadParams
from deepsky.config import PARAMS, Problems, build, check_name, read_yaml, refuse_aliases
from deepsky.datasets.params import GroupBy, SplitParams, Target
from deepsky.errors import ConfigError
from deepsky.evaluation.params import EvaluateParams
from deepsky.experiment.runs import Inheritance, Run
from deepsky.formats.params import FramesParams, PicturesParams, datasets_of
from deepsky.networks.params import FeaturesParams, WeightsParams
from deepsky.networks.registry import known_networks
from deepsky.papers.paper import PAPERS
from deepsky.simulation.params import CatalogueParams, SimulateParams
from deepsky.tracking.params import TrackingParams
from deepsky.training.recipe import Recipe
from deepsky.tuning.params import TuneParams

T = TypeVar("T")
OnBadFile = Literal["stop", "skip"]
_PLAIN: dict[str, type[Any]] = {
    "catalogue": CatalogueParams,
    "archive": ArchiveParams,
    "download": DownloadParams,
    "simulate": SimulateParams,
    "split": SplitParams,
    "weights": WeightsParams,
    "features": FeaturesParams,
    "evaluate": EvaluateParams,
    "tune": TuneParams,
    "tracking": TrackingParams,
}
SECTIONS = ("on_bad_file", "deterministic", "paper", *_PLAIN, "datasets", "train", "networks", "compare", "runs")
# What became of the sections of older files.
_FORMER = {
    "frames": "its entries stand under datasets.frames, with group_by",
    "images": "its entries stand under datasets.pictures, with format: images and source",
    "collections": "its entries stand under datasets.pictures",
    "backbones": "name them under compare.networks, and their settings under networks",
    "scratch": "name them under compare.networks, and their settings under networks",
    "recipes": "its entries stand under runs, whatever learns; unfreeze is called learn there",
    "tuned": "its entries stand under runs, with origin; deepsky tune adopt writes them",
}
# Where dvc.yaml puts {} in place of what is absent, which null is not.
_NAMED_IN_DVC_YAML = (
    "datasets", "datasets.frames", "datasets.pictures", "compare", "compare.datasets", "compare.networks", "runs",
)  # fmt: skip
_FORMER_KEYS = {
    "weights.networks": "take it away: the weights of what runs need are made ready",
    "tune.dataset": "write tune.run: DATASET-NETWORK, or a run",
    "tune.network": "write tune.run: DATASET-NETWORK, or a run",
    "tune.scratch": "it is called tune.images",
}


@dataclass(frozen=True)
class Dataset:
    """What runs must know of a dataset.

    Attributes:
        target: what there is to learn.
        group_by: what stays together when it is split.
        entry: the entry of ``datasets`` that it comes from.
    """

    target: Target
    group_by: GroupBy
    entry: str


@dataclass(frozen=True)
class Experiment:
    """All of params.yaml. The attributes are its sections; ``runs`` holds those of ``compare`` too, by name."""

    on_bad_file: OnBadFile
    deterministic: bool
    paper: str | None
    catalogue: CatalogueParams
    archive: ArchiveParams
    download: DownloadParams
    simulate: SimulateParams
    split: SplitParams
    weights: WeightsParams
    features: FeaturesParams
    evaluate: EvaluateParams
    tune: TuneParams
    tracking: TrackingParams
    frames: Mapping[str, FramesParams]
    pictures: Mapping[str, PicturesParams]
    runs: Mapping[str, Run]
    inheritance: Inheritance

    @property
    def datasets(self) -> dict[str, Dataset]:
        """Return every dataset that can be learned from, by name."""
        of_frames = {
            name: Dataset("class", params.group_by, entry)
            for entry, params in self.frames.items()
            for name in datasets_of(entry)
        }
        return of_frames | {name: Dataset(one.target, one.group, name) for name, one in self.pictures.items()}

    def find(self, name: str) -> Run:
        """Return a run, or DATASET-NETWORK of any dataset and network that there are.

        Raises:
            ConfigError: there is no such run, or it cannot be.
        """
        if name in self.runs:
            return self.runs[name]
        dataset, _, network = name.partition("-")
        if dataset in self.datasets and network in known_networks():
            problems = Problems()
            run = self.inheritance.cell(dataset, network, problems)
            problems.stop()
            assert run is not None
            return run
        near = difflib.get_close_matches(name, self.runs, n=3, cutoff=0.5) or list(self.runs)
        raise ConfigError(f"run {name}", f"is not in {PARAMS}", f"choose one of: {', '.join(near) or 'none is there'}")

    def run(self, name: str) -> Recipe:
        """Return how a run learns; see ``find``."""
        return self.find(name).recipe


def read_experiment(path: Path = PARAMS) -> Experiment:
    """Read params.yaml; a section that is absent has the defaults of its dataclass.

    Raises:
        ConfigError: the file cannot be read, or whatever is wrong in it, a line each.
    """
    raw, problems = read_yaml(path), Problems()
    with problems.kept():
        refuse_aliases(path)
    _note_former(raw, path, problems)
    plain = {name: _built(raw, name, kind, path, problems) for name, kind in _PLAIN.items()}
    on_bad_file = _built(raw, "on_bad_file", OnBadFile, path, problems, default="stop")
    deterministic = _built(raw, "deterministic", bool, path, problems)
    paper = _built(raw, "paper", Literal[PAPERS], path, problems) if raw.get("paper") else None
    frames, pictures = _datasets(raw, path, problems)
    targets: dict[str, Target | None] = dict.fromkeys(
        (name for entry in frames for name in datasets_of(entry)), "class"
    )
    for name, one in pictures.items():
        if name in targets:
            problems.add(f"{path}: datasets", f"{name!r} stands there twice", "give each a name of its own")
        if name in known_networks():
            problems.add(f"{path}: datasets.pictures.{name}", "is the name of a network", "name it otherwise")
        targets[name] = None if one is None else one.target
    train, networks = (_mapping(raw, name, path, problems) for name in ("train", "networks"))
    inheritance = Inheritance(str(path), train, networks, targets).check(problems)
    runs = _cells(raw, path, inheritance, problems) | _singles(raw, path, inheritance, problems)
    problems.stop()
    whole = Experiment(
        on_bad_file, deterministic, paper, **plain, frames=frames, pictures=pictures, runs=runs, inheritance=inheritance
    )
    _check_choices(whole, path, problems)
    problems.stop()
    return whole


def _check_choices(whole: Experiment, path: Path, problems: Problems) -> None:
    """Refuse runs that would be scored on the rows that chose their epoch or their hyperparameters."""
    if whole.split.test_fraction:
        return
    remedy = "set keep: last, patience: null and calibrate: none, or give split.test_fraction more than 0"
    for run in whole.runs.values():
        has_test = whole.datasets[run.recipe.dataset].group_by == "given"
        if not has_test and (run.recipe.chooses or run.recipe.origin):
            problem = "is scored on the val rows, as test_fraction is 0, and is also chosen by them"
            problems.add(f"{path}: run {run.name}", problem, remedy)


def _note_former(raw: Mapping[str, Any], path: Path, problems: Problems) -> None:
    """Note unknown sections, what became of sections and keys of older files, and sections that DVC cannot read."""
    for section in raw:
        if section in _FORMER:
            problems.add(f"{path}: {section}", "is a section of older files", _FORMER[section])
        elif section not in SECTIONS:
            near = difflib.get_close_matches(str(section), SECTIONS, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"known sections: {', '.join(SECTIONS)}"
            problems.add(str(path), f"section {section!r} is unknown", remedy)
    for dotted, became in _FORMER_KEYS.items():
        section, _, key = dotted.partition(".")
        if isinstance(raw.get(section), dict) and key in raw[section]:
            del raw[section][key]  # that is all there is to say of it
            problems.add(f"{path}: {dotted}", "is a key of older files", became)
    for dotted in _NAMED_IN_DVC_YAML:
        section, _, key = dotted.partition(".")
        owner = raw.get(section) if key else raw
        if isinstance(owner, dict) and owner.get(key or section, {}) is None:
            problems.add(f"{path}: {dotted}", "is empty, which DVC cannot read", "take the line away, or write {}")


def _built(raw: Mapping[str, Any], section: str, kind: Any, path: Path, problems: Problems, default: Any = None) -> Any:
    if raw.get(section) is None:
        return kind() if default is None else default
    with problems.kept():
        return build(raw[section], kind, f"{path}: {section}")
    return None


def _mapping(raw: Mapping[str, Any], section: str, path: Path, problems: Problems) -> dict[str, Any]:
    """Return a section whose keys a person chooses; an absent one is empty."""
    value: Any = raw
    for key in section.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if value is None:
        return {}
    if not isinstance(value, dict):
        problems.add(f"{path}: {section}", f"{value!r} is not a mapping", "write it as name: lines")
        return {}
    return value


def _datasets(raw: Mapping[str, Any], path: Path, problems: Problems) -> tuple[dict[str, Any], dict[str, Any]]:
    groups: dict[str, type[Any]] = {"frames": FramesParams, "pictures": PicturesParams}
    for key in _mapping(raw, "datasets", path, problems):
        if key not in groups:
            problems.add(
                f"{path}: datasets", f"{key!r} is unknown",
                "datasets.frames holds FITS frames, datasets.pictures all else; what is learned from stands in compare",
            )  # fmt: skip
    found: list[dict[str, Any]] = []
    for group, kind in groups.items():
        found.append({})
        for name, entry in _mapping(raw, f"datasets.{group}", path, problems).items():
            where = f"{path}: datasets.{group}.{name}"
            check_name(name, where, problems)
            found[-1][str(name)] = None
            with problems.kept():
                found[-1][str(name)] = build(entry, kind, where)
    return found[0], found[1]


def _cells(raw: Mapping[str, Any], path: Path, inheritance: Inheritance, problems: Problems) -> dict[str, Run]:
    compare, known = _mapping(raw, "compare", path, problems), ("datasets", "networks")
    for key in compare:
        if key not in known:
            problems.add(f"{path}: compare", f"{key!r} is unknown", f"known keys: {', '.join(known)}")
    members: dict[str, list[str]] = {}
    for key, names in (("datasets", tuple(inheritance.targets)), ("networks", known_networks())):
        value = compare.get(key) or {}
        if not isinstance(value, dict):
            problems.add(f"{path}: compare.{key}", f"{value!r} is not a set", "write it as {a, b}")
            value = {}
        members[key] = [name for name in value if name in names]
        for name in value:
            if name not in names:
                remedy = f"choose one of: {', '.join(names) or 'none is there'}"
                problems.add(f"{path}: compare.{key}", f"{name!r} is unknown", remedy)
    cells = [
        inheritance.cell(dataset, network, problems)
        for dataset in members["datasets"]
        for network in members["networks"]
    ]
    return {cell.name: cell for cell in cells if cell is not None}


def _singles(raw: Mapping[str, Any], path: Path, inheritance: Inheritance, problems: Problems) -> dict[str, Run]:
    singles: dict[str, Run] = {}
    for name, entry in _mapping(raw, "runs", path, problems).items():
        where = f"{path}: runs.{name}"
        check_name(name, where, problems)
        if name in known_networks():
            problems.add(where, "is the name of a network, which its runs in compare are called", "name it otherwise")
        run = inheritance.run(str(name), f"runs.{name}", entry, problems)
        if run is not None:
            singles[str(name)] = run
    return singles
