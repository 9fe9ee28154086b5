"""Print where stage fetch downloads from, for whoever wants to download by other means (wget -i)."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from deepsky.archives.http import Client
from deepsky.archives.panstarrs import CACHE, find_stacks
from deepsky.archives.params import ArchiveParams
from deepsky.archives.wanted import needed_columns, wanted_files, wanted_filters
from deepsky.catalogue.tables import check_numbers, read_objects
from deepsky.config import PARAMS
from deepsky.errors import ConfigError, DataError
from deepsky.experiment.experiment import read_experiment

CATALOGUE, RAW = Path("data/catalogue.csv"), Path("data/raw")
# What leaves each kind of file out.
_WITHOUT: dict[str, dict[str, Any]] = {
    "frames": {"bands": (), "psf_fields": False},
    "sdss_jpg": {"sdss_jpg": False},
    "stsci_jpg": {"stsci_jpg": False},
    "stsci_fits": {"stsci_fits": ()},
}


def run(kinds: Collection[str], *, ask: bool) -> None:
    """Print the URL of every file that the catalogue's objects need, one a line, whether it is there already or not.

    A Pan-STARRS cutout's URL names the stacks that cover the place, which only the service can tell. The fetch stage
    keeps what it was told; whoever may not ask can know no more.

    Args:
        kinds: the folders of raw files that are meant; none: all that section ``archive`` wants.
        ask: ask Pan-STARRS about places of which it has not told; the only use of the network.

    Raises:
        ConfigError: the survey is simulated, or no file of these kinds is wanted.
        DataError: the catalogue is not there or broken; the stacks of some places are not known, or cannot be asked.
    """
    experiment = read_experiment()
    if experiment.catalogue.survey == "simulated":
        problem = "is simulated, so nothing is downloaded"
        raise ConfigError(f"{PARAMS}: catalogue.survey", problem, "set it to sdss or list (docs/archives.md)")
    archive = _only(experiment.archive, kinds)
    if not CATALOGUE.exists():
        raise DataError(CATALOGUE, "is not there", "make it: deepsky repro catalogue")
    objects = read_objects(CATALOGUE, id_column="id", label_column=None, classes=())
    check_numbers(objects, CATALOGUE, needed_columns(archive))
    client = Client(experiment.download) if ask else None
    wanted, absent = wanted_files(objects, find_stacks(objects, wanted_filters(archive), client, RAW / CACHE), archive)
    if not wanted:
        problem = f"asks for no file of {', '.join(kinds or _WITHOUT)} that there is"
        raise ConfigError(f"{PARAMS}: archive", problem, "choose another --kind, or ask for it there")
    if absent:
        click.echo(f"{len(absent)} files of Pan-STARRS are left out: no stacks cover them", err=True)
    click.echo("\n".join(each.url for each in wanted))


def _only(archive: ArchiveParams, kinds: Collection[str]) -> ArchiveParams:
    """Leave out every kind but these; none: nothing."""
    for kind, without in _WITHOUT.items():
        if kinds and kind not in kinds:
            archive = replace(archive, **without)
    return archive
