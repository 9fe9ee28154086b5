"""Bring a published dataset, in its own layout, into the project."""

from pathlib import Path
from typing import Any

import click

from deepsky.commands.looking import look_through, unsmoothed
from deepsky.commands.published import get_published
from deepsky.commands.registering import EXTERNAL, Newcomer, Source, check_name, in_project, register, said
from deepsky.config import PARAMS, build
from deepsky.datasets.params import GroupBy
from deepsky.errors import ConfigError, DataError
from deepsky.experiment.experiment import read_experiment
from deepsky.formats.params import PicturesParams
from deepsky.formats.reading import read_dataset
from deepsky.formats.registry import OWN


def run(
    name: str,
    kind: str,
    source: Path | None,
    *,
    group_by: GroupBy | None,
    only: bool = False,
    **options: Any,
) -> None:
    """Register a published dataset, in its own layout, as dataset ``name``.

    Every picture is decoded and prepared once, as packing will do it, so that packing finds nothing that this did not.

    Args:
        name: of the new dataset.
        kind: its format, a key of ``formats.registry.FORMATS``.
        source: the file or folder; None downloads it into data/external, where it is published for everyone.
        group_by: what must stay together in a split; None takes what suits the format.
        only: leave nothing of deepsky's demonstration in params.yaml.
        options: the other keys of ``PicturesParams``.

    Raises:
        ConfigError: the name is taken or unfit, or the format has not what is asked of it.
        DataError: the source, one of its pictures or the download is wrong, or nothing can be learned from it;
            nothing was copied then.
    """
    check_name(name, [name])
    experiment = read_experiment()
    if kind in OWN:
        raise ConfigError(f"format {kind}", "is for a person's own pictures", "use deepsky add images")
    home, where = EXTERNAL / name, f"dataset {name}"
    entry = {"format": kind, "source": str(source or home), "group_by": group_by, **options}
    build(entry, PicturesParams, where)
    if source is not None and not source.exists():
        raise DataError(source, "does not exist", "name the file or folder that holds the dataset")
    source = source or get_published(kind, home, experiment.download)
    target = in_project(source) or home / source.resolve().name
    params: PicturesParams = build(entry | {"source": str(target)}, PicturesParams, where)
    objects = read_dataset(source, unsmoothed(params))
    look_through(name, objects, params, experiment, source)
    register(Newcomer(name, "pictures", said(params), [Source(source, target)]), only=only)
    click.echo(f"the next `make repro` packs it; to learn from it, write below runs in {PARAMS}:")
    click.echo(f"  {name}_frozen: {{dataset: {name}, network: efficientnet_lite0}}")
