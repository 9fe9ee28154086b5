import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest

from deepsky.datasets.packed import ROW_COLUMNS, open_packed
from deepsky.datasets.params import SplitParams
from deepsky.datasets.splits import split_rows
from deepsky.errors import ConfigError, DataError
from deepsky.formats import cifar10, mnist
from deepsky.formats.params import PicturesParams
from deepsky.stages.pack import run

DIGITS = PicturesParams(format="mnist", source="unused", size_px=14)
THINGS = PicturesParams(format="cifar10", source="unused", size_px=16)
SPLIT = SplitParams(seed=1, test_fraction=0.2, val_fraction=0.2, cell_arcmin=2.0, link_arcmin=2.0)


def arrays(side_px=28, n_train=40, n_test=20, channels=(), **changes):
    """Images of one value each, in the order of the labels 0 to 9 again and again."""
    made = {}
    for part, n, first in (("train", n_train, 0), ("test", n_test, 100)):
        made[f"x_{part}"] = np.empty((n, side_px, side_px, *channels), np.uint8)
        made[f"x_{part}"][:] = first + np.arange(n).reshape(n, *[1] * (2 + len(channels)))
        made[f"y_{part}"] = (np.arange(n) % 10).astype(np.uint8)
    return {key: values for key, values in (made | changes).items() if values is not None}


def write_npz(path, **changes):
    np.savez(path, **arrays(**changes))
    return path


def png(value, side_px=32):
    return cv2.imencode(".png", np.full((side_px, side_px, 3), value, np.uint8))[1].tobytes()


def write_zip(path, contents):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def pack(folder, source, params):
    run("mine", replace(params, source=str(source)), "stop", out=folder / "packed")
    return open_packed(folder / "packed")


def assert_refused(folder, source, params, message):
    with pytest.raises(DataError, match=message) as caught:
        pack(folder, source, params)
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)
    assert not (folder / "packed").exists()


def test_digits_are_gray_and_keep_their_part_and_place(tmp_path):
    packed = pack(tmp_path, write_npz(tmp_path / "mnist.npz"), DIGITS)
    assert packed.images.shape == (60, 14, 14, 1)
    assert packed.images[:, 0, 0, 0].tolist() == [*range(40), *range(100, 120)]
    assert packed.card.bands == ("gray",)
    assert packed.card.classes == tuple("0123456789")
    assert packed.card.refused == ("mirror", "turn")
    assert packed.rows["id"].iloc[[0, 39, 40, 59]].tolist() == [
        "train-000000", "train-000039", "test-000000", "test-000019",
    ]  # fmt: skip
    assert packed.labels.tolist() == [place % 10 for place in [*range(40), *range(20)]]
    split = split_rows(packed.rows, "given", SPLIT)
    assert split["split"].iloc[40:].eq("test").all()
    assert split["split"].iloc[:40].value_counts().to_dict() == {"train": 26, "val": 14}


def test_cifar_arrays_as_keras_gives_them(tmp_path):
    labels = {f"y_{part}": np.arange(n).reshape(-1, 1) % 10 for part, n in (("train", 40), ("test", 20))}
    packed = pack(tmp_path, write_npz(tmp_path / "c.npz", side_px=32, channels=(3,), **labels), THINGS)
    assert packed.images.shape == (60, 16, 16, 3)
    assert packed.images[:, 3, 3, 1].tolist() == [*range(40), *range(100, 120)]
    assert packed.rows["label"].iloc[[0, 9, 40]].tolist() == ["airplane", "truck", "airplane"]
    assert packed.card.refused == ("turn",)


@pytest.mark.parametrize("kind", ["zip", "folder"])
@pytest.mark.parametrize(("params", "classes", "shape"), [(THINGS, cifar10.CLASSES, (16, 16, 3)),
                                                          (DIGITS, mnist.CLASSES, (14, 14, 1))])  # fmt: skip
def test_pictures_by_part_and_class(tmp_path, kind, params, classes, shape):
    contents = {
        f"there/{part}/{label}/{number:04d}.png": png(10 * code + number)
        for part in ("train", "test")
        for code, label in enumerate(classes)
        for number in range(2)
    }
    contents["__MACOSX/train/cat/._0000.png"] = b"no picture"
    source = write_zip(tmp_path / "c.zip", contents)
    if kind == "folder":
        with zipfile.ZipFile(source) as archive:
            archive.extractall(tmp_path / "c")
        source = tmp_path / "c"
    packed = pack(tmp_path, source, params)
    assert packed.images.shape == (40, *shape)
    for row, image in zip(packed.rows.itertuples(), packed.images, strict=True):
        part, label, number = row.id.split("-")
        assert (row.group, row.label) == (part, label)
        assert (image == 10 * classes.index(label) + int(number)).all(), row.id


