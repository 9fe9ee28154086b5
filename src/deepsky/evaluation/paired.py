"""Whether one run of a dataset is really better than another; both answer the same objects, so they are paired."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.intervals import FEW_GROUPS, Resampling

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """The runs of one dataset, on the objects that all were tested on.

    Attributes:
        measure: ``accuracy``, or ``rmse`` of fractions.
        n: objects.
        n_groups: groups of the split among them; of fewer than ``intervals.FEW_GROUPS`` nothing is reliable.
        runs: their names, the best one first.
        score: of each.
        behind: by how much each is worse than the best one.
        behind_low: lower end of the 95 % interval of that, by the bootstrap over groups.
        behind_high: upper end of it.
        n_differing: in how many groups the runs of row and column have not the same score.
        better: in which share of the replicates the run of a row is better than that of a column; equal ones count
            half.
    """

    measure: str
    n: int
    n_groups: int
    runs: list[str]
    score: list[float]
    behind: list[float]
    behind_low: list[float]
    behind_high: list[float]
    n_differing: list[list[int]]
    better: list[list[float]]

    def is_told(self, one: int, other: int) -> bool:
        """Tell whether enough groups differ between two runs to say which of them is better."""
        return self.n_differing[one][other] >= FEW_GROUPS


def by_group(groups: pd.Series, values: npt.ArrayLike, measure: str) -> pd.DataFrame:
    """Return group, n and the measure of each group of the test objects.

    Args:
        groups: of each object.
        values: whether it was answered rightly, or its mean squared error.
        measure: ``accuracy`` or ``rmse``.
    """
    of_objects = pd.DataFrame({"group": groups.to_numpy(str), "value": np.asarray(values, np.float64)})
    table = of_objects.groupby("group")["value"].agg(["size", "mean"]).reset_index()
    table.columns = pd.Index(["group", "n", measure])
    return table if measure == "accuracy" else table.assign(rmse=np.sqrt(table["rmse"]))


def compare(tables: Mapping[str, pd.DataFrame], measure: str) -> Comparison | None:
    """Compare the runs of one dataset, all with one matrix of replicates.

    Args:
        tables: of each run, by its name, as ``by_group`` makes them. A group is never torn by a split, so runs that
            were tested on a group were tested on the same objects of it.
        measure: that the tables hold.

    Returns:
        None: they are fewer than two, or were tested on nothing in common.
    """
    indexed = [one.set_index(["group", "n"])[measure].rename(name) for name, one in tables.items()]
    joined = pd.concat(indexed, axis=1, join="inner").sort_index()
    return _compared(joined, measure) if len(tables) > 1 and len(joined) else None


def _compared(joined: pd.DataFrame, measure: str) -> Comparison:
    """Compare the columns of a table of groups; the index is group and n."""
    n, rows = (
        joined.index.get_level_values("n").to_numpy(np.float64),
        Resampling(joined.index.get_level_values("group")),
    )
    n_drawn = rows.sums(n)
    # Counts of right answers are whole again, so that equal runs have equal replicates.
    sums = {
        name: np.rint(n * of) if measure == "accuracy" else n * of**2
        for name, of in ((str(name), joined[name].to_numpy(np.float64)) for name in joined)
    }

    def goodness(total: Array | float, count: Array | float) -> Array:
        share = np.asarray(total / count)
        return share if measure == "accuracy" else -np.sqrt(share)

    points = {name: float(goodness(total.sum(), n.sum())) for name, total in sums.items()}
    runs = sorted(points, key=lambda name: (-points[name], name))
    replicates = np.array([goodness(rows.sums(sums[name]), n_drawn) for name in runs])
    low, high = np.quantile(replicates[0] - replicates, (0.025, 0.975), axis=1)
    better = [[float((one > other).mean() + (one == other).mean() / 2) for other in replicates] for one in replicates]
    values = joined[runs].to_numpy(np.float64)
    n_differing = [[int((one != other).sum()) for other in values.T] for one in values.T]
    return Comparison(
        measure=measure,
        n=int(n.sum()),
        n_groups=rows.n_groups,
        runs=runs,
        score=[abs(points[name]) for name in runs],
        behind=[points[runs[0]] - points[name] for name in runs],
        behind_low=low.tolist(),
        behind_high=high.tolist(),
        n_differing=n_differing,
        better=better,
    )
