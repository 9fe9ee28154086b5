"""Print what a run learns with, and where each number comes from."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from deepsky.config import PARAMS
from deepsky.experiment.experiment import read_experiment
from deepsky.experiment.runs import DEFAULT


def run(name: str) -> None:
    """Print every setting of a run with its place in params.yaml and how ``dvc exp run -S`` reaches it.

    Args:
        name: of a run; DATASET-NETWORK for those of ``compare``.

    Raises:
        ConfigError: params.yaml is wrong, or there is no such run.
    """
    found = read_experiment().find(name)
    own = f"networks.{found.recipe.network}" if found.is_cell else f"runs.{found.name}"
    table = Table(title=found.name, title_justify="left", box=None)
    for column in ("setting", "value", "from", "dvc exp run -S"):
        table.add_column(column, overflow="fold")
    for key, value in found.settings.items():
        if key == "origin":
            continue
        place = found.places.get(key, DEFAULT)
        plus = "" if place == own else "+"  # Hydra's word for a key that is not there yet
        how = "" if key in ("dataset", "network") else f"{plus}{own}.{key}=..."
        table.add_row(key, _text(value), place, how)
    console = Console()
    console.print(table)
    if found.recipe.origin:
        origin = found.recipe.origin
        console.print(f"found by study {origin.study}, trial {origin.trial}, beside {origin.run}")
    shared = f"networks.{found.recipe.network} changes all runs of the network in {PARAMS}" if found.is_cell else ""
    console.print(shared, highlight=False) if shared else None


def _text(value: Any) -> str:
    return json.dumps(value).replace('"', "")
