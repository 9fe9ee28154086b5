import io
import os
import resource
import struct
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deepsky.datasets.packed import open_packed
from deepsky.errors import ConfigError, DataError
from deepsky.formats.format import UNNAMED
from deepsky.formats.params import PicturesParams
from deepsky.imaging.pictures import find_pictures, read_picture, to_gray, write_png
from deepsky.stages.pack import run

PARAMS = PicturesParams(
    "images", source="unused", size_px=16, id_column="id", label_column="kind", classes=("round", "spiral")
)
COLOURS = {"a": (200, 30, 60), "b": (20, 190, 70), "c": (90, 10, 220), "d": (120, 120, 120)}  # red, green, blue


def picture(red, green, blue, height=40, width=40):
    return np.broadcast_to(np.array([red, green, blue], np.uint8), (height, width, 3)).copy()


def encode(suffix, pixels, *options):
    return cv2.imencode(suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels, options)[1].tobytes()


def write_images(folder):
    """Four images in four formats and places, and a table in another order."""
    for name, suffix in zip(COLOURS, (".jpg", ".png", ".tif", ".jpeg"), strict=True):
        path = folder / "images" / ("deeper" if name == "b" else "") / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(suffix, picture(*COLOURS[name])))
    (folder / "images/unlabelled.jpg").write_bytes(b"never opened")
    table = pd.DataFrame({"id": list("dbca"), "kind": ["round", "spiral", "round", "spiral"], "plate": [1, 2, 2, 1]})
    table.to_csv(folder / "images/labels.csv", index=False)
    return folder


def pictures_of(folder):
    return [path for path in (folder / "images").rglob("*.*") if path.name != "labels.csv"]


def pack(folder, params=PARAMS, on_bad_file="stop"):
    run("mine", replace(params, source=str(folder / "images")), on_bad_file, out=folder / "out/mine")
    return open_packed(folder / "out/mine")


def assert_refused(folder, message, params=PARAMS, on_bad_file="stop", kind=DataError):
    with pytest.raises(kind, match=message) as error:
        pack(folder, params, on_bad_file)
    assert "\n" not in str(error.value)
    assert not (folder / "out").exists() or not list((folder / "out").iterdir())


def test_rows_and_images_in_the_tables_order(tmp_path):
    packed = pack(write_images(tmp_path))
    assert packed.images.shape == (4, 16, 16, 3)
    assert packed.images.dtype == np.uint8
    assert packed.rows["id"].tolist() == list("dbca")
    assert packed.rows["image"].tolist() == [0, 1, 2, 3]
    assert packed.labels.tolist() == [0, 1, 0, 1]
    for image, name in zip(packed.images, "dbca", strict=True):
        assert np.abs(image.astype(int) - COLOURS[name]).max() <= 3, name  # JPEG rounds
    card = packed.card
    assert (card.kind, card.bands, card.classes, card.n_skipped) == (
        "uint8",
        ("red", "green", "blue"),
        ("round", "spiral"),
        0,
    )
    assert packed.rows[["run", "ra_deg", "group"]].isna().all(axis=None)


def test_preparation_is_done_and_told(tmp_path):
    entry = {
        "gray": True,
        "denoise": "median",
        "denoise_strength": 3.0,
        "crop_px": 20,
        "mirrored": (("round", "spiral"),),
        "refused": ("turn",),
    }
    packed = pack(write_images(tmp_path), replace(PARAMS, **entry))
    assert packed.images.shape == (4, 16, 16, 1)
    assert [int(image[8, 8, 0]) for image in packed.images] == pytest.approx([120, 126, 58, 84], abs=3)  # luminance
    card = packed.card
    assert (card.bands, card.crop_px, card.denoise, card.denoise_strength) == (("gray",), 20, "median", 3.0)
    assert (card.target, card.mirrored) == ("class", (("round", "spiral"),))
    assert {reason: number for reason, number in card.n_dropped.items() if number} == {UNNAMED: 1}
    assert card.refused == ("turn",)
    assert packed.fractions is None


def test_one_class_only_is_refused(tmp_path):
    write_images(tmp_path)
    table = pd.read_csv(tmp_path / "images/labels.csv")
    table.assign(kind="round").to_csv(tmp_path / "images/labels.csv", index=False)
    assert_refused(tmp_path, r"images: every object \(4\) is of the class 'round'; add objects of another class")
    table.to_csv(tmp_path / "images/labels.csv", index=False)
    (tmp_path / "images/a.jpg").write_bytes(b"")
    (tmp_path / "images/deeper/b.png").unlink()  # the two spirals
    assert_refused(tmp_path, r"every object \(2\) is of the class 'round'", on_bad_file="skip")


