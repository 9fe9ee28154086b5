"""Download the published weights that runs start from and that this machine lacks."""

from collections.abc import Sequence
from dataclasses import replace

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from deepsky.errors import ConfigError, DataError
from deepsky.experiment.experiment import read_experiment


def run(names: Sequence[str]) -> None:
    """Download into Keras' cache what no folder holds; a file that is there is left alone.

    Args:
        names: of networks; none means those that a run of params.yaml starts from.

    Raises:
        ConfigError: a name is wrong, or ``weights.source`` is ``random``.
        WeightsError: the folder that params.yaml names does not exist.
        DataError: files cannot be had; all others are there.
    """
    from deepsky.networks.published import download_file, find_file, remedy  # imports Keras
    from deepsky.networks.registry import find_backbone

    experiment = read_experiment()
    if experiment.weights.source == "random":
        raise ConfigError("params.yaml: weights.source", "is random", "set it to imagenet-or-random to use others")
    params = replace(experiment.download, mirror=None)  # that is one of the survey's archives
    recipes = [run.recipe for run in experiment.runs.values()]
    wanted = names or dict.fromkeys(recipe.network for recipe in recipes if recipe.start == "pretrained")
    failed: dict[str, str] = {}
    there = []
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        for network in wanted:
            backbone = find_backbone(network)
            found, _ = find_file(backbone, experiment.weights.folder)
            if found is None and backbone.package:
                failed[network] = remedy(backbone)
                continue
            if found is None:
                task = progress.add_task(network, total=None)

                def advance(done: int, total: int | None, task: TaskID = task) -> None:
                    progress.update(task, completed=done, total=total)

                try:
                    found = download_file(backbone, params, advance)
                except DataError as error:
                    failed[network] = f"{error.where} {error.problem}; {error.remedy}"
                    continue
            there.append(f"{network}: {found}")
    for line in there:
        click.echo(line)
    if failed:
        network, reason = next(iter(failed.items()))
        raise DataError(f"weights of {', '.join(failed)}", f"are not there ({network}: {reason})", "then try again")
