"""Train, validation and test by sky group: what lies together on the sky is never torn apart."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from deepsky.catalogue.objid import are_objids, unpack_objid
from deepsky.errors import DataError

GroupBy = Literal["field", "objid", "sky", "group", "image"]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DatasetParams:
    """One entry of ``datasets`` in params.yaml.

    Attributes:
        group_by: what must stay in one split. ``field``: SDSS field by run, camcol and field, overlapping
            neighbours merged; ``objid``: the same, read out of SDSS objIDs; ``sky``: square cells of the sky;
            ``group``: the dataset's own group column; ``image``: each distinct image by itself.
    """

    group_by: GroupBy


@dataclass(frozen=True)
class SplitParams:
    """The section ``split``.

    Attributes:
        seed: of the assignment of groups to splits.
        test_fraction: share of the rows wanted in test; val_fraction likewise.
        cell_arcmin: side of the sky cells of ``group_by: sky``.
    """

    seed: int
    test_fraction: float
    val_fraction: float
    cell_arcmin: float

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie between 0 and {2**32 - 1}, not {self.seed}")
        fractions = (self.test_fraction, self.val_fraction)
        if not (min(fractions) > 0 and sum(fractions) <= 0.8):  # so that NaN fails too
            raise ValueError("test_fraction and val_fraction must be above 0 and leave at least 0.2 for training")
        if not 0 < self.cell_arcmin < 60:
            raise ValueError(f"cell_arcmin must lie between 0 and 60, not {self.cell_arcmin}")


def split_rows(rows: pd.DataFrame, group_by: GroupBy, params: SplitParams) -> pd.DataFrame:
    """Assign every row to train, val or test.

    Args:
        rows: rows.csv of a packed dataset.
        group_by: what must stay together.
        params: fractions and seed.

    Returns:
        id, split and group, in the order of ``rows``; each id's split does not depend on that order.

    Raises:
        DataError: the rows lack the columns that ``group_by`` needs, or a class would be missing from a split.
    """
    groups = sky_groups(rows, group_by, params.cell_arcmin)
    by_id = rows.assign(group=groups).sort_values("id", ignore_index=True)
    split = pd.Series("train", index=by_id.index)
    split[_take(by_id, params.test_fraction, params.seed, "test")] = "test"
    rest = by_id[split == "train"]
    split[rest.index[_take(rest, params.val_fraction / (1 - params.test_fraction), params.seed, "val")]] = "val"
    assigned = pd.Series(split.to_numpy(), index=by_id["id"])
    return pd.DataFrame({"id": rows["id"], "split": assigned.loc[rows["id"]].to_numpy(), "group": groups})


def fold_splits(
    split: npt.NDArray[np.str_], label: npt.NDArray[np.int64], group: npt.NDArray[np.str_], n_folds: int, seed: int
) -> list[npt.NDArray[np.str_]]:
    """Make several splits of the train and val rows, each of which holds back another part of their groups as val.

    Args:
        split: ``train``, ``val`` or ``test`` of each row; test stays what it is.
        label: class index of each row.
        group: what must stay together.
        n_folds: number of parts, at least 2.
        seed: of the assignment of groups to parts.

    Returns:
        One split per fold; every train and val row is val in exactly one of them.

    Raises:
        DataError: a fold would lack a class among its val or its train rows.
    """
    rows, result = np.flatnonzero(split != "test"), []
    remedy = "lower tune.folds in params.yaml, add objects or choose a finer group_by"
    groups_per_class = {code: len(set(group[rows][label[rows] == code])) for code in np.unique(label)}
    scarce = min(groups_per_class, key=lambda code: groups_per_class[code])
    if groups_per_class[scarce] < n_folds:
        problem = f"lies in {groups_per_class[scarce]} groups of train and val rows, too few for {n_folds} folds"
        raise DataError(f"class number {scarce}", problem, remedy)
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    for number, (_, held) in enumerate(folds.split(rows, label[rows], group[rows]), start=1):
        fold = np.where(split == "test", "test", "train")
        fold[rows[held]] = "val"
        if any(len(set(label[fold == part])) < len(groups_per_class) for part in ("train", "val")):
            raise DataError(f"fold {number} of {n_folds}", "lacks a class among its train or val rows", remedy)
        result.append(fold)
    return result


def sky_groups(rows: pd.DataFrame, group_by: GroupBy, cell_arcmin: float) -> pd.Series:
    """Name the sky group of each row.

    Raises:
        DataError: the rows lack the columns that ``group_by`` needs.
    """
    if group_by == "image":
        return "image-" + rows["image"].astype(str)
    if group_by == "objid":
        if not are_objids(rows["id"]):
            raise DataError("column id", "holds ids that are not SDSS objIDs", "choose another group_by in params.yaml")
        return _field_groups(unpack_objid(rows["id"].astype(np.int64)).set_index(rows.index))
    needed = {"field": ["run", "camcol", "field"], "sky": ["ra_deg", "dec_deg"], "group": ["group"]}[group_by]
    for column in needed:
        if rows[column].isna().any():
            bad = rows.loc[rows[column].isna(), "id"].iloc[0]
            raise DataError(
                f"object {bad}", f"has no {column}", f"group_by: {group_by} needs it; choose another group_by"
            )
    if group_by == "field":
        return _field_groups(rows)
    return rows["group"].astype(str) if group_by == "group" else _sky_cells(rows, cell_arcmin)


def _field_groups(rows: pd.DataFrame) -> pd.Series:
    """Merge consecutive fields of one run and camcol: 128 of a frame's 1489 rows are also its neighbour's."""
    fields = rows[["run", "camcol", "field"]].astype(np.int64)
    distinct = fields.drop_duplicates().sort_values(["run", "camcol", "field"])
    steps = distinct.diff()
    starts = (steps["run"] != 0) | (steps["camcol"] != 0) | (steps["field"] > 1)
    first = distinct["field"].where(starts).ffill().astype(np.int64)
    names = [f"{r:06d}-{c}-{f:04d}" for r, c, f in zip(distinct["run"], distinct["camcol"], first, strict=True)]
    lookup = pd.Series(names, index=pd.MultiIndex.from_frame(distinct))
    return pd.Series(lookup.loc[pd.MultiIndex.from_frame(fields)].to_numpy(), index=rows.index)


def _sky_cells(rows: pd.DataFrame, cell_arcmin: float) -> pd.Series:
    """Square cells: bands of declination, cut in right ascension so that a cell is as wide as it is high."""
    band = np.floor(rows["dec_deg"] * 60 / cell_arcmin).astype(int)
    width_deg = cell_arcmin / 60 / np.cos(np.radians((band + 0.5) * cell_arcmin / 60)).clip(lower=1e-3)
    column = np.floor(rows["ra_deg"] / width_deg).astype(int)
    return "cell-" + band.astype(str) + "-" + column.astype(str)


def _take(rows: pd.DataFrame, fraction: float, seed: int, name: str) -> npt.NDArray[np.int64]:
    """Positions of about ``fraction`` of the rows: whole groups, every class on both sides."""
    n_folds = max(2, round(1 / fraction))
    groups_per_class = rows.groupby("label")["group"].nunique()
    scarce = groups_per_class.idxmin()
    if groups_per_class[scarce] < n_folds:
        raise DataError(
            f"class {scarce}",
            f"lies in {groups_per_class[scarce]} sky groups, too few to hold back one in {n_folds} for {name}",
            f"add objects, raise {name}_fraction or choose a finer group_by in params.yaml",
        )
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    classes = set(rows["label"])
    for kept, taken in folds.split(rows, rows["label"], rows["group"]):
        if classes == set(rows["label"].iloc[taken]) == set(rows["label"].iloc[kept]):
            return np.asarray(taken)
    raise DataError(
        f"split {name}", "no choice of sky groups holds every class", "add objects or choose a finer group_by"
    )
