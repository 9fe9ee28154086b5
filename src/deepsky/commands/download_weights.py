"""Download the published weights that runs start from and that this machine lacks: the one word that may."""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from deepsky.errors import ConfigError
from deepsky.experiment.experiment import read_experiment


def run(names: Sequence[str]) -> None:
    """Download into Keras' cache what no folder holds; a file that is there is left alone.

    Args:
        names: of networks; none means those that a run of params.yaml starts from.

    Raises:
        ConfigError: a name is wrong, or ``weights.source`` is ``random``.
        WeightsError: the folder that params.yaml names does not exist.
        DataError: a file cannot be had; those before it are there.
    """
    from deepsky.networks.published import download_file, find_file, remedy  # imports Keras
    from deepsky.networks.registry import find_backbone

    experiment = read_experiment()
    if experiment.weights.source == "random":
        raise ConfigError("params.yaml: weights.source", "is random", "set it to imagenet-or-random to use others")
    recipes = [run.recipe for run in experiment.runs.values()]
    wanted = names or dict.fromkeys(recipe.network for recipe in recipes if recipe.start == "pretrained")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        for network in wanted:
            backbone = find_backbone(network)
            found, looked = find_file(backbone, experiment.weights.folder)
            if found is None and backbone.package:
                progress.console.print(f"{network}: {looked}; {remedy(backbone)}", highlight=False, soft_wrap=True)
            elif found is None:
                task = progress.add_task(network, total=None)
                found = download_file(
                    backbone,
                    experiment.download,
                    lambda done, total, task=task: progress.update(task, completed=done, total=total),  # type: ignore[misc]
                )
            if found:
                print(f"{network}: {found}")
