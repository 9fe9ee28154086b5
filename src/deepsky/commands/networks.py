"""List every network, and where the weights are that it starts from."""

from rich.console import Console
from rich.table import Table

from deepsky.experiment.experiment import read_experiment


def run() -> None:
    """Print name, kind, smallest image, parameters and pretrained weights of every network.

    Raises:
        ConfigError: params.yaml is wrong.
        WeightsError: the folder of weights that it names does not exist.
    """
    from deepsky.networks.heads import softmax_answer  # imports Keras
    from deepsky.networks.published import find_file, remedy
    from deepsky.networks.registry import BACKBONES, SCRATCH, find_backbone, find_scratch

    folder = read_experiment().weights.folder
    table = Table(box=None)
    for column in ("network", "from px", "parameters", "ImageNet weights"):
        table.add_column(column, justify="right" if column in ("from px", "parameters") else "left", overflow="fold")
    for name in BACKBONES:
        backbone = find_backbone(name)
        found, _ = find_file(backbone, folder)
        where = remedy(backbone).partition(";")[0]
        if found:
            where = f"in package {backbone.package[0]}" if backbone.package else str(found)
        n_parameters = backbone.build(max(backbone.min_size_px, _SIZE_PX)).count_params()
        table.add_row(name, str(backbone.min_size_px), f"{n_parameters:,}", where)
    for name in SCRATCH:
        tail = find_scratch(name)((_SIZE_PX, _SIZE_PX, 3), softmax_answer(_N_CLASSES))
        table.add_row(name, "", f"{tail.count_params():,}", "none: it learns from your pictures")
    console = Console()
    console.print(table)
    console.print(
        f"parameters: of the first ones without their head, of the others at {_SIZE_PX} px and {_N_CLASSES} classes",
        highlight=False,
    )


_SIZE_PX, _N_CLASSES = 128, 10
