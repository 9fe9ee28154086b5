"""Stage split: one CSV per dataset that says which row trains, validates and tests."""

from pathlib import Path

import pandas as pd

from deepsky.datasets.packed import open_packed
from deepsky.datasets.params import GroupBy, SplitParams
from deepsky.datasets.splits import split_rows
from deepsky.errors import about
from deepsky.files import whole_file


def run(group_by: GroupBy | None, params: SplitParams, *, packed: Path, out: Path) -> None:
    """Write id, split and group of every row of a packed dataset.

    Args:
        group_by: what must stay together; None: no run learns from the dataset, and the table has no rows, as there
            need not be a way to split it.
        params: section ``split``.
        packed: the dataset.
        out: the CSV to write.

    Raises:
        DataError: the rows lack the columns that ``group_by`` needs, or a class would be missing from a split.
    """
    if group_by is None:
        table = pd.DataFrame(columns=["id", "split", "group"])
    else:
        rows = open_packed(packed).rows
        with about(packed):
            table = split_rows(rows, group_by, params)
    with whole_file(out) as path:
        table.to_csv(path, index=False, lineterminator="\n")
