"""The plan: what each stage runs with, and by which code. Every stage but this one's reads its settings from it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML

from deepsky.config import build, read_yaml
from deepsky.datasets.params import SplitParams
from deepsky.errors import ConfigError
from deepsky.experiment.experiment import Experiment
from deepsky.experiment.fingerprint import fingerprint
from deepsky.experiment.runs import Run
from deepsky.files import whole_file
from deepsky.formats.registry import FORMATS
from deepsky.networks.registry import module_of

T = TypeVar("T")
PLAN = Path("plan.yaml")
_LENGTH = 12
# What the simulated survey and the simulated collections write; stages catalogue, fetch and simulate are for these.
_RAW, _SIMULATED, _CATALOGUE = Path("data/raw"), Path("data/raw/simulated"), Path("data/catalogue.csv")


class Plan:
    """A plan that was read: settings by stage, and by item where the stage has many."""

    def __init__(self, stages: Mapping[str, Any], path: Path) -> None:
        """Keep it."""
        self._stages, self._path = stages, path

    def settings(self, stage: str, item: str = "") -> dict[str, Any]:
        """Return what a stage runs with, as plain values.

        Raises:
            ConfigError: the plan has no such stage or item.
        """
        place = f"{stage}.{item}" if item else stage
        found = self._stages.get(stage, {})
        found = found.get(item) if item else found
        if not isinstance(found, dict):
            problem, remedy = f"has no {place}", "add it to params.yaml, or run dvc repro plan if it is there"
            raise ConfigError(self._path, problem, remedy)
        return found

    def params(self, kind: type[T], stage: str, item: str = "") -> T:
        """Return those of them that one dataclass describes."""
        known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
        values = {key: value for key, value in self.settings(stage, item).items() if key in known}
        params: T = build(values, kind, f"{self._path}: {stage}.{item}".rstrip("."))
        return params

    def items(self, stage: str) -> dict[str, Any]:
        """Return the settings of every item of a stage, by name."""
        return dict(self._stages.get(stage) or {})


def read_plan(path: Path = PLAN) -> Plan:
    """Read what ``write_plan`` wrote.

    Raises:
        ConfigError: there is none.
    """
    if not path.exists():
        raise ConfigError(path, "is not there", "run dvc repro plan in the project's root")
    return Plan(read_yaml(path)["stages"], path)


def write_plan(experiment: Experiment, path: Path) -> dict[str, Any]:
    """Write a plan; the same experiment and code give the same bytes.

    Returns:
        Settings by stage and item.
    """
    stages = plan_stages(experiment)
    versions = {
        stage: {item: _digest(one) for item, one in content.items()} if stage in _MANY else _digest(content)
        for stage, content in stages.items()
    }
    yaml = YAML(typ="safe")
    yaml.default_flow_style, yaml.width = False, 4096
    with whole_file(path) as file, file.open("w", encoding="utf-8") as stream:
        stream.write(
            "# Written by stage plan, from params.yaml and the code: what each stage runs with, and a hash of it.\n"
        )
        yaml.dump({"versions": versions, "stages": stages}, stream)
    return stages


_MANY = ("render", "pack", "split", "features", "train")


def plan_stages(experiment: Experiment) -> dict[str, Any]:
    """Return what each stage runs with, by stage, and by item in those of ``_MANY``."""
    runs = experiment.runs.values()
    learned_from = {run.recipe.dataset for run in runs}
    datasets = experiment.datasets
    return {
        "catalogue": _catalogue(experiment),
        "fetch": _fetch(experiment),
        "simulate": _simulate(experiment),
        "render": {
            name: {**_plain(params), "on_bad_file": experiment.on_bad_file, "code": _of_stage("render")}
            for name, params in experiment.frames.items()
        },
        "pack": {
            name: {
                **_plain(params),
                "on_bad_file": experiment.on_bad_file,
                "code": _of_stage("pack", FORMATS[params.format].module.partition(":")[0]),
            }
            for name, params in experiment.pictures.items()
        },
        "split": {
            name: {
                **_split(experiment.split, one.group_by if name in learned_from else None),
                "code": _of_stage("split"),
            }
            for name, one in datasets.items()
        },
        "weights": _weights(experiment, runs),
        "features": {name: _features([run for run in runs if run.recipe.dataset == name]) for name in datasets},
        "train": {
            name: {**run.settings, "code": _of_stage("train", module_of(run.recipe.network))}
            for name, run in experiment.runs.items()
        },
        "evaluate": {
            "experiment": experiment.tracking.experiment,
            "runs": {name: _evaluated(run) for name, run in experiment.runs.items()},
            "code": _of_stage("evaluate"),
        },
        "report": {"code": _of_stage("report")},
    }


def _of_stage(stage: str, *modules: str) -> str:
    return fingerprint(f"deepsky.stages.{stage}", *modules)


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:_LENGTH]


def _plain(params: Any) -> dict[str, Any]:
    """Return a dataclass as plain values, tuples as lists."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(params)))
    return plain


