import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from deepsky.catalogue.decision_tree import COLUMNS, QUESTIONS, places, sums_wanted
from deepsky.catalogue.objid import unpack_objid
from deepsky.datasets.params import Target
from deepsky.formats import galaxy10, galaxy_zoo1
from deepsky.formats import galaxy_zoo_challenge as galaxy_zoo
from deepsky.formats.params import PicturesParams
from deepsky.formats.registry import find
from deepsky.simulation import published as published
from deepsky.simulation.galaxies import draw_picture
from deepsky.simulation.params import AT_LEAST, SimulateParams
from deepsky.simulation.published import GALAXY10_COUNTS, ZOO1_SHARES, write_galaxy10, write_galaxy_zoo
from deepsky.simulation.shapes import Shape, draw_shapes, share_out
from deepsky.simulation.votes import draw_galaxies, vote_fractions
from deepsky.stages.simulate import run

SMALLEST = SimulateParams(seed=11, n_galaxy_zoo=24, n_galaxy_zoo1=72, n_galaxy10=120)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated")
    run(SMALLEST, out=out)
    return out


def shape_of(kind: str, **changes: float) -> Shape:
    row = next(draw_shapes([kind], np.random.default_rng(0)).itertuples(index=False, name=None))
    return Shape(*row)._replace(**changes)


