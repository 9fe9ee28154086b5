import struct
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace

import cv2
import keras
import numpy as np
import pandas as pd
import pytest

from deepsky.catalogue.decision_tree import COLUMNS
from deepsky.catalogue.objid import pack_objid
from deepsky.commands import predict
from deepsky.config import build
from deepsky.datasets.packed import open_packed
from deepsky.datasets.params import SplitParams
from deepsky.datasets.splits import sky_groups, split_rows
from deepsky.errors import ConfigError, DataError
from deepsky.formats.galaxy_zoo_challenge import CLASSES
from deepsky.formats.packing import AHEAD
from deepsky.formats.params import PicturesParams
from deepsky.formats.registry import FORMATS, find
from deepsky.imaging.picture_files import PictureFiles
from deepsky.parallel import in_threads
from deepsky.stages.pack import run
from deepsky.training.saved import ModelCard, save_network
from tests.galaxy_zoo_files import fractions_of, solutions_of, write_challenge, write_jpeg, zip_images
from tests.test_pack_images import pillow

IDS = [500004, 100008, 300016, 900032, 200064, 700128, 600256]
KINDS = ["none", *CLASSES, "round"]
ENTRY = {"format": "galaxy_zoo_challenge", "size_px": 16}
SIX = ("elliptical", "spiral clockwise", "spiral anticlockwise", "edge-on", "don't know", "merger")


def pack(source, on_bad_file="stop", **changes):
    params = build({**ENTRY, "source": str(source), **changes}, PicturesParams, "params.yaml: datasets.pictures.mine")
    run("mine", params, on_bad_file, out=source.parent / "out/mine")
    return open_packed(source.parent / "out/mine")


def assert_refused(source, message, on_bad_file="stop", kind=DataError, **changes):
    with pytest.raises(kind, match=message) as error:
        pack(source, on_bad_file, **changes)
    assert "\n" not in str(error.value)
    assert not (source.parent / "out/mine").exists()


def levels(packed):
    return [round(float(image.mean()) / 10) for image in packed.images]


# ---- the challenge ----


@pytest.mark.parametrize("zipped", [False, True])
def test_fractions_of_every_galaxy(tmp_path, zipped):
    packed = pack(write_challenge(tmp_path / "zoo", IDS, KINDS, zipped=zipped), target="fractions")
    assert packed.images.shape == (7, 16, 16, 3)
    assert packed.rows["id"].tolist() == [str(identity) for identity in IDS]
    assert packed.rows["label"].unique().tolist() == ["galaxy"]
    assert levels(packed) == [0, 1, 2, 3, 4, 5, 6]
    assert packed.fractions.dtype == np.float32
    assert not packed.fractions.flags.writeable
    assert np.array_equal(packed.fractions, fractions_of(KINDS).astype(np.float32))
    card = packed.card
    assert (card.target, card.classes, card.mirrored, card.kind) == ("fractions", ("galaxy",), (), "uint8")
    assert packed.labels.tolist() == [0] * 7


@pytest.mark.parametrize("zipped", [False, True])
def test_irrelevant_galaxies_are_dropped_and_never_decoded(tmp_path, capfd, zipped):
    source = write_challenge(tmp_path / "zoo", IDS, KINDS)
    images = source / "images_training_rev1"
    (images / "500004.jpg").write_bytes(b"never opened")
    write_jpeg(images / "777777.jpg", 200)
    if zipped:
        zip_images(source)
    packed = pack(source)
    assert packed.rows["id"].tolist() == [str(identity) for identity in IDS[1:]]
    assert packed.rows["label"].tolist() == KINDS[1:]
    assert packed.card.classes == CLASSES
    assert levels(packed) == [1, 2, 3, 4, 5, 6]
    assert packed.card.n_dropped == {"images that no row names": 1, "galaxies of no clean class": 1}
    told = "mine: 6 images packed; 1 images that no row names; 1 galaxies of no clean class"
    assert told in " ".join(capfd.readouterr().err.split())
    assert packed.fractions is None
    assert not (tmp_path / "out/mine/targets.npy").exists()


