"""List every network, and where the weights are that it starts from."""

import click

from deepsky.experiment.experiment import read_experiment

_SIZE_PX, _N_CLASSES = 128, 10


def run() -> None:
    """Print name, parameters and pretrained weights of every network.

    Raises:
        ConfigError: params.yaml is wrong.
        WeightsError: the folder of weights that it names does not exist.
    """
    from deepsky.networks.heads import softmax_answer  # imports Keras
    from deepsky.networks.published import find_file
    from deepsky.networks.registry import BACKBONES, SCRATCH, find_backbone, find_scratch

    folder = read_experiment().weights.folder
    for name in BACKBONES:
        backbone = find_backbone(name)
        found, _ = find_file(backbone, folder)
        lacks = "make clean setup" if backbone.package else f"deepsky download-weights {name}"
        n_parameters = backbone.build(_SIZE_PX).count_params()
        click.echo(f"{name:20}{n_parameters:>12,}  ImageNet weights: {found or f'not here ({lacks})'}")
    for name in SCRATCH:
        tail = find_scratch(name)((_SIZE_PX, _SIZE_PX, 3), softmax_answer(_N_CLASSES))
        click.echo(f"{name:20}{tail.count_params():>12,}  from scratch: it learns from your pictures")
    click.echo(f"parameters: of the former without a head, of the others at {_SIZE_PX} px with {_N_CLASSES} classes")
