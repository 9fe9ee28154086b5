"""Train, validation and test by sky group: what lies together on the sky is never torn apart."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.catalogue.objid import are_objids, unpack_objid
from deepsky.datasets.params import GroupBy, SplitParams
from deepsky.errors import DataError

SPLITS = ("train", "val", "test")
_CHOICE = 64  # groups that one is chosen from
_EVEN = 0.05  # by how much a class may have another share of a part than of all rows


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
    groups = sky_groups(rows, group_by, params)
    by_id = rows.assign(group=groups, part=rows["group"] if group_by == "given" else None)
    by_id = by_id.sort_values("id", ignore_index=True)
    split = _given_parts(by_id) if group_by == "given" else pd.Series("train", index=by_id.index)
    for name, fraction in (("test", params.test_fraction), ("val", params.val_fraction)):
        if fraction and not (split == name).any():
            rest = by_id[split == "train"]
            split[rest.index[_take(rest, fraction * len(by_id) / len(rest), params.seed, name)]] = name
    if group_by == "given" and not (split == "test").any():
        raise DataError("the given parts", "hold no test part, and test_fraction is 0", "raise split.test_fraction")
    assigned = pd.Series(split.to_numpy(), index=by_id["id"])
    return pd.DataFrame({"id": rows["id"], "split": assigned.loc[rows["id"]].to_numpy(), "group": groups})


def tested_part(split: npt.NDArray[np.str_]) -> str:
    """Name the rows that a network is scored on: ``test``, or ``val`` where there is no test part.

    Args:
        split: ``train``, ``val`` or ``test`` of each row.
    """
    return "test" if (split == "test").any() else "val"


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
    names = np.char.add("number ", label[rows].astype(str))
    for held in _held_parts(names, group[rows], n_folds, seed, remedy):
        fold = np.where(split == "test", "test", "train")
        fold[rows[held]] = "val"
        result.append(fold)
    return result


def cross_validation(
    rows: pd.DataFrame, n_folds: int, seed: int, val_fraction: float = 0.0
) -> list[npt.NDArray[np.str_]]:
    """Make several splits of a whole dataset, each of which tests on another part of its groups.

    Args:
        rows: id, label and group of each row; each id's splits do not depend on their order.
        n_folds: number of parts.
        seed: of the assignment of groups to parts.
        val_fraction: about this share of the rows that are not tested on is held back as val; 0: none.

    Returns:
        One split per fold, ``train``, ``val`` or ``test`` of each row; every row is test in exactly one of them.

    Raises:
        DataError: a fold would lack a class among its test, val or train rows.
    """
    remedy, result = "lower --folds, add objects or choose a finer group_by in params.yaml", []
    by_id = rows.sort_values("id", kind="stable")
    places = rows.index.get_indexer(by_id.index)
    by_id = by_id.reset_index(drop=True)
    parts = _held_parts(by_id["label"].to_numpy(str), by_id["group"].to_numpy(str), n_folds, seed, remedy)
    for held in parts:
        fold = np.full(len(rows), "train")
        fold[places[held]] = "test"
        if val_fraction:
            rest = by_id.drop(index=held)
            fold[places[rest.index[_take(rest, val_fraction, seed, "val")]]] = "val"
        result.append(fold)
    return result


def _held_parts(
    label: npt.NDArray[np.str_], group: npt.NDArray[np.str_], n_folds: int, seed: int, remedy: str
) -> list[npt.NDArray[np.int64]]:
    """Cut rows into parts of whole groups, with every class in each part and outside it."""
    groups_per_class = {name: len(set(group[label == name])) for name in np.unique(label)}
    scarce = min(groups_per_class, key=lambda name: groups_per_class[name])
    if groups_per_class[scarce] < n_folds:
        problem = f"lies in {groups_per_class[scarce]} groups of these rows, too few for {n_folds} folds"
        raise DataError(f"class {scarce}", problem, remedy)
    result = []
    for number, (kept, held) in enumerate(_folds(label, group, n_folds, seed), start=1):
        if any(len(set(label[part])) < len(groups_per_class) for part in (kept, held)):
            raise DataError(f"fold {number} of {n_folds}", "lacks a class among its held or other rows", remedy)
        result.append(np.asarray(held))
    return result


def _folds(
    label: npt.NDArray[np.str_], group: npt.NDArray[np.str_], n_folds: int, seed: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield the positions of the rows outside and inside of each part: whole groups, classes shared out evenly."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # slow to import

    if len(np.unique(group)) == len(group):  # no need to weigh group by group, which takes a thousand times as long
        return StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(label, label)
    return StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(label, label, group)


def nested_order(rows: pd.DataFrame, seed: int) -> npt.NDArray[np.int64]:
    """Put rows in an order of which every beginning is a fair sample of whole groups; the last may be cut short.

    Of the next groups of a shuffle always that one is taken after which the shares of the classes are most like those
    of all rows.

    Args:
        rows: id, label and group of each row; each id's place does not depend on their order.
        seed: of the shuffle.

    Returns:
        Positions of the rows, (n_rows,).
    """
    by_id, rng = np.argsort(rows["id"].to_numpy(str), kind="stable"), np.random.default_rng(seed)
    group, label = (np.unique(rows[name].to_numpy(str)[by_id], return_inverse=True)[1] for name in ("group", "label"))
    counts = np.zeros((group.max() + 1, label.max() + 1))
    np.add.at(counts, (group, label), 1)
    shares, taken, rank = counts.sum(axis=0) / len(rows), np.zeros(counts.shape[1]), np.empty(len(counts), np.int64)
    shuffled = rng.permutation(len(counts)).tolist()
    waiting, later = shuffled[:_CHOICE], iter(shuffled[_CHOICE:])
    for place in range(len(counts)):
        after = taken + counts[waiting]
        best = int(np.abs(after / after.sum(axis=1, keepdims=True) - shares).max(axis=1).argmin())
        taken, rank[waiting[best]] = after[best], place
        del waiting[best]
        waiting += [one for one in [next(later, None)] if one is not None]
    return by_id[np.lexsort((rng.permutation(len(rows)), rank[group]))]


def sky_groups(rows: pd.DataFrame, group_by: GroupBy, params: SplitParams) -> pd.Series:
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
    place = ["ra_deg", "dec_deg"]
    needed = {"field": ["run", "camcol", "field"], "sky": place, "neighbours": place}
    for column in needed.get(group_by, ["group"]):
        if rows[column].isna().any():
            bad = rows.loc[rows[column].isna(), "id"].iloc[0]
            raise DataError(
                f"object {bad}", f"has no {column}", f"group_by: {group_by} needs it; choose another group_by"
            )
    if group_by == "field":
        return _field_groups(rows)
    if group_by == "sky":
        return _sky_cells(rows, params.cell_arcmin)
    if group_by == "neighbours":
        return _linked(rows, params.link_arcmin)
    return rows["group"].astype(str) if group_by == "group" else sky_groups(rows, "image", params)


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


def _linked(rows: pd.DataFrame, link_arcmin: float) -> pd.Series:
    """Friends of friends: nothing is torn apart, as it is at the edges of cells."""
    from sklearn.cluster import DBSCAN  # slow to import

    position = np.radians(rows[["dec_deg", "ra_deg"]].to_numpy(float))
    order = np.lexsort(position.T)  # groups are numbered as they are met: the order of the rows must not matter
    friends = DBSCAN(np.radians(link_arcmin / 60), min_samples=1, metric="haversine", algorithm="ball_tree")
    number = np.empty(len(rows), np.int64)
    number[order] = friends.fit_predict(position[order])
    return pd.Series(number, index=rows.index).map("sky-{}".format)


def _given_parts(rows: pd.DataFrame) -> pd.Series:
    """Return the published part of each row; every part that is there must hold every class."""
    remedy = "choose another group_by in params.yaml"
    strange = rows[~rows["part"].isin(SPLITS)]
    if len(strange):
        problem = f"is of the part {strange['part'].iloc[0]!r}, which is none of {', '.join(SPLITS)}"
        raise DataError(f"object {strange['id'].iloc[0]}", problem, remedy)
    for part in ("train", *rows["part"].unique()):
        absent = sorted(set(rows["label"]) - set(rows.loc[rows["part"] == part, "label"]))
        if absent:
            raise DataError(f"the given {part} part", f"lacks the class {absent[0]}", remedy)
    return rows["part"].copy()


def _take(rows: pd.DataFrame, fraction: float, seed: int, name: str) -> npt.NDArray[np.int64]:
    """Positions of about ``fraction`` of the rows: whole groups, every class on both sides, shared out as everywhere.

    Few groups with mixes of their own cannot always be shared out evenly: the first choice that is even enough is
    taken, else the most even one.
    """
    n_folds = max(2, round(1 / fraction))
    groups_per_class = rows.groupby("label")["group"].nunique()
    scarce = groups_per_class.idxmin()
    if groups_per_class[scarce] < n_folds:
        raise DataError(
            f"class {scarce}",
            f"lies in {groups_per_class[scarce]} groups, too few to hold back one in {n_folds} for {name}",
            f"add objects, raise {name}_fraction or choose a finer group_by (image is the finest)",
        )
    label, classes = rows["label"].to_numpy(str), set(rows["label"])
    choices: list[tuple[float, npt.NDArray[np.int64]]] = []
    for kept, taken in _folds(label, rows["group"].to_numpy(str), n_folds, seed):
        if classes == set(label[taken]) == set(label[kept]):
            off = max(abs((label[taken] == one).mean() - (label == one).mean()) for one in classes)
            choices.append((float(off), np.asarray(taken)))
            if off <= _EVEN:
                break
    if not choices:
        remedy = "add objects or choose a finer group_by"
        raise DataError(f"split {name}", "no choice of groups holds every class", remedy)
    return min(choices, key=lambda choice: choice[0])[1]