def test_parquet_gives_the_same_dataset(tmp_path):
    source = write_challenge(tmp_path / "zoo", IDS, KINDS)
    first = pack(source, target="fractions")
    rows, fractions = first.rows.copy(), np.array(first.fractions)
    parts = source / "training_solutions_rev1.parquet"
    parts.mkdir()
    solutions = solutions_of(IDS, KINDS)
    solutions.iloc[:4].to_parquet(parts / "part-00000-x.snappy.parquet")
    solutions.iloc[4:].to_parquet(parts / "part-00001-x.snappy.parquet")
    (parts / "_SUCCESS").touch()
    assert_refused_again(source, "holds both training_solutions_rev1.csv and training_solutions_rev1.parquet")
    (source / "training_solutions_rev1.csv").unlink()
    again = pack(source, target="fractions")
    assert again.rows.equals(rows)
    assert np.array_equal(again.fractions, fractions)


def assert_refused_again(source, message):
    with pytest.raises(DataError, match=message):
        pack(source)


def cut_jpeg():
    return cv2.imencode(".jpg", np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8))[1].tobytes()[:2000]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("content", "message"), [(cut_jpeg(), "cut short"), (pillow("CMYK", "JPEG"), "CMYK"), (b"", "neither")]
)
def test_bad_images_stop_or_are_skipped_with_their_fractions(tmp_path, zipped, content, message):
    source = write_challenge(tmp_path / "zoo", IDS, KINDS)
    (source / "images_training_rev1/300016.jpg").write_bytes(content)
    if zipped:
        zip_images(source)
    assert_refused(source, rf"300016.jpg: .*{message}", target="fractions")
    packed = pack(source, "skip", target="fractions")
    kept = [place for place, identity in enumerate(IDS) if identity != 300016]
    assert levels(packed) == kept
    assert np.array_equal(packed.fractions, fractions_of(KINDS).astype(np.float32)[kept])
    assert packed.card.n_skipped == 1
    assert "300016.jpg" in pd.read_csv(tmp_path / "out/mine/skipped.csv")["file"].iloc[0]


def test_gray_jpegs_become_three_channels(tmp_path):
    source = write_challenge(tmp_path / "zoo", IDS, KINDS)
    cv2.imwrite(str(source / "images_training_rev1/100008.jpg"), np.full((40, 40), 90, np.uint8))
    assert (pack(source).images[0] == 90).all()


def test_absent_images(tmp_path):
    source = write_challenge(tmp_path / "zoo", IDS, KINDS)
    (source / "images_training_rev1/900032.jpg").unlink()
    (source / "images_training_rev1/500004.jpg").unlink()  # of no class: not wanted, not missed
    first = "the first is 900032; name each image by its id, 900032.jpg for one, or drop those rows, or set"
    assert_refused(source, f"zoo: 1 of its 6 images are absent from .*images_training_rev1, {first}")
    packed = pack(source, "skip")
    assert packed.rows["id"].tolist() == ["100008", "300016", "200064", "700128", "600256"]
    assert packed.card.n_skipped == 1
    for path in (source / "images_training_rev1").iterdir():
        path.rename(path.with_name(f"image_{path.name}"))
    (tmp_path / "out/mine").rename(tmp_path / "before")
    for policy in ("stop", "skip"):  # nothing would be left
        assert_refused(source, "6 of its 6 images are absent .* 100008; 5 images that no row names are there", policy)


def test_a_class_without_objects_is_told(tmp_path, capsys):
    source = write_challenge(tmp_path / "zoo", IDS, ["none", *CLASSES[:1] * 3, *CLASSES[1:2] * 3])
    pack(source)
    absent = ", ".join(CLASSES[2:])
    assert f"{source}: holds no object of the class {absent}: nothing can learn it" in capsys.readouterr().err