def test_columns_of_the_table_are_carried_over(tmp_path):
    write_images(tmp_path)
    table = pd.read_csv(tmp_path / "images/labels.csv")
    table.assign(run=752, camcol=4, field=267, ra=183.5, dec=[0.1, 0.2, 0.3, 0.4]).to_csv(
        tmp_path / "images/labels.csv", index=False
    )
    rows = pack(tmp_path, replace(PARAMS, group_column="plate")).rows
    assert rows["run"].tolist() == [752] * 4
    assert rows["dec_deg"].tolist() == [0.1, 0.2, 0.3, 0.4]
    assert rows["group"].tolist() == ["1", "2", "2", "1"]
    assert rows["file_bytes"].tolist() == [
        path.stat().st_size for name in "dbca" for path in pictures_of(tmp_path) if path.stem == name
    ]
    assert rows["r_mag"].isna().all()
    wrong = replace(PARAMS, group_column="night")
    with pytest.raises(ConfigError, match=r"group_column 'night': is not a column of .*labels.csv; it has id, l"):
        pack(tmp_path, wrong)


def test_magnitudes_are_carried_over_where_all_five_are_numbers(tmp_path):
    write_images(tmp_path)
    path = tmp_path / "images/labels.csv"
    table = pd.read_csv(path).assign(u=[21.5, None, 20.0, 19.0], g=20.0, r=19.5, i=19.25, z=19.0)
    table.to_csv(path, index=False)
    rows = pack(tmp_path).rows
    assert rows["u_mag"].isna().tolist() == [False, True, False, False]
    assert rows[["u_mag", "z_mag"]].iloc[0].tolist() == [21.5, 19.0]
    table.drop(columns="g").to_csv(path, index=False)  # so that z may be a redshift
    assert "z_mag" not in pack(tmp_path).rows


def test_columns_that_are_only_called_id_or_label_give_way(tmp_path):
    write_images(tmp_path)
    table = pd.read_csv(tmp_path / "images/labels.csv").rename(columns={"id": "name"}).assign(id="x", label=7)
    table.to_csv(tmp_path / "images/labels.csv", index=False)
    rows = pack(tmp_path, replace(PARAMS, id_column="name")).rows
    assert rows["id"].tolist() == list("dbca")
    assert rows["label"].tolist() == ["round", "spiral", "round", "spiral"]


def pillow(mode, kind, **options):
    file = io.BytesIO()
    Image.fromarray(picture(9, 99, 200)).convert(mode).save(file, kind, **options)
    return file.getvalue()


def thumbnail_jpeg_cut_short():
    """A JPEG with a whole thumbnail in its header, cut in the middle of its own scan."""
    inner = encode(".jpg", picture(9, 9, 9))
    noisy = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    outer = encode(".jpg", noisy)
    segment = b"\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner
    return (outer[:2] + segment + outer[2:])[: len(segment) + len(outer) // 2]


def png_with_a_damaged_chunk():
    content = bytearray(encode(".png", np.random.default_rng(1).integers(0, 255, (40, 40, 3), np.uint8)))
    length = struct.unpack(">I", content[8:12])[0]
    assert zlib.crc32(content[12 : 16 + length]) == struct.unpack(">I", content[16 + length : 20 + length])[0]
    del content[1000:3000]
    return bytes(content)


def damaged(suffix, damage, **options):
    """A noisy picture with 60 bytes of its middle overwritten, or cut there."""
    pixels = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, (90, 90, 3), np.uint8), (0, 0), 2)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, {"jpg": "JPEG", "png": "PNG", "tif": "TIFF"}[suffix], **options)
    content = file.getvalue()
    half, ends = len(content) // 2, {"jpg": b"\xff\xd9", "png": png_chunk(b"IEND"), "tif": b""}
    fill = {"zeroed": bytes(60), "random": np.random.default_rng(2).bytes(60)}
    if damage in fill:
        return content[:half] + fill[damage] + content[half + 60 :]
    return content[:half] + (ends[suffix] if damage == "ended" else b"")


def png_chunk(kind):
    return bytes(4) + kind + struct.pack(">I", zlib.crc32(kind))