def _sources(experiment: Experiment) -> list[Path]:
    """Return every file and folder that a dataset is made from."""
    of_frames = [Path(place) for one in experiment.frames.values() for place in (one.folder, one.catalogue)]
    return of_frames + [Path(one.source) for one in experiment.pictures.values()]


def _is_in(folder: Path, sources: Iterable[Path]) -> bool:
    return any(source == folder or folder in source.parents for source in sources)


def _catalogue(experiment: Experiment) -> dict[str, Any]:
    if not _needs_survey(experiment):
        return {"needed": False}
    settings = {**_plain(experiment.catalogue), "release": experiment.archive.release}
    return {"needed": True, **settings, "code": _of_stage("catalogue")}


def _needs_survey(experiment: Experiment) -> bool:
    """Tell whether a dataset is made from what the survey's archive serves."""
    sources = _sources(experiment)
    fetched = [source for source in sources if not _is_in(_SIMULATED, [source])]
    return _is_in(_RAW, fetched) or _CATALOGUE in sources


def _fetch(experiment: Experiment) -> dict[str, Any]:
    if not _needs_survey(experiment):
        return {"needed": False}
    settings = {
        "catalogue": _plain(experiment.catalogue),
        "archive": _plain(experiment.archive),
        "on_bad_file": experiment.on_bad_file,
    }
    return {"needed": True, **settings, "code": _of_stage("fetch")}


def _simulate(experiment: Experiment) -> dict[str, Any]:
    if not _is_in(_SIMULATED, _sources(experiment)):
        return {"needed": False}
    return {"needed": True, **_plain(experiment.simulate), "code": _of_stage("simulate")}


def _split(params: SplitParams, group_by: str | None) -> dict[str, Any]:
    """Return what shapes a split; of a dataset that no run learns from there is none."""
    settings = _plain(params)
    if group_by != "sky":
        settings.pop("cell_arcmin")
    if group_by != "neighbours":
        settings.pop("link_arcmin")
    return {"group_by": group_by, **(settings if group_by else {})}


def _weights(experiment: Experiment, runs: Iterable[Run]) -> dict[str, Any]:
    networks: dict[str, bool] = {}
    for run in runs:
        network = run.recipe.network
        networks[network] = networks.get(network, False) or run.recipe.start == "pretrained"
    needed = [module_of(network) for network, is_needed in networks.items() if is_needed]
    return {**_plain(experiment.weights), "networks": networks, "code": _of_stage("weights", *needed)}


def _features(runs: Iterable[Run]) -> dict[str, Any]:
    """Return what is cached of each network for the runs of one dataset."""
    networks: dict[str, dict[str, Any]] = {}
    for run in runs:
        recipe = run.recipe
        views = networks.setdefault(recipe.network, {})
        if recipe.of_head:
            views[recipe.views.name] = _plain(recipe.views)
    code = {network: _of_stage("features", module_of(network)) if views else "" for network, views in networks.items()}
    return {"networks": {network: {"code": code[network], "views": views} for network, views in networks.items()}}


def _evaluated(run: Run) -> dict[str, Any]:
    """Return what evaluate must know of a run; a hash stands for its settings, which are the train stage's."""
    return {
        "dataset": run.recipe.dataset,
        "label": run.label,
        "is_cell": run.is_cell,
        "reference": run.recipe.origin.run if run.recipe.origin else None,
        "settings": _digest(run.settings),
    }