def test_archives_as_they_are_served_are_to_be_unpacked(tmp_path):
    source = write_challenge(tmp_path / "zoo", IDS, KINDS)
    table = source / "training_solutions_rev1.csv"
    table.rename(table.with_suffix(".zip"))
    assert_refused(source, "holds neither .*; unpack training_solutions_rev1.zip there")


def test_two_images_of_one_galaxy_are_refused(tmp_path):
    source = write_challenge(tmp_path / "zoo", IDS, KINDS)
    write_jpeg(source / "images_training_rev1/more/100008.png", 3)
    assert_refused(source, "is a second image of id 100008")


def test_missing_files_are_named(tmp_path):
    source = write_challenge(tmp_path / "zoo", IDS, KINDS)
    (source / "training_solutions_rev1.csv").unlink()
    assert_refused(source, "holds neither training_solutions_rev1.csv nor training_solutions_rev1.parquet")
    assert_refused(tmp_path / "absent", "absent: holds neither")
    source = write_challenge(tmp_path / "other", IDS, KINDS, zipped=True)
    images = source / "images_training_rev1.zip"
    images.write_bytes(images.read_bytes()[:-30])
    assert_refused(source, r"images_training_rev1.zip: is not a whole zip")
    images.unlink()
    assert_refused(source, "holds neither images_training_rev1 nor images_training_rev1.zip")


def test_one_class_only_is_refused(tmp_path):
    source = write_challenge(tmp_path / "zoo", IDS[:3], ["round", "none", "round"])
    assert_refused(source, r"zoo: every object \(2\) is of the class 'round'; add objects of another class")
    source = write_challenge(tmp_path / "odd", IDS[:2], ["none", "none"])
    assert_refused(source, r"odd: holds no object to learn from \(2 galaxies of no clean class\)")
    pack(source, target="fractions")


def test_class_with_fewer_images_than_the_split_needs_is_refused(tmp_path):
    packed = pack(write_challenge(tmp_path / "zoo", IDS, KINDS))
    with pytest.raises(DataError, match=r"class .* lies in 1 groups, too few to hold back one in 5 for test"):
        split_rows(packed.rows, "image", SplitParams(1, 0.2, 0.1, 10.0, 2.0))


def test_entries_that_do_not_fit_are_refused(tmp_path):
    source = write_challenge(tmp_path / "zoo", IDS, KINDS)
    for changes, message in [
        (
            {"format": "galaxy_zoo_3"},
            r"pictures.mine: format 'galaxy_zoo_3' is unknown; choose one of: images, ",
        ),
        (
            {"format": "galaxy_zoo1", "target": "fractions"},
            r"format galaxy_zoo1 has no fractions, it has class;",
        ),
        ({"target": "votes"}, r"pictures.mine.target: 'votes' is unknown"),
        ({"size_px": 4}, "size_px must lie between 8 and 4096, not 4"),
        ({"crop_px": 5000}, "crop_px must lie between 8 and 4096, not 5000"),
        ({"denoise": "median", "denoise_strength": 4}, "odd number of pixels, not 4"),
    ]:
        assert_refused(source, message, kind=ConfigError, **changes)
    assert_refused(source, "is 40 x 40 px, less than crop_px 50", crop_px=50)
    assert_refused(source, "on_bad_file", "ignore", kind=ConfigError)


TABLE = {"id_column": "id", "label_column": "class", "classes": ["a", "b"]}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"format": "mnist", "id_column": "id"}, "id_column is no key of format mnist; take it away"),
        ({"format": "cifar10", "mirrored": [["cat", "dog"]]}, "mirrored is no key of format cifar10"),
        ({"format": "galaxy_zoo1", "labels": "labels.csv"}, "labels is no key of format galaxy_zoo1"),
        ({"format": "images", **TABLE, "sha256": "any"}, "sha256 is no key of format images"),
        ({"format": "images", **TABLE, "target": "fractions"}, "target fractions: format images has no fractions"),
        ({"format": "images", "label_column": "class", "classes": ["a"]}, "id_column is missing, format images needs"),
        ({"format": "images", "id_column": "id", "label_column": "c"}, "classes is missing, format images needs it"),
    ],
)
def test_keys_of_another_format_are_refused(entry, message):
    with pytest.raises(ConfigError, match=f"^mine: {message}"):
        build({"source": "somewhere", "size_px": 16, **entry}, PicturesParams, "mine")


