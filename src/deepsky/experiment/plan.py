"""The plan: what each stage runs with, and by which code. Every stage but this one's reads its settings from it."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML

from deepsky.config import build, read_yaml
from deepsky.datasets.params import SplitParams
from deepsky.errors import ConfigError
from deepsky.experiment.experiment import Experiment
from deepsky.experiment.fingerprint import PACKAGE, Code
from deepsky.experiment.position_list import Entry, check_list, listed_classes
from deepsky.experiment.runs import Run
from deepsky.files import whole_file
from deepsky.formats.registry import FORMATS
from deepsky.networks.registry import place_of
from deepsky.papers.paper import read_paper

T = TypeVar("T")
PLAN = Path("plan.yaml")
# A hash of each entry of the plan. DVC reads it three times for each stage: JSON takes it milliseconds, the plan itself
# half a second.
VERSIONS = Path("versions.json")
MANY = ("render", "pack", "split", "features", "train")  # stages with an entry for each item
_LENGTH = 12
# What stages catalogue, fetch and simulate write: they are for datasets that are made from it.
_FETCHED = tuple(Path("data/raw", name) for name in ("frames", "sdss_jpg", "stsci_jpg", "stsci_fits"))
_SIMULATED, _CATALOGUE = Path("data/raw/simulated"), Path("data/catalogue.csv")


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
    stages = read_yaml(path).get("stages") if path.exists() else None
    if not isinstance(stages, dict):
        problem = "is not a plan" if path.exists() else "is not there"
        raise ConfigError(path, problem, "run dvc repro plan in the project's root")
    return Plan(stages, path)


def write_plan(experiment: Experiment, path: Path) -> dict[str, Any]:
    """Write a plan, and its hashes into VERSIONS beside it; the same experiment and code give the same bytes.

    Returns:
        Settings by stage and item.
    """
    stages = plan_stages(experiment, Code())
    yaml = YAML(typ="safe")
    yaml.default_flow_style, yaml.width = False, 4096
    with whole_file(path) as file, file.open("w", encoding="utf-8") as stream:
        stream.write(f"# Written by stage plan: what each stage runs with, and by which code. See also {VERSIONS}.\n")
        yaml.dump({"stages": stages}, stream)
    with whole_file(path.with_name(VERSIONS.name)) as file:
        file.write_text(json.dumps(versions_of(stages), indent=1) + "\n")
    return stages


def versions_of(stages: Mapping[str, Any]) -> dict[str, Any]:
    """Return a hash of the settings of every stage, and of every item in those of MANY."""
    return {
        stage: {item: _digest(one) for item, one in content.items()} if stage in MANY else _digest(content)
        for stage, content in stages.items()
    }


def plan_stages(experiment: Experiment, code: Code) -> dict[str, Any]:
    """Return what each stage runs with, by stage, and by item in those of MANY.

    Args:
        experiment: params.yaml.
        code: of the package.

    Raises:
        ConfigError: the objects are a list of positions, and something wants to know more of them; a line each.
    """
    if experiment.catalogue.survey == "list":
        of_frames = [name for name in experiment.frames if _is_in(_FETCHED[0], _sources_of(experiment, name))]
        check_list(experiment.archive, of_frames, _of_survey(experiment))

    def of(stage: str, *modules: str) -> str:
        return code.fingerprint(f"{PACKAGE}.stages.{stage}", *modules)

    return {
        "catalogue": _survey(experiment, _catalogue(experiment), of("catalogue")),
        "fetch": _survey(experiment, _fetch(experiment), of("fetch", f"{PACKAGE}.archives.checks")),
        "simulate": _simulate(experiment, of("simulate")),
        **_of_datasets(experiment, of),
        **_of_runs(experiment, of),
        "report": {
            "experiment": experiment.tracking.experiment,
            "paper": read_paper(experiment.paper).compared() if experiment.paper else None,
            "code": of("report"),
        },
    }


def _of_datasets(experiment: Experiment, of: Callable[..., str]) -> dict[str, Any]:
    """Return what makes each dataset."""
    on_bad_file = experiment.on_bad_file
    learned_from = {run.recipe.dataset for run in experiment.runs.values()}
    return {
        "render": {
            name: {**_plain(params), "on_bad_file": on_bad_file, "code": of("render")}
            for name, params in experiment.frames.items()
        },
        "pack": {
            name: {**_plain(params), "on_bad_file": on_bad_file, "code": of("pack", FORMATS[params.format].module)}
            for name, params in experiment.pictures.items()
        },
        "split": {
            name: {**_split(experiment.split, one.group_by if name in learned_from else None), "code": of("split")}
            for name, one in experiment.datasets.items()
        },
    }


def _of_runs(experiment: Experiment, of: Callable[..., str]) -> dict[str, Any]:
    """Return what the runs are trained with, and what must be there before."""
    runs, same_bytes = experiment.runs, {"deterministic": experiment.deterministic}
    networks = _networks(runs.values())
    pretrained = [place_of(network) for network, is_needed in networks.items() if is_needed]
    features: dict[str, Any] = {}
    for name in experiment.datasets:
        of_dataset = _views(run for run in runs.values() if run.recipe.dataset == name)
        features[name] = {
            "networks": {
                network: {"views": views, "code": of("features", place_of(network)), **same_bytes} if views else {}
                for network, views in of_dataset.items()
            }
        }
    return {
        "weights": {**_plain(experiment.weights), "networks": networks, "code": of("weights", *pretrained)},
        "features": features,
        "train": {
            name: {**run.settings, **same_bytes, "code": of("train", place_of(run.recipe.network))}
            for name, run in runs.items()
        },
        "evaluate": {
            **_plain(experiment.evaluate),
            "experiment": experiment.tracking.experiment,
            "runs": {name: _evaluated(experiment, run) for name, run in runs.items()},
            "code": of("evaluate"),
        },
    }


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:_LENGTH]


def _plain(params: Any) -> dict[str, Any]:
    """Return a dataclass as plain values, tuples as lists."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(params)))
    return plain


