"""Make params.yaml a miniature of itself: every stage and kind of run within minutes, to try things and for tests."""

from typing import Any

import click

from deepsky.config import PARAMS
from deepsky.experiment import edit
from deepsky.experiment.experiment import read_experiment

# What params.yaml has of these keys is set to these values.
_VALUES: dict[tuple[str, ...], Any] = {
    ("catalogue", "n_fields"): 8,
    ("catalogue", "n_per_class_per_field"): 4,
    ("simulate", "n_galaxy_zoo"): 160,
    ("simulate", "n_galaxy_zoo1"): 72,
    ("simulate", "n_galaxy10"): 120,
    ("train", "input_size_px"): 32,
    ("train", "epochs"): 2,
    ("tune", "trials"): 4,
    ("tune", "epochs"): 2,
}
# In every entry of these.
_OF_EACH: dict[tuple[str, ...], dict[str, Any]] = {
    ("networks",): {"input_size_px": 32, "epochs": 2},
    ("runs",): {"input_size_px": 48, "epochs": 1, "n_views": 1, "head_epochs": 1},
    ("datasets", "pictures"): {"size_px": 48},
}
_NETWORKS = ("efficientnet_lite0", "cnn_small")  # one of each kind


def run() -> None:
    """Shrink params.yaml and print what changed; ``git checkout params.yaml`` undoes it.

    Raises:
        ConfigError: whatever is wrong in params.yaml.
    """
    read_experiment()  # whatever is wrong in the file is said first
    document = edit.load()
    before = edit.text_of(document)
    for keys, value in _VALUES.items():
        _shrink(document, keys, value)
    for section, values in _OF_EACH.items():
        for name in _entry(document, section):
            for key, value in values.items():
                _shrink(document, (*section, name, key), value)
    networks = _entry(document, ("compare", "networks"))
    kept = [one for one in networks if one in _NETWORKS] or list(networks)[:1]
    for network in [one for one in networks if one not in kept]:
        edit.remove(document, ("compare", "networks", network))
    edit.save(document)
    click.echo(edit.diff(before, edit.text_of(document)) or f"{PARAMS} is a miniature already")


def _entry(document: Any, keys: tuple[str, ...]) -> Any:
    """Return what stands there; nothing where the file leaves it out."""
    for key in keys:
        document = document.get(key) if hasattr(document, "get") else None
    return document if document is not None else {}


def _shrink(document: Any, keys: tuple[str, ...], value: Any) -> None:
    """Lower a number that is there and larger."""
    owner, key = _entry(document, keys[:-1]), keys[-1]
    if key in owner and owner[key] > value:
        owner[key] = value