BAD = {
    **{
        f"{how} {suffix} {options}": (f".{suffix}", damaged(suffix, how, **options))
        for suffix, how, options in (
            *((suffix, how, {}) for suffix in ("jpg", "png") for how in ("cut", "ended", "zeroed", "random")),
            *(("jpg", how, {"progressive": True}) for how in ("ended", "zeroed", "random")),
            *(("tif", how, {"compression": "tiff_adobe_deflate"}) for how in ("cut", "zeroed", "random")),
            *(("tif", how, {"compression": "tiff_lzw"}) for how in ("cut", "zeroed", "random")),
            ("tif", "cut", {}),
        )
    },
    "thumbnail": (".jpg", thumbnail_jpeg_cut_short()),
    "cmyk": (".jpg", pillow("CMYK", "JPEG")),
    "deep": (".png", encode(".png", np.full((40, 40, 3), 4000, np.uint16))),
    "deep tif": (".tif", encode(".tif", np.full((40, 40), 4000, np.uint16))),
    "deep colour tif": (".tif", encode(".tif", np.full((40, 40, 3), 4000, np.uint16))),
    "float tif": (".tif", encode(".tif", np.full((40, 40), 0.5, np.float32))),
    "tiny": (".png", encode(".png", picture(1, 2, 3, 1, 1))),
    "short png": (".png", encode(".png", picture(1, 2, 3))[:-20]),
    "damaged png": (".png", png_with_a_damaged_chunk()),
    "cmyk tif": (".tif", pillow("CMYK", "TIFF")),
    "lab tif": (".tif", pillow("LAB", "TIFF")),
    "page": (".jpg", b"<html>503</html>"),
    "empty": (".jpg", b""),
    "head": (".jpg", b"\xff\xd8\xff\xe0"),
}
MESSAGES = {
    "cmyk": "is a CMYK JPEG",
    "deep": "16 bits",
    "deep colour tif": "16 bits",
    "deep tif": "16 bits",
    "float tif": "32 bits",
    "tiny": "only 1 x 1 px",
    "cmyk tif": "is a TIFF of CMYK pixels",
    "lab tif": "is a TIFF of LAB pixels",
    "page": "neither JPEG, PNG nor TIFF",
    "empty": "neither JPEG, PNG nor TIFF",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_image_stops_or_is_skipped(tmp_path, kind):
    write_images(tmp_path)
    suffix, content = BAD[kind]
    (tmp_path / "images/deeper/b.png").unlink()
    bad = tmp_path / f"images/b{suffix}"
    bad.write_bytes(content)
    assert_refused(tmp_path, f"images/b{suffix}: .*({MESSAGES.get(kind, 'damaged|cut short')})")
    packed = pack(tmp_path, on_bad_file="skip")
    assert packed.rows["id"].tolist() == list("dca")
    assert packed.rows["image"].tolist() == [0, 1, 2]
    assert packed.images.shape[0] == 3
    assert np.abs(packed.images[1].astype(int) - COLOURS["c"]).max() <= 3
    assert packed.card.n_skipped == 1
    assert pd.read_csv(tmp_path / "out/mine/skipped.csv")["file"].tolist() == [str(bad)]
    assert sorted(path.name for path in (tmp_path / "out/mine").iterdir()) == [
        "dataset.json",
        "images.npy",
        "rows.csv",
        "skipped.csv",
    ]


def test_what_stands_behind_the_last_chunk_of_a_png_does_not_matter(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(".png", picture(9, 99, 200)) + b"written by a camera" * 9)
    assert (read_picture(tmp_path / "a.png") == (9, 99, 200)).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "1"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_every_kind_of_8_bits_is_read(tmp_path, mode, kind):
    (tmp_path / "a").write_bytes(pillow(mode, kind))
    expected = Image.fromarray(picture(9, 99, 200)).convert(mode).convert("RGB")
    assert np.array_equal(read_picture(tmp_path / "a"), np.array(expected))


def test_a_pipe_or_a_picture_of_huge_size_ends_nothing(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a.jpg: is no file but a folder, pipe or device; take it out"):
        read_picture(tmp_path / "a.jpg")
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with pytest.raises(DataError, match=r"a.png: is 60,000 x 60,000 px, too large to decode"):
        read_picture(tmp_path / "a.png")


def test_absent_images_are_counted(tmp_path):
    write_images(tmp_path)
    (tmp_path / "images/c.tif").unlink()
    (tmp_path / "images/a.jpg").unlink()
    assert_refused(tmp_path, r"images: 2 of its 4 images are absent from .*, the first is c")
    packed = pack(tmp_path, on_bad_file="skip")
    assert packed.rows["id"].tolist() == list("db")
    assert packed.card.n_skipped == 2
    for path in pictures_of(tmp_path):
        path.unlink()
    (tmp_path / "out/mine").rename(tmp_path / "before")
    assert_refused(tmp_path, "4 of its 4 images are absent .* name each image by its id", on_bad_file="skip")


def test_nothing_left_of_bad_images(tmp_path):
    write_images(tmp_path)
    for path in pictures_of(tmp_path):
        path.write_bytes(b"")
    assert_refused(tmp_path, r"every object was skipped \(the first: .*d.jpeg", on_bad_file="skip")


def test_no_room_leaves_nothing(tmp_path):
    write_images(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # no file may grow beyond 100 kB
    try:
        with pytest.raises(OSError, match="File too large"):
            pack(tmp_path, replace(PARAMS, size_px=128))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "out").iterdir())


def test_two_images_of_one_id_are_refused(tmp_path):
    write_images(tmp_path)
    (tmp_path / "images/a.png").write_bytes(encode(".png", picture(1, 2, 3)))
    assert_refused(tmp_path, "a.png: is a second image of id a")


def test_pictures_are_found(tmp_path):
    write_images(tmp_path)
    (tmp_path / "images/folder.jpg").mkdir()
    (tmp_path / "images/._a.jpg").write_bytes(b"what a Mac adds")
    found = find_pictures([tmp_path / "images/a.jpg", tmp_path / "images"])
    names = [path.name for path in found]
    assert names == ["a.jpg", "a.jpg", "c.tif", "d.jpeg", "b.png", "unlabelled.jpg"]
    with pytest.raises(DataError, match="absent: does not exist"):
        find_pictures([tmp_path / "absent"])


def test_channels(tmp_path):
    gray = tmp_path / "gray.png"
    write_png(gray, np.full((9, 9), 77, np.uint8))
    assert (read_picture(gray) == 77).all()
    assert np.array_equal(to_gray(read_picture(gray)), np.full((9, 9, 1), 77))
    assert read_picture(gray).shape == (9, 9, 3)
    clear = tmp_path / "clear.png"
    clear.write_bytes(cv2.imencode(".png", np.full((9, 9, 4), (3, 2, 1, 0), np.uint8))[1].tobytes())
    assert (read_picture(clear) == (1, 2, 3)).all()
    colour = picture(1, 2, 3)
    write_png(tmp_path / "colour.png", colour)
    assert np.array_equal(read_picture(tmp_path / "colour.png"), colour)


def test_a_source_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "images").write_bytes(b"a zip, perhaps")
    assert_refused(tmp_path, "images: is no folder; name the folder that holds the pictures and labels.csv")


