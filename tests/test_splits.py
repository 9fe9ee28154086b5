from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepsky.catalogue.objid import are_objids, pack_objid, unpack_objid
from deepsky.catalogue.tables import read_objects
from deepsky.datasets.params import SplitParams
from deepsky.datasets.splits import _take, fold_splits, sky_groups, split_rows
from deepsky.errors import DataError
from deepsky.stages import split as stage

PARAMS = SplitParams(seed=1, test_fraction=0.2, val_fraction=0.2, cell_arcmin=2.0, link_arcmin=2.0)


def make_rows(seed: int = 0, n_fields: int = 20, per_class: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    fields = [(752, 1 + i % 6, 100 + 5 * i) for i in range(n_fields)]
    rows = [
        {"label": label, "run": run, "camcol": camcol, "field": field, "image": number}
        for number, (run, camcol, field) in enumerate(fields)
        for label in ("GALAXY", "QSO", "STAR")
        for _ in range(per_class)
    ]
    table = pd.DataFrame(rows)
    table["id"] = [str(n) for n in rng.permutation(len(table))]
    table["ra_deg"] = rng.uniform(0, 360, len(table))
    table["dec_deg"] = rng.uniform(-80, 80, len(table))
    return table


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), order=st.randoms(use_true_random=False))
def test_groups_are_whole_and_row_order_does_not_matter(seed, order):
    rows = make_rows(seed)
    split = split_rows(rows, "field", PARAMS)
    assert (split.groupby("group")["split"].nunique() == 1).all()
    positions = list(range(len(rows)))
    order.shuffle(positions)
    shuffled = split_rows(rows.iloc[positions].reset_index(drop=True), "field", PARAMS)
    assert split.set_index("id")["split"].to_dict() == shuffled.set_index("id")["split"].to_dict()


def test_fractions_and_classes():
    rows = make_rows()
    split = split_rows(rows, "field", PARAMS)["split"]
    shares = split.value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.2, abs=0.05)
    assert shares["val"] == pytest.approx(0.2, abs=0.05)
    assert (rows.groupby(split.to_numpy())["label"].nunique() == 3).all()
    other = split_rows(rows, "field", replace(PARAMS, seed=2))
    assert (other["split"] != split).any()


def test_rows_by_themselves_keep_the_shares_of_their_classes():
    rows = make_rows().assign(image=range(360))
    rows = rows[(rows["label"] != "STAR") | (rows["image"] % 2 == 0)].reset_index(drop=True)
    split = split_rows(rows, "image", PARAMS)
    for name, own in split.groupby(rows["label"]):
        assert (own["split"] == "test").sum() == pytest.approx(0.2 * len(own), abs=1), name
    backwards = split_rows(rows.iloc[::-1].reset_index(drop=True), "image", PARAMS)
    assert split.set_index("id")["split"].to_dict() == backwards.set_index("id")["split"].to_dict()
    other = split_rows(rows, "image", replace(PARAMS, seed=2))
    assert (other["split"] != split["split"]).any()


def test_overlapping_neighbours_share_a_group():
    rows = pd.DataFrame({"run": [1, 1, 1, 1, 1, 2], "camcol": [1, 1, 1, 2, 1, 1], "field": [12, 11, 14, 13, 13, 12]})
    groups = sky_groups(rows, "field", PARAMS)
    assert groups.tolist() == ["000001-1-0011"] * 3 + ["000001-2-0013", "000001-1-0011", "000002-1-0012"]


def test_close_neighbours_share_a_group_wherever_they_lie():
    dec_deg = [39.9999, 40.0001, 40.0334, 40.0, 40.0, 0.0, 0.0, 89.999, 89.999, -30.0]
    ra_deg = [10.0, 10.0, 10.0, 10.043, 10.1, 359.99, 0.01, 0.0, 180.0, 10.0]
    rows = pd.DataFrame({"ra_deg": ra_deg, "dec_deg": dec_deg})
    groups = sky_groups(rows, "neighbours", PARAMS)
    # 0.72" apart; a friend of a friend; 1.98' and then 2.6' of right ascension; across 0 h; across the pole; alone.
    assert pd.factorize(groups)[0].tolist() == [0, 0, 0, 0, 1, 2, 2, 3, 3, 4]
    assert sky_groups(rows[::-1], "neighbours", PARAMS).to_dict() == groups.to_dict()


