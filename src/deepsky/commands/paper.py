"""Make params.yaml the experiment of a study that deepsky grew out of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from ruamel.yaml.comments import CommentedMap

from deepsky.archives.params import ArchiveParams
from deepsky.catalogue.tables import read_table
from deepsky.commands.drop import drop_demo
from deepsky.config import PARAMS, build
from deepsky.errors import ConfigError, DataError
from deepsky.experiment import edit
from deepsky.experiment.experiment import Experiment, read_experiment
from deepsky.formats.params import PicturesParams, datasets_of
from deepsky.formats.reading import read_dataset
from deepsky.formats.registry import FORMATS
from deepsky.papers.paper import Paper, read_paper
from deepsky.simulation.params import CatalogueParams, SimulateParams

_SIMULATED, _QUERIED = Path("data/raw/simulated"), Path("data/query/catalogue.csv")
_N_SIMULATED = {"galaxy_zoo_challenge": "n_galaxy_zoo", "galaxy_zoo1": "n_galaxy_zoo1", "galaxy10": "n_galaxy10"}
_FEWEST_FIELDS = 8  # that can be split


def run(name: str, n: int | None) -> None:
    """Replace what params.yaml learns and how by a study's, and print what changed; own datasets stay.

    Pictures come from a dataset of the study's format that params.yaml has already, if there is one that is not
    simulated; objects of the sky from section ``catalogue``.

    Args:
        name: of the study, one of ``papers.paper.PAPERS``.
        n: how many objects; None: as many as the study had, if there are so many. Of simulated data, as many as
            params.yaml says.

    Raises:
        ConfigError: whatever is wrong in params.yaml, or ``n`` is out of range.
        DataError: the data cannot be used, or lack a class of the study.
    """
    experiment, paper = read_experiment(), read_paper(name)
    params = {section: dict(value) for section, value in paper.params.items()}
    params["datasets"], told = _Data(paper, experiment, n).datasets()
    params |= _simulated(params["datasets"], experiment, n)
    params["runs"] = _of_datasets(params.get("runs", {}), params["datasets"])
    document = edit.load()
    before = edit.text_of(document)
    _replace(document, name, params)
    edit.save(document)
    click.echo(edit.diff(before, edit.text_of(document)) or f"{PARAMS} is this study already")
    for line in told:
        click.echo(line)
    click.echo(f"{paper.title}: `make repro` runs it; `make weights` first gets pretrained weights that are missing")


@dataclass(frozen=True)
class _Data:
    """What the datasets of a study are made from; the arguments of ``run``."""

    paper: Paper
    experiment: Experiment
    n: int | None

    def datasets(self) -> tuple[dict[str, Any], list[str]]:
        """Return section ``datasets``, and in words where the data come from."""
        frames = self.paper.params["datasets"].get("frames", {})
        pictures, told = {}, {"frames": self._sky()} if frames else {}
        for name, entry in self.paper.params["datasets"].get("pictures", {}).items():
            made = self._of_format(name, dict(entry))
            real = f"deepsky add collection NAME {made['format']} SOURCE, then deepsky paper again"
            if "source" not in made:
                told[name] = f"{name} is left out, its data are not here; to bring it in, run {real}"
                continue
            pictures[name] = made
            if _is_simulated(made["source"]):
                told[made["format"]] = f"the galaxies of {made['format']} are simulated; for real ones, run {real}"
        return {"frames": frames, "pictures": pictures}, list(told.values())

    def _of_format(self, name: str, entry: dict[str, Any]) -> dict[str, Any]:
        """Give an entry its source, and the limit that makes it as large as the study's."""
        share = entry.pop("share", 1.0)
        own = self._own(entry["format"])
        if own is not None:
            entry |= {"source": own.source} | ({"sha256": own.sha256} if own.sha256 else {})
            if own.sha256 is None:
                entry.pop("sha256", None)
            available = _count(name, entry)
            wanted = self.n or min(self.paper.n or available, available)
            if wanted > available:
                raise ConfigError(f"N {wanted}", f"is more than the {available} objects of {own.source}", "lower it")
        elif entry["format"] in _N_SIMULATED:
            available = wanted = self.n or getattr(self.experiment.simulate, _N_SIMULATED[entry["format"]])
        else:
            return entry
        limit = round(wanted * share)
        entry |= {"limit": limit} if limit < available else {}
        build(dict(entry), PicturesParams, f"N {wanted}: {name}")  # what is wrong is told before anything is written
        return entry

    def _own(self, format_: str) -> PicturesParams | None:
        """Return the first dataset of a format that is not simulated."""
        if FORMATS[format_].needs:  # pictures with labels of the user's: of no study
            return None
        every = (one for one in self.experiment.pictures.values() if one.format == format_)
        return next((one for one in every if not _is_simulated(one.source)), None)

    def _sky(self) -> str:
        """Check the objects of a real survey; return where the sky comes from."""
        survey = self.experiment.catalogue.survey
        if survey == "list":
            remedy = "set it to simulated or sdss"
            raise ConfigError(
                f"{PARAMS}: catalogue.survey list", "names no fields, whose frames the study takes", remedy
            )
        if survey == "simulated":
            return "the sky is simulated; for the real one, set catalogue.survey: sdss and run deepsky query"
        per_class = (self.n or self.paper.n or 0) // 3
        asked = f"deepsky query --objects-per-class {per_class}"
        if self.n is not None:
            raise ConfigError(f"N {self.n}", "is not for survey: sdss, whose objects are queried", f"run {asked}")
        if not _QUERIED.exists():
            return f"the sky is SDSS': {asked} asks for as many objects as the study had"
        found = set(read_table(_QUERIED, required=("class",))["class"])
        for label in self.paper.params["datasets"]["frames"]["sdss"]["classes"]:
            if label not in found:
                raise DataError(_QUERIED, f"holds no {label}, which the study tells apart", f"run {asked}")
        return f"the sky is SDSS': the objects of {_QUERIED}"


