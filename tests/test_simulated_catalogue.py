import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import gammaln
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GroupKFold, cross_val_score

from deepsky.catalogue.objid import unpack_objid
from deepsky.catalogue.survey import BANDS, FRAME_SHAPE
from deepsky.catalogue.tables import REFERENCE_COLUMNS
from deepsky.simulation.fields import frame_wcs, plan_fields
from deepsky.simulation.params import CatalogueParams
from deepsky.simulation.sky import CLASSES, COLOUR_LOCI, draw_sky, reference_catalogue
from deepsky.stages import catalogue as catalogue_stage

PARAMS = CatalogueParams("simulated", seed=5, n_fields=4, n_per_class_per_field=13)
WIDE = CatalogueParams("simulated", seed=6, n_fields=24, n_per_class_per_field=40)
COLOURS = ("u-g", "g-r", "r-i", "i-z")


@pytest.fixture(scope="module")
def wide_sky():
    return draw_sky(WIDE)


@pytest.fixture(scope="module")
def wide_catalogue(wide_sky):
    return reference_catalogue(wide_sky, WIDE.seed)


def colours_of(table):
    return pd.DataFrame({name: table[name[0]] - table[name[2]] for name in COLOURS})


def test_the_sky_depends_on_the_seed_alone():
    sky = draw_sky(PARAMS)
    pd.testing.assert_frame_equal(sky, draw_sky(PARAMS))
    other = draw_sky(CatalogueParams("simulated", 7, PARAMS.n_fields, PARAMS.n_per_class_per_field))
    assert not np.isin(other["ra"], sky["ra"]).any()


def test_fewer_fields_are_the_first_of_more():
    assert plan_fields(9, 3)[:5] == plan_fields(5, 3)


def test_fields_have_neighbours_and_loners():
    fields = plan_fields(16, 1)
    assert len({field.key for field in fields}) == 16
    assert len({field.run for field in fields}) == 4
    steps = [[b.field - a.field for b in fields if (a.run, a.camcol) == (b.run, b.camcol) and b != a] for a in fields]
    neighbours = sum(1 in found for found in steps)
    assert neighbours == 4
    assert all(abs(step) == 1 or abs(step) > 10 for found in steps for step in found)


