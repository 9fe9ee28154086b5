import hashlib
from dataclasses import replace

import h5py
import numpy as np
import pytest

from deepsky.datasets.packed import ROW_COLUMNS, open_packed
from deepsky.datasets.params import SplitParams
from deepsky.datasets.splits import split_rows
from deepsky.errors import ConfigError, DataError
from deepsky.formats import galaxy10
from deepsky.formats.galaxy10 import CLASSES
from deepsky.formats.params import PicturesParams
from deepsky.stages.pack import run

N = 30
PARAMS = PicturesParams(format="galaxy10", source="unused", size_px=32, crop_px=128, sha256="any")


def contents(n=N):
    """Three galaxies of each class, far apart; the middle of an image tells its place, its rim is cropped."""
    places = np.arange(n)
    images = np.empty((n, 256, 256, 3), np.uint8)
    images[:] = places[:, None, None, None] * 8 % 256
    images[..., 2] = 255 - images[..., 0]
    images[:, :64] = images[:, :, -64:] = 7
    return {
        "images": images,
        "ans": (places % 10).astype(np.uint8),
        "ra": places * 12.0,
        "dec": places - 15.0,
        "redshift": np.full(n, np.nan),
        "pxscale": np.full(n, 0.262),
    }


def write(path, *, chunks=(11, 16, 16, 1), **changes):
    with h5py.File(path, "w") as file:
        for key, values in (contents() | changes).items():
            if values is not None:
                large = {"chunks": chunks, "compression": "gzip"} if key == "images" and chunks else {}
                file.create_dataset(key, data=values, **large)
    return path


def pack(folder, source, params=PARAMS):
    run("galaxy10", replace(params, source=str(source)), "stop", out=folder / "packed")
    return open_packed(folder / "packed")


@pytest.mark.parametrize("chunks", [(11, 16, 16, 1), None])
def test_images_and_rows_are_those_of_the_file(tmp_path, monkeypatch, chunks):
    monkeypatch.setattr(galaxy10, "_SLICE_IMAGES", 4)  # several slices: 11 deep where the chunks are, else 4
    packed = pack(tmp_path, write(tmp_path / "g.h5", chunks=chunks))
    assert packed.images.shape == (N, 32, 32, 3)
    expected = contents()["images"]
    assert (packed.images == expected[:, 128:129, 128:129]).all()
    rows = packed.rows
    assert rows["id"].tolist() == [str(place) for place in range(N)]
    assert rows["label"].tolist() == [CLASSES[place % 10] for place in range(N)]
    assert rows["ra_deg"].tolist() == [place * 12.0 for place in range(N)]
    assert rows["dec_deg"].tolist() == [place - 15.0 for place in range(N)]
    assert (packed.card.classes, packed.card.crop_px, packed.card.bands) == (CLASSES, 128, ("red", "green", "blue"))


def test_classes_are_the_published_ones_in_order():
    assert CLASSES == (
        "Disturbed", "Merging", "Round Smooth", "In-between Round Smooth", "Cigar Shaped Smooth", "Barred Spiral",
        "Unbarred Tight Spiral", "Unbarred Loose Spiral", "Edge-on without Bulge", "Edge-on with Bulge",
    )  # fmt: skip


def test_positions_serve_a_split_by_sky(tmp_path):
    rows = galaxy10.read(write(tmp_path / "g.h5"), PARAMS).rows
    rows = rows.reindex(columns=list(ROW_COLUMNS)).assign(image=range(N))
    split = split_rows(
        rows, "neighbours", SplitParams(seed=1, test_fraction=0.34, val_fraction=0.33, cell_arcmin=2.0, link_arcmin=2.0)
    )
    assert set(split["split"]) == {"train", "val", "test"}


def test_only_the_release_is_taken_unless_told_otherwise(tmp_path, capsys):
    source = write(tmp_path / "g.h5")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()

    def read(sha256):
        return galaxy10.read(source, PicturesParams("galaxy10", "unused", 32, sha256=sha256))

    with pytest.raises(DataError, match=rf"g.h5: has the SHA-256 {digest}, not {galaxy10.SHA256}; download it again"):
        read(None)
    assert len(read(digest.upper()).rows) == N
    assert capsys.readouterr().err == ""
    read("any")
    assert f"{digest}, not the release; accepted, as sha256 is 'any'" in capsys.readouterr().err


IMAGES = contents()["images"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "has no array 'images'; its keys are ans, dec, pxscale, ra, redshift"),
        ({"ans": None}, "has no array 'ans'; its keys are dec, images"),
        ({"images": IMAGES[:, :128, :128], "chunks": None}, r"shape \(30, 128, 128, 3\) and type uint8, not \(n, 256"),
        ({"images": IMAGES[:2].astype(np.uint16), "chunks": None}, "type uint16, not"),
        ({"ra": np.zeros(N - 1)}, r"ra has the shape \(29,\) .* not one number for each of 30 images"),
        ({"ans": np.full(N, 10)}, r"ans of image 0 is 10, not within 0\.\.9"),
        ({"ans": np.arange(N) * 0.3}, r"ans of image 1 is 0.3, not within 0\.\.9"),
        ({"dec": np.where(np.arange(N) == 7, np.nan, 0)}, r"dec of image 7 is nan, not within -90\.\.90"),
        ({"ra": np.full(N, 361.0)}, r"ra of image 0 is 361.0, not within 0\.\.360"),
    ],
)
def test_another_structure_is_refused_in_one_line(tmp_path, changes, message):
    source = write(tmp_path / "g.h5", **changes)
    with pytest.raises(DataError, match=message) as caught:
        pack(tmp_path, source)
    assert str(caught.value).startswith(f"{source}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize("on_bad_file", ["stop", "skip"])
def test_a_crop_larger_than_the_images_is_a_wrong_parameter(tmp_path, on_bad_file):
    source, params = write(tmp_path / "g.h5"), replace(PARAMS, crop_px=257)
    with pytest.raises(ConfigError, match=r"^crop_px 257: is larger than the images of .*g.h5, 256 x 256 px; lower"):
        run("galaxy10", replace(params, source=str(source)), on_bad_file, out=tmp_path / "packed")
    assert len(galaxy10.read(source, replace(PARAMS, crop_px=256)).rows) == N


def test_files_that_are_not_whole_are_refused_in_one_line(tmp_path):
    source = write(tmp_path / "g.h5")
    whole = source.read_bytes()
    for content in (whole[: len(whole) // 2], b"no HDF5", b""):
        source.write_bytes(content)
        with pytest.raises(DataError, match=r"g.h5: cannot be read as HDF5 .* download it again"):
            pack(tmp_path, source)
    with pytest.raises(DataError, match=r"nowhere.h5: cannot be read as HDF5"):
        pack(tmp_path, tmp_path / "nowhere.h5")
    broken = bytearray(whole)
    with h5py.File(write(source)) as file:
        chunk = file["images"].id.get_chunk_info(5)
    broken[chunk.byte_offset + 2 : chunk.byte_offset + chunk.size] = bytes(chunk.size - 2)
    source.write_bytes(broken)
    with pytest.raises(DataError, match=r"g.h5: cannot be read as HDF5"):
        pack(tmp_path, source)
    assert list(tmp_path.iterdir()) == [source]
