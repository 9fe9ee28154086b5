"""Print what a run learns with, and where each number comes from."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table

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
    for column in ("", "setting", "value", "from"):
        table.add_column(column)
    for key, value in found.settings.items():
        place = found.places.get(key, DEFAULT)
        if key != "origin":
            table.add_row("" if place == own or key in ("dataset", "network") else "+", key, _text(value), place)
    console = Console()
    console.print(table)
    origin = found.recipe.origin
    if origin:
        console.print(f"found by study {origin.study}, trial {origin.trial}, beside {origin.run}", highlight=False)
    change = f"change one for an experiment: dvc exp run -S {own}.KEY=VALUE"
    console.print(f"{change}; those marked + are inherited: -S +{own}.KEY=VALUE", highlight=False, soft_wrap=True)


def _text(value: Any) -> str:
    return json.dumps(value).replace('"', "")