@pytest.mark.parametrize("changes", [{"n_fields": 0}, {"n_per_class_per_field": 61}, {"seed": -1}])
def test_params_are_checked(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        CatalogueParams(**({"survey": "simulated", "seed": 1, "n_fields": 1, "n_per_class_per_field": 1} | changes))


def test_catalogue_is_that_of_the_reference_query(tmp_path):
    catalogue_stage.run(PARAMS, "dr17", query=tmp_path / "query", out=tmp_path / "catalogue.csv")
    table = pd.read_csv(tmp_path / "catalogue.csv")
    assert tuple(table.columns) == ("id", *REFERENCE_COLUMNS)
    assert (table["id"] == table["objid"]).all()
    counts = table.groupby(["run", "camcol", "field"]).size()
    assert len(counts) == PARAMS.n_fields
    assert (counts == PARAMS.n_per_class_per_field * len(CLASSES)).all()
    for column in ("objid", "specobjid"):
        assert table[column].dtype == np.int64
        assert table[column].is_unique
    parts = unpack_objid(table["objid"])
    for column in ("rerun", "run", "camcol", "field"):
        assert (parts[column] == table[column]).all()
    assert (table["specobjid"].to_numpy() >> 50 == table["plate"]).all()
    assert table["fiberid"].between(1, 640).all()
    redshift = table.groupby("class")["redshift"].median()
    assert abs(redshift["STAR"]) < 0.001 < 0.04 < redshift["GALAXY"] < 0.25 < 0.8 < redshift["QSO"]


def test_catalogue_bytes_repeat(tmp_path):
    for name in ("a.csv", "b.csv"):
        catalogue_stage.run(PARAMS, "dr17", query=tmp_path / "query", out=tmp_path / name)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def _concentration(table, at_least):
    """Fit the sum of the parameters of a Dirichlet-multinomial distribution to the mixes of classes in fields."""
    counts = table.groupby(["run", "camcol", "field"])["class"].value_counts().unstack(fill_value=0)
    share = counts.sum() / counts.sum().sum()
    counts = counts[counts.sum(axis=1) >= at_least].to_numpy()
    n = counts.sum(axis=1)

    def loss(log_sum):
        alpha = np.exp(log_sum) * share.to_numpy()
        of_counts = (gammaln(alpha + counts) - gammaln(alpha)).sum(axis=1)
        return -(gammaln(alpha.sum()) - gammaln(alpha.sum() + n) + of_counts).sum()

    return np.exp(minimize_scalar(loss, bounds=(-2, 8), method="bounded").x)


def test_every_field_has_a_mix_of_classes_of_its_own():
    sky = draw_sky(CatalogueParams("simulated", seed=8, n_fields=80, n_per_class_per_field=30))
    catalogued = sky[sky["catalogued"]]
    assert 2.8 < _concentration(catalogued, 5) < 6.0
    for n_fields in (12, 80):  # of the first ones, too
        some = catalogued[catalogued["group"].isin(sorted(set(catalogued["group"]))[: 3 * n_fields // 4])]
        assert some["class"].value_counts(normalize=True).between(0.26, 0.41).all()


@pytest.mark.real
def test_the_mixes_are_spread_as_in_real_fields(real_data):
    real = pd.read_csv(real_data("catalogues/Skyserver_SQL2_27_2018_6_51_39_PM.csv"))
    assert 3.0 < _concentration(real, 5) < 5.0


@pytest.mark.parametrize("label", CLASSES)
def test_colours_follow_the_measured_loci(wide_sky, label):
    chosen = wide_sky[wide_sky["catalogued"] & (wide_sky["class"] == label)]
    drawn = colours_of(chosen).quantile([0.16, 0.5, 0.84]).to_numpy().T
    assert np.abs(drawn - np.array(COLOUR_LOCI[label])).max() < 0.06  # of some 960 objects: three standard errors


@pytest.mark.real
@pytest.mark.parametrize("label", CLASSES)
def test_observed_colours_are_those_of_real_objects(wide_catalogue, real_data, label):
    real = pd.read_csv(real_data("catalogues/Skyserver_SQL2_27_2018_6_51_39_PM.csv"))
    quantiles = [
        colours_of(table[table["class"] == label]).quantile([0.16, 0.5, 0.84]).to_numpy()
        for table in (wide_catalogue, real)
    ]
    assert np.abs(quantiles[0][1] - quantiles[1][1]).max() < 0.05  # medians
    assert np.abs(quantiles[0] - quantiles[1]).max() < 0.09


def test_brightness_does_not_classify_but_colour_does(wide_catalogue):
    table = wide_catalogue
    colour = colours_of(table).to_numpy()
    fields = table.groupby(["run", "camcol", "field"]).ngroup()

    def accuracy(features):
        forest = RandomForestClassifier(40, min_samples_leaf=10, random_state=0)
        return cross_val_score(forest, features, table["class"], groups=fields, cv=GroupKFold(3)).mean()

    by_brightness = accuracy(table[["r"]].to_numpy())
    assert by_brightness < 0.50
    assert 0.70 < accuracy(colour[:, 1:3]) < accuracy(colour)  # without u, and with it
    assert accuracy(colour) > 0.90
    assert table.groupby("class")["r"].quantile(0.16).max() < table.groupby("class")["r"].quantile(0.84).min()


def test_only_galaxies_are_extended_and_faint_ones_are_small(wide_sky):
    galaxy = wide_sky["class"] == "GALAXY"
    assert (wide_sky.loc[~galaxy, "size_arcsec"] == 0).all()
    bright = wide_sky[galaxy & wide_sky["r"].between(16, 19)]
    assert 1.5 < bright["size_arcsec"].median() < 3.5
    assert bright["size_arcsec"].between(0.9, 9.0).all()
    faint = wide_sky[galaxy & wide_sky["r"].between(21, 22)]
    assert faint["size_arcsec"].median() < 1.0 < bright["size_arcsec"].quantile(0.05)
    assert 0.2 < (bright["bulge_fraction"] == 1).mean() < 0.6


def test_catalogued_objects_lie_inside_every_band_and_apart(wide_sky):
    n_near_edge = 0
    for field in plan_fields(WIDE.n_fields, WIDE.seed):
        mine = wide_sky["catalogued"] & (wide_sky[["run", "camcol", "field"]].to_numpy() == field.key).all(axis=1)
        places = wide_sky.loc[mine, ["ra", "dec"]].to_numpy()
        for band in BANDS:
            x, y = frame_wcs(field, band).wcs_world2pix(places, 0).T
            margin = np.minimum.reduce([x, y, FRAME_SHAPE[1] - 1 - x, FRAME_SHAPE[0] - 1 - y])
            assert margin.min() > 6
            if band == "r":
                n_near_edge += int((margin < 32).sum())
                distance = np.hypot(x[:, None] - x, y[:, None] - y) + 1e9 * np.eye(len(x))
                assert distance.min() > 38
    assert 0.01 < n_near_edge / wide_sky["catalogued"].sum() < 0.10