def _sources(experiment: Experiment) -> list[Path]:
    """Return every file and folder that a dataset is made from; what lies in the project, from its root."""
    entries = (*experiment.frames, *experiment.pictures)
    return [source for entry in entries for source in _sources_of(experiment, entry)]


def _sources_of(experiment: Experiment, entry: str) -> list[Path]:
    """Return what one entry of section datasets is made from."""
    frames, root = experiment.frames.get(entry), Path.cwd()
    places = (frames.folder, frames.catalogue) if frames else (experiment.pictures[entry].source,)
    sources = [Path(place) for place in places]
    return [source.relative_to(root) if source.is_relative_to(root) else source for source in sources]


def _is_simulated(experiment: Experiment, dataset: str) -> bool:
    """Tell whether a dataset's pictures are drawn by stage simulate, or by fetch from the simulated survey."""
    made = _SIMULATED, *(_FETCHED if experiment.catalogue.survey == "simulated" else ())
    source = _sources_of(experiment, experiment.datasets[dataset].entry)
    return any(_is_in(place, source) for place in made)


def _is_in(folder: Path, sources: Iterable[Path]) -> bool:
    return any(source == folder or folder in source.parents for source in sources)


def _catalogue(experiment: Experiment) -> dict[str, Any]:
    settings = {**_plain(experiment.catalogue), "release": experiment.archive.of_query}
    if experiment.catalogue.survey == "list":
        settings["classes"] = listed_classes(_of_survey(experiment).values())
    return settings


def _fetch(experiment: Experiment) -> dict[str, Any]:
    """Return what is fetched; of the releases only those that it is of."""
    archive, other = experiment.archive, ("release", "query_release")
    releases = {"frames_release": archive.of_frames, "cutouts_release": archive.of_cutouts}
    return {
        "catalogue": _plain(experiment.catalogue),
        "archive": {key: value for key, value in _plain(archive).items() if key not in other} | releases,
        "on_bad_file": experiment.on_bad_file,
    }


def _of_survey(experiment: Experiment) -> dict[str, Entry]:
    """Return the entries of section datasets that are made from what stages catalogue and fetch write."""
    entries: dict[str, Entry] = {**experiment.frames, **experiment.pictures}
    places = (*_FETCHED, _CATALOGUE)
    return {
        name: one
        for name, one in entries.items()
        if any(_is_in(place, _sources_of(experiment, name)) for place in places)
    }


def _survey(experiment: Experiment, settings: dict[str, Any], code: str) -> dict[str, Any]:
    """Return the settings of a stage that is for what the survey's archive serves, if a dataset is made from that."""
    return {"needed": True, **settings, "code": code} if _of_survey(experiment) else {"needed": False}


def _simulate(experiment: Experiment, code: str) -> dict[str, Any]:
    if not _is_in(_SIMULATED, _sources(experiment)):
        return {"needed": False}
    return {"needed": True, **_plain(experiment.simulate), "code": code}


def _split(params: SplitParams, group_by: str | None) -> dict[str, Any]:
    """Return what shapes a split; of a dataset that no run learns from there is none."""
    settings = _plain(params)
    if group_by != "sky":
        settings.pop("cell_arcmin")
    if group_by != "neighbours":
        settings.pop("link_arcmin")
    return {"group_by": group_by, **(settings if group_by else {})}


def _networks(runs: Iterable[Run]) -> dict[str, bool]:
    """Return every network that is used, and whether a run starts from its pretrained weights."""
    networks: dict[str, bool] = {}
    for run in runs:
        network = run.recipe.network
        networks[network] = networks.get(network, False) or run.recipe.start == "pretrained"
    return networks


def _views(runs: Iterable[Run]) -> dict[str, dict[str, Any]]:
    """Return what is cached of each network for the runs of one dataset, by the name of its folder."""
    networks: dict[str, dict[str, Any]] = {}
    for run in runs:
        views = networks.setdefault(run.recipe.network, {})
        if run.recipe.of_head:
            views[run.recipe.views.name] = _plain(run.recipe.views)
    return networks


def _evaluated(experiment: Experiment, run: Run) -> dict[str, Any]:
    """Return what evaluate must know of a run; a hash stands for its settings, which are the train stage's."""
    origin = run.recipe.origin
    searched = experiment.runs.get(origin.run) if origin else None  # which may have been dropped since
    return {
        "dataset": run.recipe.dataset,
        "label": run.label,
        "is_cell": run.is_cell,
        "is_simulated": _is_simulated(experiment, run.recipe.dataset),
        "reference": searched.name if searched and searched.recipe.dataset == run.recipe.dataset else None,
        "settings": _digest(run.settings),
    }