def test_what_is_left_out_suits_the_format():
    expected = {"galaxy10": "neighbours", "galaxy_zoo1": "objid", "mnist": "given", "galaxy_zoo_challenge": "image"}
    assert {name: PicturesParams(name, "somewhere", 16).group for name in expected} == expected
    mine = PicturesParams("images", "somewhere", 16, id_column="id", label_column="class", classes=("a", "b"))
    assert (mine.group, mine.labels) == ("image", "labels.csv")
    assert replace(mine, group_by=None, group_column="plate").group == "group"
    assert replace(mine, group_by="sky", group_column="plate").group == "sky"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_can_be_imported(name):
    assert callable(find(name).read)
    assert {*FORMATS[name].needs, *FORMATS[name].takes} <= set(PicturesParams.__dataclass_fields__)


def test_parameters_are_read_before_anything_heavy_is_imported():
    modules = [f"deepsky.{name}.params" for name in ("archives", "simulation", "datasets", "imaging", "formats")]
    heavy = "{'numpy', 'pandas', 'cv2', 'keras', 'requests', 'scipy'}"
    code = f"import {', '.join(modules)}, deepsky.formats.registry, sys; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def save_answering_network(path, packed, n_outputs):
    """A network whose answers depend on every pixel, with the card of a packed dataset."""
    image = keras.Input(packed.images.shape[1:], dtype="uint8", name="image")
    pixels = keras.layers.Rescaling(1 / 255, name="pixels")(image)
    hidden = keras.layers.Flatten(name="flat")(pixels)
    kernel = keras.initializers.RandomNormal(stddev=0.1, seed=1)
    answer = keras.layers.Dense(n_outputs, "sigmoid", kernel_initializer=kernel, name="answer")(hidden)
    model, card = keras.Model(image, answer, name="all_pixels"), packed.card
    preparation = {key: getattr(card, key) for key in ("crop_px", "target", "denoise", "denoise_strength")}
    shape = packed.images.shape[1:]
    save_network(
        path,
        model,
        ModelCard("mine", "n", "scratch", card.classes, card.kind, card.bands, (), shape, None, **preparation),
    )
    return model


@pytest.mark.parametrize(("target", "gray", "denoise"), [("fractions", True, "median"), ("class", False, "nlm")])
def test_predict_prepares_as_the_dataset_was_prepared(tmp_path, target, gray, denoise):
    source = write_challenge(tmp_path / "zoo", IDS, KINDS)
    rng, images = np.random.default_rng(3), source / "images_training_rev1"
    for identity in IDS:
        cv2.imwrite(str(images / f"{identity}.png"), rng.integers(0, 255, (40, 40, 3), np.uint8))
        (images / f"{identity}.jpg").unlink()
    packed = pack(source, target=target, gray=gray, denoise=denoise, denoise_strength=9, crop_px=30)
    assert packed.card.picture_px == (40, 40)
    n_outputs = len(COLUMNS) if target == "fractions" else len(CLASSES)
    model = save_answering_network(tmp_path / "model.h5", packed, n_outputs)
    paths = [images / f"{identity}.png" for identity in packed.rows["id"]]
    predict.run(str(tmp_path / "model.h5"), list(map(str, paths)), tmp_path / "answers.csv")
    table = pd.read_csv(tmp_path / "answers.csv")
    names = list(COLUMNS) if target == "fractions" else ["class", "confidence", *(f"p_{name}" for name in CLASSES)]
    assert table.columns.tolist() == ["path", *names]
    expected = model.predict(np.asarray(packed.images), verbose=0)
    assert np.allclose(table[table.columns[-n_outputs:]], expected, rtol=0, atol=2e-6)
    assert expected.std(axis=0).min() > 1e-3  # the answers tell pictures apart