def test_the_table_may_have_another_name(tmp_path):
    write_images(tmp_path)
    (tmp_path / "images/labels.csv").rename(tmp_path / "images/truth.csv")
    assert_refused(tmp_path, r"images/labels.csv: does not exist")
    assert pack(tmp_path, replace(PARAMS, labels="truth.csv")).rows["id"].tolist() == list("dbca")


def test_wrong_parameters_are_refused(tmp_path):
    assert_refused(write_images(tmp_path), "on_bad_file", on_bad_file="ignore", kind=ConfigError)
    for key, value, message in [
        ("size_px", 1, "size_px must lie"),
        ("denoise", "median", "denoise_strength of denoise median must be between 3 and 31, not 0"),
        ("mirrored", (("round", "spiral", "round"),), "mirrored must be pairs"),
        ("mirrored", (("round", "round"),), "mirrored must be pairs"),
        ("labels", "../labels.csv", "labels '../labels.csv' is not the name of a file in the folder"),
        ("classes", ("round", "round"), "classes and other_classes name round more than once"),
        ("source", "", "source is empty"),
        ("mirrored", (("round", "edge"),), "mirrored names the unknown class 'edge'; classes are round, spiral"),
    ]:
        with pytest.raises(ValueError, match=message):
            replace(PARAMS, **{key: value})


@pytest.mark.real
@pytest.mark.parametrize(
    ("folder", "suffix", "id_column", "label_column", "side_px"),
    [("galaxy_zoo1", "jpeg", "OBJID", "name", 423), ("kaggle_galaxy_zoo", "jpg", "GalaxyID", "label5_name", 424)],
)
def test_real_jpegs_are_whole(real_data, folder, suffix, id_column, label_column, side_px):
    table = pd.read_csv(real_data(f"{folder}/labels.csv"), dtype=str)
    for identity in table[id_column].iloc[:20]:
        path = real_data(f"{folder}/images/{identity}.{suffix}")
        assert read_picture(path).shape == (side_px, side_px, 3)