def central(picture: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """The gray picture, and the second moments of the object in its middle with that object's place."""
    gray = cv2.GaussianBlur(picture.mean(axis=2).astype(np.float32), (0, 0), 1.5)
    _, labels = cv2.connectedComponents((gray > 25).astype(np.uint8))
    middle = len(gray) // 2
    assert labels[middle, middle] > 0, "nothing stands in the middle"
    weight = np.where(labels == labels[middle, middle], np.minimum(gray, 80), 0)
    rows, columns = np.indices(gray.shape)
    place = [np.average(columns, weights=weight), np.average(rows, weights=weight)]
    moments = np.cov(np.stack([columns.ravel(), rows.ravel()]), aweights=weight.ravel())
    return gray, np.column_stack([moments, place])


def elongation(picture: npt.NDArray[np.uint8]) -> float:
    """Minor over major axis of the object in the middle."""
    smallest, largest = np.linalg.eigvalsh(central(picture)[1][:, :2])
    return float(np.sqrt(smallest / largest))


def winding(picture: npt.NDArray[np.uint8]) -> float:
    """How much more power spirals of one sense hold than those of the other, -1 to 1; clockwise is positive.

    The galaxy is made round, unwrapped to angle x logarithm of radius, where spirals are straight lines, and Fourier
    transformed: rising and falling lines stand in different quadrants.
    """
    half = 60
    gray, moments = central(picture)
    values, axes = np.linalg.eigh(moments[:, :2])
    to_round = axes @ np.diag(np.sqrt(values)) @ axes.T * 2 / half
    centre = 1.25 * half
    affine = np.column_stack([to_round, moments[:, 2] - to_round @ [centre, centre]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    face_on = cv2.warpAffine(gray, affine, (int(2 * centre),) * 2, flags=flags)
    polar = cv2.warpPolar(face_on, (64, 128), (centre, centre), centre, cv2.WARP_POLAR_LOG | cv2.INTER_LINEAR)[:, 30:]
    polar = np.log1p(polar)
    power = np.abs(np.fft.fft2((polar - polar.mean(axis=0)) * np.hanning(polar.shape[1]), s=(128, 64))) ** 2
    clockwise, anticlockwise = power[2:5, 1:16].sum(), power[2:5, -15:].sum()  # patterns of 2 to 4 arms
    return float((clockwise - anticlockwise) / (clockwise + anticlockwise))


def test_votes_obey_every_sum_and_follow_from_the_seed() -> None:
    votes, shapes = draw_galaxies(300, np.random.default_rng(1))
    fractions = votes[list(COLUMNS)].to_numpy()
    assert fractions.min() >= 0
    assert fractions.max() <= 1
    for question in QUESTIONS:
        wanted = sums_wanted(fractions, question)
        assert np.abs(fractions[:, places(question)].sum(axis=1) - wanted).max() < 1e-5, question.text
    exact = vote_fractions(shapes, np.random.default_rng(2))
    assert all(np.allclose(exact[:, places(q)].sum(axis=1), sums_wanted(exact, q), atol=1e-12) for q in QUESTIONS)
    pd.testing.assert_frame_equal(votes, draw_galaxies(300, np.random.default_rng(1))[0])
    assert not votes.equals(draw_galaxies(300, np.random.default_rng(2))[0])
    ids = votes["GalaxyID"]
    assert ids.dtype == np.int64
    assert ids.is_unique
    assert ids.between(100_000, 999_999).all()
    assert (ids.diff().dropna() > 1).any()


@pytest.mark.parametrize("seed", [1, 11])
def test_votes_are_shared_as_in_the_challenge_and_every_clean_class_occurs(seed: int) -> None:
    votes, _ = draw_galaxies(300, np.random.default_rng(seed))
    leading = votes[["Class1.1", "Class1.2", "Class1.3"]].to_numpy().argmax(axis=1)
    smooth, features, artifacts = np.bincount(leading, minlength=3) / 300
    assert smooth == pytest.approx(0.42, abs=0.06)
    assert features == pytest.approx(0.57, abs=0.06)
    assert 0 < artifacts < 0.01
    found = galaxy_zoo.clean_classes(votes[list(COLUMNS)].to_numpy(np.float32))
    assert np.bincount(found[found >= 0], minlength=5).min() >= 8
    assert (found < 0).mean() > 0.1  # and some are clear cases of nothing


def test_shares_are_kept_and_the_rarest_kind_gets_its_least() -> None:
    kinds = share_out({"a": 90, "b": 9, "c": 1}, 40, at_least=4)
    assert [kinds.count(kind) for kind in "abc"] == [32, 4, 4]
    assert share_out({"a": 1, "b": 1}, 5).count("a") in (2, 3)


@pytest.mark.parametrize("kind", ["round", "barred", "merger", "star", "faint", "irregular", "lens", "ring"])
def test_pictures_are_dark_noisy_and_follow_from_the_seed(kind: str) -> None:
    picture = draw_picture(shape_of(kind), 160, np.random.default_rng(4))
    assert picture.shape == (160, 160, 3)
    assert picture.dtype == np.uint8
    corner = picture[:20, :20].astype(float)
    assert np.median(corner) < 12
    assert corner.std() > 1
    assert picture[75:85, 75:85].mean() > corner.mean() + 3
    np.testing.assert_array_equal(picture, draw_picture(shape_of(kind), 160, np.random.default_rng(4)))
    assert (picture != draw_picture(shape_of(kind), 160, np.random.default_rng(5))).any()


def test_pictures_are_as_elongated_as_the_votes_say() -> None:
    measured = {}
    for kind, wanted in (
        ("round", "Class7.1"),
        ("in-between", "Class7.2"),
        ("cigar", "Class7.3"),
        ("thin", "Class2.1"),
    ):
        shapes = draw_shapes([kind] * 6, np.random.default_rng(3))
        assert vote_fractions(shapes, np.random.default_rng(3))[:, COLUMNS.index(wanted)].mean() > 0.5
        rows = [Shape(*row) for row in shapes.itertuples(index=False, name=None)]
        pictures = [draw_picture(row, 212, np.random.default_rng([3, place])) for place, row in enumerate(rows)]
        measured[kind] = np.median([elongation(picture) for picture in pictures])
    assert measured["round"] > 0.85
    assert 0.5 < measured["in-between"] < 0.8
    assert measured["cigar"] < 0.45
    assert measured["thin"] < 0.35


@pytest.mark.parametrize(("kind", "boxy", "answer"), [("bulged", 0.05, 1), ("bulged", 0.7, 2), ("thin", 0.0, 3)])
def test_votes_say_which_bulge_an_edge_on_disc_has(kind: str, boxy: float, answer: int) -> None:
    shapes = draw_shapes([kind] * 12, np.random.default_rng(3)).assign(boxy=boxy)
    votes = vote_fractions(shapes, np.random.default_rng(3))[:, COLUMNS.index("Class9.1") :][:, :3]
    assert (votes.mean(axis=0).argmax() + 1) == answer


def test_ellipticals_are_redder_than_loose_spirals() -> None:
    def redness(kind: str) -> float:
        middle = draw_picture(shape_of(kind, blueness=0.7), 212, np.random.default_rng(1))[91:121, 91:121]
        return float(middle[..., 0].mean() / middle[..., 2].mean())

    assert redness("round") > 1.15 * redness("loose")


def test_arms_wind_as_the_shape_says_and_a_mirror_turns_them_round() -> None:
    shapes = draw_shapes(["loose"] * 6, np.random.default_rng(3))
    agree = []
    for place, row in enumerate(shapes.itertuples(index=False, name=None)):
        picture = draw_picture(Shape(*row), 424, np.random.default_rng([2, place]))
        sense = winding(picture)
        agree.append(sense * Shape(*row).clockwise > 0)
        assert winding(picture[:, ::-1]) == pytest.approx(-sense, abs=0.05)
    assert sum(agree) >= 5


@pytest.mark.real
def test_the_sense_of_winding_is_that_of_the_real_galaxy_zoo(real_data: Callable[[str], Path]) -> None:
    folder = real_data("galaxy_zoo1")
    images = {path.stem: path for path in (folder / "images").iterdir()}
    table = pd.read_csv(folder / "labels.csv")
    for name, sign in (("spiral_cw", 1), ("spiral_acw", -1)):
        ids = table.loc[table["name"] == name, "OBJID"].astype(str)[:25]
        senses = np.array([winding(cv2.imread(str(images[objid]))) for objid in ids])
        assert (senses * sign > 0).mean() > 0.75, name


def test_the_simulated_challenge_is_laid_out_as_the_real_one(simulated: Path) -> None:
    table = pd.read_csv(simulated / "galaxy_zoo" / "training_solutions_rev1.csv")
    assert list(table.columns) == ["GalaxyID", *COLUMNS]
    images = simulated / "galaxy_zoo" / "images_training_rev1"
    assert sorted(path.name for path in images.iterdir()) == [f"{each}.jpg" for each in table["GalaxyID"]]
    assert cv2.imread(str(images / f"{table['GalaxyID'][0]}.jpg")).shape == (424, 424, 3)


def test_the_simulated_galaxy_zoo1_has_six_folders_of_objids_in_many_fields(simulated: Path) -> None:
    assert tuple(ZOO1_SHARES) == galaxy_zoo1.CLASSES
    files = {name: sorted((simulated / "galaxy_zoo1" / name).iterdir()) for name in galaxy_zoo1.CLASSES}
    assert min(len(paths) for paths in files.values()) >= 12
    ids = np.array([path.stem for paths in files.values() for path in paths], np.int64)
    assert len(set(ids)) == SMALLEST.n_galaxy_zoo1
    parts = unpack_objid(ids)
    assert parts["camcol"].between(1, 6).all()
    fields = parts[["run", "camcol", "field"]].drop_duplicates()
    assert 12 < len(fields) < len(ids)
    senses = {
        name: np.median([winding(cv2.imread(str(path))) for path in files[name]]) for name in files if "spiral" in name
    }
    assert senses["spiral clockwise"] > 0.1
    assert senses["spiral anticlockwise"] < -0.1


def test_the_simulated_galaxy10_is_structured_as_the_real_one(simulated: Path, tmp_path: Path) -> None:
    path = simulated / "Galaxy10_DECals.h5"
    assert len(GALAXY10_COUNTS) == len(galaxy10.CLASSES)
    with h5py.File(path) as file:
        assert sorted(file) == ["ans", "dec", "images", "pxscale", "ra", "redshift"]
        n = SMALLEST.n_galaxy10
        assert (file["images"].shape, file["images"].dtype) == ((n, 256, 256, 3), np.uint8)
        assert file["images"].chunks == (n, 16, 16, 1)
        assert file["ans"].dtype == np.uint8
        assert np.bincount(file["ans"][:], minlength=10).min() >= 12
        assert (file["pxscale"][:] == 0.262).all()
        assert {file[key].dtype for key in ("ra", "dec", "redshift", "pxscale")} == {np.dtype("float64")}
        images, ans = file["images"][:], file["ans"][:]
    elongations = {
        name: np.median([elongation(each) for each in images[ans == place][:8]])
        for name, place in (("Round Smooth", 2), ("Cigar Shaped Smooth", 4), ("Edge-on without Bulge", 8))
    }
    assert galaxy10.CLASSES[2] == "Round Smooth"
    assert elongations["Round Smooth"] > 0.8 > 2 * elongations["Cigar Shaped Smooth"]
    assert elongations["Edge-on without Bulge"] < 0.35
    write_galaxy10(SMALLEST.n_galaxy10, SMALLEST.seed, tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == path.read_bytes()


def test_few_pictures_are_drawn_ahead_of_those_that_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, lock = [0], threading.Lock()

    def draw(shape: Shape, side_px: int, rng: np.random.Generator, *, zoom: float) -> npt.NDArray[np.uint8]:
        with lock:
            drawn[0] += 1
        return np.zeros((side_px, side_px, 3), np.uint8)

    def fail(picture: npt.NDArray[np.uint8]) -> bytes:
        raise OSError("the disk is full")

    monkeypatch.setattr(published, "draw_picture", draw)
    monkeypatch.setattr(published, "jpeg", fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_galaxy_zoo(400, 1, tmp_path / "zoo")
    assert 0 < drawn[0] <= published._AT_ONCE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "format_", "target", "n"),
    [
        ("galaxy_zoo", "galaxy_zoo_challenge", "fractions", SMALLEST.n_galaxy_zoo),
        ("galaxy_zoo1", "galaxy_zoo1", "class", SMALLEST.n_galaxy_zoo1),
        ("Galaxy10_DECals.h5", "galaxy10", "class", SMALLEST.n_galaxy10),
    ],
)
def test_the_readers_of_the_real_datasets_take_the_simulated(
    simulated: Path, name: str, format_: str, target: Target, n: int
) -> None:
    params = PicturesParams(format_, name, 32, target=target, sha256="any" if ".h5" in name else None)
    objects = find(format_).read(simulated / name, params)
    assert len(objects.rows) == n
    assert set(objects.rows["label"]) == set(objects.classes)
    assert [picture.shape for picture in objects.pictures() if isinstance(picture, np.ndarray)] == [(32, 32, 3)] * n


def test_params_ask_for_as_many_galaxies_as_each_class_needs() -> None:
    for key, classes in (("n_galaxy_zoo1", ZOO1_SHARES), ("n_galaxy10", GALAXY10_COUNTS)):
        least = AT_LEAST * len(classes)
        assert getattr(SimulateParams(**{key: least}), key) == least
        with pytest.raises(ValueError, match=f"{key} must lie between {least}"):
            SimulateParams(**{key: least - 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_galaxy10": 119}, "n_galaxy10 must lie between 120 and 50000, not 119"),
        ({"n_galaxy_zoo1": 71}, "n_galaxy_zoo1 must lie between 72"),
        ({"n_galaxy_zoo": 0}, "n_galaxy_zoo must lie between 1"),
        ({"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_params_that_cannot_be_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimulateParams(**({"seed": 1, "n_galaxy_zoo": 24, "n_galaxy_zoo1": 72, "n_galaxy10": 120} | changes))