def _is_simulated(source: str) -> bool:
    return _SIMULATED in Path(source).parents


def _count(name: str, entry: Mapping[str, Any]) -> int:
    """Return how many objects a source has; it must have all classes of its format."""
    params: PicturesParams = build(dict(entry), PicturesParams, f"dataset {name}")
    objects = read_dataset(Path(params.source), params)
    for label in objects.classes:
        if not (objects.rows["label"] == label).any():
            problem = f"holds no {label!r}, which the study tells apart"
            raise DataError(params.source, problem, "give the whole dataset")
    return len(objects.rows)


def _simulated(datasets: Mapping[str, Any], experiment: Experiment, n: int | None) -> dict[str, Any]:
    """Return the keys of sections ``catalogue`` and ``simulate`` that make the simulated data ``n`` large."""
    if n is None:
        return {}
    sections: dict[str, Any] = {}
    if datasets["frames"] and experiment.catalogue.survey == "simulated":
        n_fields = max(_FEWEST_FIELDS, round(n / (3 * CatalogueParams().n_per_class_per_field)))
        sections["catalogue"] = {"n_fields": n_fields, "n_per_class_per_field": max(1, round(n / (3 * n_fields)))}
        build(sections["catalogue"], CatalogueParams, f"N {n}: catalogue")
    keys = {
        _N_SIMULATED[entry["format"]]: n for entry in datasets["pictures"].values() if _is_simulated(entry["source"])
    }
    if keys:
        build(keys, SimulateParams, f"N {n}: simulate")
        sections["simulate"] = keys
    return sections


def _is_raw(entry: Any) -> bool:
    """Tell whether a dataset is made from what stages write, and not from data of the user's."""
    place = (entry or {}).get("source") or (entry or {}).get("folder")
    return place is not None and Path(place).parts[:2] == ("data", "raw")


def _refuse_to_overwrite(document: CommentedMap, pictures: Mapping[str, Any]) -> None:
    """Refuse to write a study's dataset over one of the user's; how much of it is taken may change."""
    there = (document.get("datasets") or {}).get("pictures") or {}
    for name, entry in pictures.items():
        if name in there and dict(there[name]) | {"limit": None} != entry | {"limit": None}:
            problem = "is a dataset of yours, and one of the study's"
            raise ConfigError(f"{PARAMS}: {name}", problem, f"deepsky drop {name}, and add it under another name")


def _of_datasets(runs: Mapping[str, Any], datasets: Mapping[str, Any]) -> dict[str, Any]:
    """Return the runs whose dataset is there."""
    there = {*datasets["pictures"], *(name for entry in datasets["frames"] for name in datasets_of(entry))}
    return {name: one for name, one in runs.items() if one["dataset"] in there}


def _replace(document: CommentedMap, name: str, params: Mapping[str, Any]) -> None:
    """Write a study's sections; its datasets stand beside the user's own, which nothing learns from."""
    former = read_paper(document["paper"]).params if document.get("paper") else {}
    for kind, entries in former.get("datasets", {}).items():
        for dataset in entries:
            if _is_raw((document.get("datasets") or {}).get(kind, {}).get(dataset)):
                edit.remove(document, ("datasets", kind, dataset))
    for key in former.get("archive", {}):
        default = getattr(ArchiveParams(), key)
        if default is None:
            edit.remove(document, ("archive", key))
        else:
            edit.set_entry(document, ("archive", key), default)
    drop_demo(document)
    _refuse_to_overwrite(document, params["datasets"]["pictures"])
    for section in ("train", "networks", "compare", "runs", "paper"):
        edit.remove(document, (section,))
    edit.remove(document, ("tune", "run"))
    edit.set_entry(document, ("paper",), name)
    for kind, entries in params["datasets"].items():
        for dataset, entry in entries.items():
            edit.set_entry(document, ("datasets", kind, dataset), entry)
    for key, members in params.get("compare", {}).items():
        for member in members:
            edit.add_member(document, ("compare", key), member)
    for section in [section for section in params if section not in ("datasets", "compare")]:
        for key, value in params[section].items():
            edit.set_entry(document, (section, key), value)
