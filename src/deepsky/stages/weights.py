"""Stage weights: the weights that each network starts from."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from deepsky.files import whole_folder
from deepsky.networks.params import WeightsParams
from deepsky.networks.pretrained import write_weights
from deepsky.networks.weights_card import WeightsCard


def run(networks: Mapping[str, bool], params: WeightsParams, *, out: Path) -> None:
    """Write NETWORK/weights.h5 and NETWORK/weights.json of every network; random weights are announced.

    Args:
        networks: whether any run starts from pretrained weights of it, by network. Where none does there is no
            weights.h5.
        params: where to look.
        out: folder to write.

    Raises:
        WeightsError: see ``networks.pretrained.write_weights``.
    """
    drawn: dict[str, list[str]] = {}
    with whole_folder(out) as folder:
        for network, needed in networks.items():
            (folder / network).mkdir()
            if not needed:
                card = WeightsCard("scratch", "", "")
                (folder / network / "weights.json").write_text(json.dumps(asdict(card), indent=2) + "\n")
                continue
            card, note = write_weights(network, params, folder / network)
            if card.weights == "random":
                drawn.setdefault(note, []).append(network)
            else:
                _announce(network, card, note)
    for note, names in drawn.items():  # most lack weights for the same reason
        _warn(f"RANDOM weights for {', '.join(names)}: {note}")


def _announce(network: str, card: WeightsCard, note: str) -> None:
    if card.weights == "imagenet":
        print(f"{network}: ImageNet weights from {note}", flush=True)
    else:
        _warn(f"{network} gets CUSTOM weights, {card.source}; they are used as they are: {note}")


def _warn(text: str) -> None:
    print(f"WARNING: {text}", file=sys.stderr, flush=True)
