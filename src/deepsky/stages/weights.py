"""Stage weights: the pretrained weights of one backbone, as a tracked file."""

import sys
from pathlib import Path

from deepsky.files import whole_folder
from deepsky.networks.pretrained import WeightsParams, write_weights


def run(network: str, params: WeightsParams, *, out: Path) -> None:
    """Write weights.h5 and weights.json; all but ImageNet weights are announced on stderr.

    Raises:
        WeightsError: the weights do not fit, or were asked for and not found.
    """
    with whole_folder(out) as folder:
        card, note = write_weights(network, params, folder)
    if card.weights == "random":
        print(
            f"WARNING: {network} gets RANDOM weights ({card.source}), its accuracy means little: {note}",
            file=sys.stderr,
        )
    elif card.weights == "custom":
        print(
            f"WARNING: {network} gets CUSTOM weights, {card.source}; they are used as they are: {note}",
            file=sys.stderr,
        )
    else:
        print(f"{network}: ImageNet weights from {note}")