# ---- Galaxy Zoo 1 ----


def write_folders(folder, names=SIX):
    """Two galaxies of each class, of level 10 N for the N-th objID."""
    for number in range(2 * len(names)):
        identity = pack_objid(rerun=301, run=752 + number, camcol=1 + number % 6, field=20, number=7)
        write_jpeg(folder / names[number % len(names)] / f"{identity}.jpg", 10 * number)
    return folder


@pytest.mark.parametrize(
    "names",
    [SIX, ("elliptical", "spiral_clockwise", "spiral_anticlockwise", "edge_on", "dont_know", "merger")],
)
def test_folders_are_classes(tmp_path, names):
    packed = pack(write_folders(tmp_path / "zoo1", names), format="galaxy_zoo1")
    assert packed.card.classes == SIX
    assert packed.rows["label"].tolist() == [*SIX, *SIX]
    assert levels(packed) == list(range(12))
    assert packed.card.mirrored == (("spiral clockwise", "spiral anticlockwise"),)
    ids = packed.rows["id"].astype(np.int64)
    assert ids.is_monotonic_increasing
    assert sky_groups(
        packed.rows, "objid", SplitParams(seed=1, test_fraction=0.2, val_fraction=0.2, cell_arcmin=2.0, link_arcmin=2.0)
    ).tolist()[:2] == ["000752-1-0020", "000753-2-0020"]


def test_bad_folders_are_refused(tmp_path):
    source = write_folders(tmp_path / "zoo1")
    write_jpeg(source / "irregular/1237648704577142784.jpg", 9)
    message = r"1237648704577142784.jpg: stands in the folder 'irregular', which names no class; known classes are ell"
    assert_refused(source, message, format="galaxy_zoo1")
    (source / "irregular").rename(source / "edge_on")  # beside edge-on
    assert len(pack(source, format="galaxy_zoo1").rows) == 13
    (tmp_path / "out/mine").rename(tmp_path / "before")
    for name in ("galaxy 7.jpg", "1.2E+18.jpg", f"{2**63}.jpg"):
        write_jpeg(source / "merger" / name, 9)
        assert_refused(source, r"is not named by an SDSS objID; name it OBJID.jpg", format="galaxy_zoo1")
        (source / "merger" / name).unlink()
    write_jpeg(source / "merger/1237648704577142784.png", 9)
    assert_refused(source, "is a second image of id 1237648704577142784", format="galaxy_zoo1")
    assert_refused(tmp_path / "absent", "absent: does not exist; name the right folder", format="galaxy_zoo1")
    source = tmp_path / "one"
    for number in (1, 2):
        write_jpeg(source / f"merger/{number}.jpg", 9)
    assert_refused(source, "of the class 'merger'", format="galaxy_zoo1")


# ---- pictures in zips, and threads ----


def test_a_zip_is_read_from_many_threads_as_its_folder(tmp_path):
    rng, folder = np.random.default_rng(4), tmp_path / "pictures"
    folder.mkdir()
    for number in range(60):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (24, 24, 3), np.uint8))
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in list(folder.iterdir()):
            archive.write(path, path.name)
        archive.writestr("__MACOSX/._1.png", b"not a picture")
        archive.mkdir("folder.png")
    (folder / "folder.png").mkdir()
    (folder / "._1.png").write_bytes(b"not a picture")
    loose, packed = PictureFiles(folder), PictureFiles(tmp_path / "pictures.zip")
    assert loose.names == packed.names == sorted(f"{number}.png" for number in range(60))
    both = [in_threads(files.read, files.names * 3, n_ahead=AHEAD) for files in (loose, packed)]
    for a, b in zip(*both, strict=True):
        assert np.array_equal(a, b)


