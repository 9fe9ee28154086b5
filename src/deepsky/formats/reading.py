"""Read a dataset of pictures, whatever its format: all of it, or the part that ``limit`` asks for."""

from pathlib import Path

import pandas as pd

from deepsky.errors import ConfigError
from deepsky.formats.format import Objects
from deepsky.formats.params import PicturesParams
from deepsky.formats.registry import find


def read_dataset(source: Path, params: PicturesParams) -> Objects:
    """Read what a source holds, in the layout of its format.

    Args:
        source: the file or folder.
        params: the dataset's entry.

    Raises:
        DataError: the source cannot be used.
        ConfigError: it does not have what the entry asks of it: so many objects, for one.
    """
    return part_of(find(params.format).read(source, params), source, params)


def part_of(objects: Objects, source: Path, params: PicturesParams) -> Objects:
    """Return what ``limit`` leaves of objects.

    Raises:
        ConfigError: there are not so many of them, or more classes.
    """
    if params.limit is None:
        return objects
    n_rows, classes = len(objects.rows), objects.rows["label"].unique()
    if params.limit > n_rows:
        raise ConfigError(f"limit {params.limit}", f"is more than the {n_rows} objects of {source}", "lower it")
    if params.limit < len(classes):
        problem = f"is less than the {len(classes)} classes of {source}"
        raise ConfigError(f"limit {params.limit}", problem, "raise it: each class needs some objects")
    parts = ["label", "group"] if params.group == "given" else ["label"]
    return objects.take(_drawn(objects.rows, parts, params.limit, params.limit_seed), "objects beyond limit")


def _drawn(rows: pd.DataFrame, parts: list[str], limit: int, seed: int) -> list[int]:
    """Draw places of rows, each part's share of them as in all; at least one of each, if there are enough.

    The order of the rows does not matter, and a larger draw holds every smaller one: the rows of each part are
    shuffled, then taken from all parts at the same pace.
    """
    shuffled = rows.sort_values("id").sample(frac=1, random_state=seed)
    by_part = shuffled.groupby(parts, sort=False)["id"]
    pace = by_part.cumcount() / by_part.transform("size")
    return sorted(pace.sort_values(kind="stable").index[:limit])