def test_sky_cells_hold_neighbours_and_part_strangers():
    rows = pd.DataFrame({"ra_deg": [10.0001, 10.0002, 10.5], "dec_deg": [40.0001, 40.0002, 40.0001]})
    groups = sky_groups(rows, "sky", PARAMS)
    assert groups[0] == groups[1] != groups[2]


def test_scarce_class_is_refused_by_name():
    rows = make_rows(n_fields=20)
    rows = rows[(rows["label"] != "QSO") | (rows["field"] < 110)]
    with pytest.raises(DataError, match=r"class QSO: lies in 2 groups, too few .* test_fraction"):
        split_rows(rows, "field", PARAMS)


def test_missing_columns_are_refused_by_name():
    rows = make_rows().assign(group=np.nan)
    with pytest.raises(DataError, match="has no group; group_by: group needs it"):
        split_rows(rows, "group", PARAMS)
    with pytest.raises(DataError, match="not SDSS objIDs"):
        split_rows(rows, "objid", PARAMS)


@given(
    run=st.integers(1, 2**16 - 1),
    rerun=st.integers(1, 2**11 - 1),
    camcol=st.integers(1, 6),
    field=st.integers(0, 2**12 - 1),
    number=st.integers(0, 2**16 - 1),
)
def test_objid_round_trip(run, rerun, camcol, field, number):
    objid = pack_objid(rerun=rerun, run=run, camcol=camcol, field=field, number=number)
    parts = unpack_objid(np.atleast_1d(objid)).iloc[0].to_dict()
    assert parts == {"rerun": rerun, "run": run, "camcol": camcol, "field": field, "number": number}


def test_objid_refuses_floats_and_knows_a_real_one():
    with pytest.raises(TypeError, match="integers"):
        unpack_objid([1.2376487e18])
    parts = unpack_objid([1237648720693755918]).iloc[0]
    assert (parts["run"], parts["rerun"], parts["camcol"], parts["field"]) == (756, 301, 2, 427)
    assert not are_objids(pd.Series(["1237648720693755918", "12"]))


@pytest.mark.real
def test_real_galaxy_zoo_ids_are_objids(real_data):
    labels = read_objects(
        real_data("galaxy_zoo1/labels.csv"),
        id_column="OBJID",
        label_column="name",
        classes=("elliptical", "spiral_cw", "spiral_acw", "edge_on", "dont_know", "merger"),
    )
    assert are_objids(labels["id"])
    split = split_rows(labels.assign(image=range(len(labels))), "objid", PARAMS)
    assert split["split"].value_counts().to_dict()["test"] == pytest.approx(200, abs=10)


@pytest.mark.real
def test_real_reference_table_is_refused_by_objid_and_read_by_specobjid(real_data, tmp_path):
    table = real_data("catalogues/Skyserver_SQL2_27_2018_6_51_39_PM.csv")
    classes = ("GALAXY", "QSO", "STAR")
    with pytest.raises(DataError, match=r"rounded id 1\.2376"):
        read_objects(table, id_column="objid", label_column="class", classes=classes)


def test_no_test_part():
    split = split_rows(make_rows(), "field", replace(PARAMS, test_fraction=0.0))["split"]
    assert set(split) == {"train", "val"}
    assert split.value_counts(normalize=True)["val"] == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(
    "change", [{"seed": -1}, {"test_fraction": float("nan")}, {"val_fraction": 0.7}, {"link_arcmin": 0}]
)
def test_params_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=r"(seed|test_fraction and val_fraction|link_arcmin) must"):
        replace(PARAMS, **change)