def test_broken_members_of_a_zip_are_named(tmp_path):
    place = tmp_path / "a.zip"
    with zipfile.ZipFile(place, "w") as archive:
        for name in ("one.jpg", "two.jpg"):
            archive.writestr(name, cv2.imencode(".jpg", np.full((24, 24, 3), 90, np.uint8))[1].tobytes())
    content = bytearray(place.read_bytes())
    content[content.index(b"\xff\xd8") + 300] ^= 0xFF  # in the first member
    flags = content.rindex(b"PK\x01\x02") + 8
    content[flags : flags + 2] = struct.pack("<H", 1)  # the second says that it is encrypted
    place.write_bytes(content)
    files = PictureFiles(place)
    with pytest.raises(DataError, match=r"a.zip/one.jpg: cannot be read \(Bad CRC-32"):
        files.read("one.jpg")
    with pytest.raises(DataError, match=r"a.zip/two.jpg: cannot be read \(.*(encrypted|password)"):
        files.read("two.jpg")


def test_threads_keep_the_order_and_run_a_bounded_number_ahead():
    taken, done = [], threading.Event()

    def tasks():
        for number in range(100_000):
            taken.append(number)
            yield number

    results = in_threads(lambda number: (done.wait(0), number)[1], tasks(), n_ahead=AHEAD)
    assert [next(results) for _ in range(500)] == list(range(500))
    assert len(taken) < 800  # on any number of cores
    results.close()


# ---- real images ----


@pytest.mark.real
def test_real_challenge_images(real_data, tmp_path):
    """Real JPEGs by their GalaxyID; the votes are seeded, as the solutions file is not at hand."""
    labels = pd.read_csv(real_data("kaggle_galaxy_zoo/labels.csv")).groupby("label5_name").head(3)
    names = labels["label5_name"].map(lambda name: {"in_between": "in-between", "edge_on": "edge-on"}.get(name, name))
    source = tmp_path / "zoo"
    (source / "images_training_rev1").mkdir(parents=True)
    solutions_of(labels["GalaxyID"].to_numpy(), names).to_csv(source / "training_solutions_rev1.csv", index=False)
    for identity in labels["GalaxyID"]:
        image = real_data(f"kaggle_galaxy_zoo/images/{identity}.jpg")
        (source / f"images_training_rev1/{identity}.jpg").symlink_to(image)
    zip_images(source)
    packed = pack(source, crop_px=207, size_px=69)
    assert packed.images.shape == (15, 69, 69, 3)
    assert packed.rows["label"].tolist() == names.tolist()
    middle = packed.images[:, 24:45, 24:45].mean(axis=(1, 2, 3))
    assert (middle > 2 * packed.images[:, :8, :8].mean(axis=(1, 2, 3))).all()  # galaxies stand in the middle
    assert pack(source, target="fractions", gray=True).fractions.shape == (15, len(COLUMNS))


@pytest.mark.real
def test_real_galaxy_zoo_1(real_data, tmp_path):
    folders = {"spiral_cw": "spiral clockwise", "spiral_acw": "spiral_anticlockwise", "dont_know": "don't know"}
    labels = pd.read_csv(real_data("galaxy_zoo1/labels.csv"), dtype=str).groupby("name").head(6)
    for identity, name in zip(labels["OBJID"], labels["name"], strict=True):
        path = tmp_path / "zoo1" / folders.get(name, name) / f"{identity}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(real_data(f"galaxy_zoo1/images/{identity}.jpeg"))
    packed = pack(tmp_path / "zoo1", format="galaxy_zoo1", crop_px=250, size_px=64)
    assert packed.rows["label"].value_counts().to_dict() == dict.fromkeys(SIX, 6)
    split = split_rows(packed.rows, "objid", SplitParams(1, 0.25, 0.25, 10.0, 2.0))
    assert set(split["split"]) == {"train", "val", "test"}
