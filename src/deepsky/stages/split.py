"""Stage split: one CSV per dataset that says which row trains, validates and tests."""

from pathlib import Path

from deepsky.datasets.packed import open_packed
from deepsky.datasets.splits import GroupBy, SplitParams, split_rows
from deepsky.errors import about
from deepsky.files import whole_file


def run(group_by: GroupBy, params: SplitParams, *, packed: Path, out: Path) -> None:
    """Write id, split and group of every row of a packed dataset."""
    rows = open_packed(packed).rows
    with about(packed):
        table = split_rows(rows, group_by, params)
    with whole_file(out) as path:
        table.to_csv(path, index=False, lineterminator="\n")
