"""Stage features: what each frozen network sees of a dataset, every network in one process."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from deepsky import progress
from deepsky.datasets.packed import Packed, open_packed
from deepsky.files import whole_file
from deepsky.networks.params import BatchSize
from deepsky.networks.weights_card import read_weights_card
from deepsky.training.examples import read_split
from deepsky.training.recipe import ViewSpec
from deepsky.training.view_features import KEY, write_views

CARD = "features.json"  # of the dataset, and of each network: one of which nothing is cached has a folder too


@dataclass(frozen=True, kw_only=True)
class NetworkFeatures:
    """What is to be cached of one network.

    Attributes:
        code: fingerprint of the code that computes it.
        views: what the network is shown, by the name of its folder; none where it learns from the images.
        deterministic: whether a GPU gives the same bytes each time.
    """

    code: str = ""
    views: Mapping[str, ViewSpec] = field(default_factory=dict)
    deterministic: bool = False


def run(
    networks: Mapping[str, NetworkFeatures],
    batch_size: BatchSize,
    *,
    packed: Path,
    split: Path,
    weights: Path,
    out: Path,
) -> None:
    """Write NETWORK/VIEWS/ of ``training.view_features.ViewFeatures``; what is there and current stays.

    Args:
        networks: what to cache, by network.
        batch_size: images per step; ``auto``: what suits the device.
        packed: the dataset.
        split: its split: only images of train rows get random views.
        weights: folder with a folder of weights for each network.
        out: folder to write; it may hold what an earlier run wrote.

    Raises:
        DataError: an input is missing or does not fit the others, or a feature is not finite.
        ConfigError: there is no such network, or the input size is too small for it.
        WeightsError: the weights cannot be read or do not fit.
    """
    _remove_others(out, {out / CARD, *(out / network for network in networks)})
    with whole_file(out / CARD) as file:  # a folder with nothing in it would be none for DVC
        file.write_text(json.dumps({"networks": list(networks)}) + "\n")
    for n_done, (network, wanted) in enumerate(networks.items()):
        progress.tell(n_done, len(networks))
        _remove_others(out / network, {out / network / CARD, *(out / network / name for name in wanted.views)})
        if wanted.views:
            _write_network(network, wanted, batch_size, packed, split, weights / network, out / network)
        with whole_file(out / network / CARD) as file:
            file.write_text(json.dumps({"views": {name: asdict(v) for name, v in wanted.views.items()}}) + "\n")


def _write_network(
    network: str, wanted: NetworkFeatures, batch_size: BatchSize, packed: Path, split: Path, weights: Path, out: Path
) -> None:
    dataset = open_packed(packed)
    trained = dataset.rows["image"].to_numpy(np.int64)[read_split(split, dataset) == "train"]
    images = np.unique(trained)
    for name, views in wanted.views.items():
        key = _key(wanted, views, dataset, packed, read_weights_card(weights).sha256, images)
        key_file = out / name / KEY
        if key_file.exists() and key_file.read_text() == key:
            print(f"{network} {name}: is there")
            continue
        n_views, n_viewed, n_features = write_views(
            network, views, dataset, weights / "weights.h5", images, out / name, batch_size=batch_size, folder=packed
        )
        with whole_file(key_file) as file:
            file.write_text(key)
        seen = f", and of {n_views} random views of {n_viewed} of them" if n_views else ""
        print(f"{network} {name}: {n_features} features of {len(dataset.images)} images{seen}", flush=True)


def _key(
    wanted: NetworkFeatures, views: ViewSpec, dataset: Packed, packed: Path, weights_sha256: str, images: np.ndarray
) -> str:
    """Return a hash of all that features follow from."""
    with (packed / "images.npy").open("rb") as file:
        pixels = hashlib.file_digest(file, "sha256").hexdigest()
    seen = images.tobytes().hex() if views.n_views else ""
    parts = [wanted.code, wanted.deterministic, asdict(views), asdict(dataset.card), pixels, weights_sha256, seen]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _remove_others(folder: Path, wanted: set[Path]) -> None:
    for path in set(folder.iterdir() if folder.is_dir() else ()) - wanted:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