def test_a_crop_larger_than_the_images_is_a_wrong_parameter(tmp_path):
    with pytest.raises(ConfigError, match=r"^crop_px 29: is larger than the images of .*mnist.npz, 28 x 28 px; lower"):
        pack(tmp_path, write_npz(tmp_path / "mnist.npz"), replace(DIGITS, crop_px=29))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "has no array 'y_test'; its keys are x_train, y_train, x_test"),
        ({"side_px": 27}, r"x_train has the shape \(40, 27, 27\) and type uint8, not \(n, 28, 28\) of uint8"),
        ({"x_test": np.zeros((20, 28, 28))}, "x_test has the shape .* and type float64"),
        ({"y_train": np.zeros(39, int)}, r"y_train has the shape \(39,\) .* not \(40,\) of integers"),
        ({"y_train": np.full(40, 0.5)}, "type float64, not"),
        ({"y_test": np.full(20, 10)}, r"y_test\[0\] is 10, not within 0\.\.9"),
        ({"y_test": np.full(20, -1)}, r"y_test\[0\] is -1"),
        ({"y_test": np.array([{}] * 20)}, "is not a whole .npz of arrays"),  # pickled, which is never opened
    ],
)
def test_other_arrays_are_refused_in_one_line(tmp_path, changes, message):
    assert_refused(tmp_path, write_npz(tmp_path / "mnist.npz", **changes), DIGITS, message)


def test_what_is_no_whole_npz_is_refused_in_one_line(tmp_path):
    source = write_npz(tmp_path / "mnist.npz")
    whole = source.read_bytes()
    np.save(tmp_path / "one.npy", np.zeros(3))
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 1
    for content in (whole[:-100], b"", b"text", bytes(flipped), (tmp_path / "one.npy").read_bytes()):
        source.write_bytes(content)
        assert_refused(tmp_path, source, DIGITS, "mnist.npz: is not a whole .npz of arrays")
    assert_refused(tmp_path, tmp_path / "nowhere.npz", DIGITS, "nowhere.npz: is not a whole .npz of arrays")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({}, "holds no pictures; name pictures train/CLASS/NAME"),
        ({"readme.txt": b"hello"}, "holds no pictures"),
        ({"train/cow/1.png": png(1)}, "train/cow/1.png: is of the unknown class 'cow'; known are airplane, automobile"),
        ({"dev/cat/1.png": png(1)}, "is of the unknown part 'dev'; known are train and test"),
        ({"cat/1.png": png(1)}, "is of the unknown part ''"),
        ({"../train/cat/1.png": png(1)}, "cat/1.png, which leads out of it"),
        ({"/train/cat/1.png": png(1)}, "cat/1.png, which leads out of it"),
        ({"a/train/cat/1.png": png(1), "b/train/cat/1.jpg": png(1)}, "holds two pictures train/cat/1"),
        (
            {"a/train/cat/my-cat-1.png": png(1), "b/train/cat/my-cat-1.jpg": png(1)},
            "holds two pictures train/cat/my-cat-1; keep one",
        ),
        ({"train/cat/1.png": png(1), "train/dog/1.png": png(1)[:-30]}, "train/dog/1.png: is cut short"),
    ],
)
def test_other_zips_are_refused_in_one_line(tmp_path, contents, message):
    assert_refused(tmp_path, write_zip(tmp_path / "c.zip", contents), THINGS, message)


def test_a_broken_zip_and_a_missing_folder_are_refused_in_one_line(tmp_path):
    source = write_zip(tmp_path / "c.zip", {"train/cat/1.png": png(1)})
    source.write_bytes(source.read_bytes()[:-30])
    assert_refused(tmp_path, source, THINGS, "is not a whole zip")
    assert_refused(tmp_path, tmp_path / "nowhere", THINGS, "does not exist")


def test_a_hash_is_refused_where_none_is_published():
    with pytest.raises(ValueError, match=r"sha256 is no key of format mnist; take it away"):
        replace(DIGITS, sha256="any")


@pytest.mark.real
def test_real_digits(real_data):
    params = replace(DIGITS, size_px=28)
    objects = mnist.read(real_data("mnist/mnist.npz"), params)
    assert objects.rows["group"].value_counts().to_dict() == {"train": 20_000, "test": 5_000}
    first = next(objects.pictures())
    assert first.shape == (28, 28, 1)
    assert first.max() > 200


@pytest.mark.real
def test_real_photographs(real_data, tmp_path):
    packed = pack(tmp_path, real_data("cifar10/cifar10_jpeg_subset.zip"), THINGS)
    assert packed.images.shape == (5000, 16, 16, 3)
    rows = packed.rows.reindex(columns=list(ROW_COLUMNS))
    counts = rows.groupby(["group", "label"]).size()
    assert set(counts["train"]) == {400}
    assert set(counts["test"]) == {100}