def given_rows() -> pd.DataFrame:
    """60 train rows and 18 test rows of three classes, with the part in the group column."""
    rows = make_rows(n_fields=13, per_class=2)
    return rows.assign(image=range(len(rows)), group=["train"] * 60 + ["test"] * 18)


def test_a_given_test_part_stays_the_test_rows_whatever_the_seed():
    rows, chosen = given_rows(), []
    for seed in (1, 2):
        split = split_rows(rows, "given", replace(PARAMS, seed=seed))
        assert ((split["split"] == "test") == (rows["group"] == "test")).all()
        assert split["group"].nunique() == len(rows)  # val is drawn image by image
        assert (split["split"] == "val").sum() == pytest.approx(15, abs=1)  # 0.2 / (1 - 0.2) of the train part
        chosen.append(set(split["id"][split["split"] == "val"]))
    assert chosen[0] != chosen[1]


def test_given_parts_that_cannot_be_used_are_refused_by_name():
    rows = given_rows()
    with pytest.raises(DataError, match="is of the part 'dev', which is none of train, val, test; choose another"):
        split_rows(rows.assign(group=["dev"] + ["train"] * 59 + ["test"] * 18), "given", PARAMS)
    with pytest.raises(DataError, match="the given test part: lacks the class STAR"):
        split_rows(rows[(rows["group"] == "train") | (rows["label"] != "STAR")], "given", PARAMS)
    with pytest.raises(DataError, match="has no group; group_by: given needs it"):
        split_rows(rows.assign(group=np.nan), "given", PARAMS)


def folds_of(rows: pd.DataFrame, n_folds: int = 4, seed: int = 1) -> tuple[pd.DataFrame, list[np.ndarray]]:
    split = split_rows(rows, "field", PARAMS)
    label = rows["label"].astype("category").cat.codes.to_numpy(np.int64)
    return split, fold_splits(split["split"].to_numpy(str), label, split["group"].to_numpy(str), n_folds, seed)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_folds_part_the_train_and_val_rows_by_group_and_leave_test_alone(seed):
    rows = make_rows(seed, n_fields=30)
    split, folds = folds_of(rows, seed=seed)
    for fold in folds:
        assert ((fold == "test") == (split["split"] == "test")).all()
        assert (pd.Series(fold).groupby(split["group"]).nunique() == 1).all()
        assert set(rows["label"][fold == "val"]) == set(rows["label"][fold == "train"]) == {"GALAXY", "QSO", "STAR"}
    times_held = np.sum([fold == "val" for fold in folds], axis=0)
    assert (times_held == (split["split"] != "test")).all()


def test_folds_follow_from_their_seed():
    rows = make_rows(n_fields=30)
    first, same, other = (folds_of(rows, seed=seed)[1] for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, same, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_more_folds_than_groups_are_refused():
    with pytest.raises(DataError, match=r"class number 0: lies in 16 groups .* too few for 17 folds; lower tune.folds"):
        folds_of(make_rows(), n_folds=17)


def test_a_dataset_that_no_run_learns_from_has_a_table_without_rows(tmp_path):
    stage.run(None, PARAMS, packed=tmp_path / "absent", out=tmp_path / "splits/mine.csv")
    assert (tmp_path / "splits/mine.csv").read_text() == "id,split,group\n"


def test_few_groups_with_mixes_of_their_own_are_shared_out_evenly():
    """Of the choices that stratifying offers the most even one is taken, not the first."""
    rng = np.random.default_rng(0)
    mixes = rng.dirichlet([4 / 3] * 3, 15)
    rows = pd.DataFrame({"field": np.repeat(np.arange(15), 40)})
    rows["label"] = [rng.choice(["GALAXY", "QSO", "STAR"], p=mixes[field]) for field in rows["field"]]
    rows["group"] = rows["field"].astype(str)
    taken = _take(rows, 0.2, 1, "test")
    shares = [rows["label"].iloc[part].value_counts(normalize=True) for part in (taken, slice(None))]
    assert (shares[0] - shares[1]).abs().max() < 0.1  # 0.16 in the first choice
