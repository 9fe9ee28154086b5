"""Stages that a cluster helps write the same bytes as alone, and say the same of bad files."""

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from deepsky.commands import predict
from deepsky.errors import ConfigError, DataError, DeepSkyError
from deepsky.files import Version
from deepsky.formats.galaxy_zoo_challenge import CLASSES
from deepsky.formats.params import PicturesParams
from deepsky.imaging.pictures import write_png
from deepsky.networks.heads import join, softmax_answer
from deepsky.networks.inputs import ImageSpec, stretched_front
from deepsky.networks.registry import BACKBONES
from deepsky.parallel import is_helped
from deepsky.stages import features, pack, render
from deepsky.training.saved import ModelCard, save_network
from tests import test_pack_images, test_render
from tests.clusters import cluster_of, scheduler, worker
from tests.galaxy_zoo_files import write_challenge
from tests.run_project import write_project
from tests.small_frames import sdss_path
from tests.test_features import MIRRORED, PACKED, PLAIN, SPLIT, WEIGHTS, network_features
from tests.test_pack_images import picture
from tests.test_render import hashes
from tests.test_repro import ENV
from tests.tiny_networks import tiny_network, tiny_tail

if sys.platform != "linux":
    pytest.skip("only Linux has more than one loopback address", allow_module_level=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Stand in the project for as long as its workers do."""
    with pytest.MonkeyPatch.context() as patch:
        yield write_project(tmp_path_factory.mktemp("project"), patch)


@pytest.fixture(scope="module")
def two_hosts(project: Path) -> Iterator[Client]:
    with cluster_of("127.0.0.1", "127.0.0.2") as client:
        client.run(know_tiny)
        yield client


def know_tiny() -> None:
    BACKBONES["tiny"] = "tests.test_finetune:TINY"


def helped(work: Callable[[], None]) -> None:
    """Do what a worker does with a stage."""
    assert is_helped()
    work()


def assert_same_bytes(client: Client, stage: Callable[[Path], None], out: Path) -> dict[str, str]:
    """Run a stage, which writes below a folder, alone and helped by the cluster."""
    stage(out / "alone")
    client.submit(helped, functools.partial(stage, out / "helped"), resources={"stage": 1}, pure=False).result()
    alone = hashes(out / "alone")
    assert hashes(out / "helped") == alone
    return alone


def assert_same_line(client: Client, stage: Callable[[Path], None], out: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as alone:
        stage(out / "alone")
    with pytest.raises(DataError, match=message) as error:
        client.submit(helped, functools.partial(stage, out / "helped"), resources={"stage": 1}, pure=False).result()
    assert str(error.value) == str(alone.value)
    assert "\n" not in str(error.value)
    left = [path for path in (out / "helped").rglob("*") if path.name not in ("png", "packed", "answers.csv")]
    assert left == []


def render_sky(folder: Path, on_bad_file: Any, out: Path) -> None:
    params = replace(test_render.PARAMS, folder=str(folder / "frames"), catalogue=str(folder / "catalogue.csv"))
    render.run("sky", params, on_bad_file, png=out / "png", packed=out / "packed")


def test_render_is_helped(two_hosts: Client, tmp_path: Path) -> None:
    test_render.write_sky(tmp_path, range(10, 16))
    sky = functools.partial(render_sky, tmp_path, "stop")
    assert len(assert_same_bytes(two_hosts, sky, tmp_path / "good")) == 6 * 4 + 6 * 3 + 3 * 4
    bad = sdss_path(tmp_path / "frames", "i", 11)
    bad.write_bytes(bad.read_bytes()[:2000])
    assert_same_line(two_hosts, sky, tmp_path / "stopped", "frame-i-001000-2-0011.fits.bz2: cannot be decompressed")
    skipping = functools.partial(render_sky, tmp_path, "skip")
    assert len(assert_same_bytes(two_hosts, skipping, tmp_path / "skipped")) == 5 * 4 + 5 * 3 + 3 * 4


def pack_images(folder: Path, on_bad_file: Any, out: Path) -> None:
    out.mkdir(parents=True)
    pack.run("mine", replace(test_pack_images.PARAMS, source=str(folder / "images")), on_bad_file, out=out / "mine")


def pack_zip(folder: Path, out: Path) -> None:
    params = PicturesParams("galaxy_zoo_challenge", source=str(folder / "zoo"), size_px=16)
    pack.run("zoo", params, "stop", out=out / "zoo")


def test_pack_is_helped(two_hosts: Client, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rows = ["id,kind"]
    for number in range(150):  # several tasks for each worker
        write_png(tmp_path / f"images/{number}.png", picture(number, 3 * number % 256, 200 - number))
        rows.append(f"{number},{('round', 'spiral')[number % 2]}")
    (tmp_path / "images/labels.csv").write_text("\n".join(rows) + "\n")
    images = functools.partial(pack_images, tmp_path, "stop")
    assert_same_bytes(two_hosts, images, tmp_path / "good")
    (tmp_path / "images/70.png").write_bytes(b"")
    assert_same_line(two_hosts, images, tmp_path / "stopped", "70.png: ")
    assert_same_bytes(two_hosts, functools.partial(pack_images, tmp_path, "skip"), tmp_path / "skipped")
    kinds = [CLASSES[number % 5] for number in range(25)]
    write_challenge(tmp_path / "zoo", range(100, 125), kinds, zipped=True)
    assert_same_bytes(two_hosts, functools.partial(pack_zip, tmp_path), tmp_path / "zipped")


def write_features(out: Path) -> None:
    seen = network_features(replace(PLAIN, test_views=2), MIRRORED)
    features.run({"tiny": seen}, 5, packed=PACKED, split=SPLIT, weights=WEIGHTS, out=out)


def test_features_are_helped(two_hosts: Client, tmp_path: Path) -> None:
    assert len(assert_same_bytes(two_hosts, write_features, tmp_path)) == 12


def label(model: Path, inputs: list[Path], catalogue: Path | None, out: Path, **more: Any) -> None:
    objects = None if catalogue is None else predict.Catalogue(catalogue, "objid")
    out.parent.mkdir(parents=True, exist_ok=True)
    predict.run(str(model), list(map(str, inputs)), out / "answers.csv", catalogue=objects, **more)


def test_predict_on_pictures_is_helped(two_hosts: Client, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(70):
        write_png(tmp_path / f"pictures/{number}.png", picture(number, 3 * number, 200 - number))
    (tmp_path / "model.h5").write_bytes(tiny_network(3))
    pictures = functools.partial(label, tmp_path / "model.h5", [tmp_path / "pictures"], None)
    assert_same_bytes(two_hosts, pictures, tmp_path / "good")
    (tmp_path / "pictures/50.png").write_bytes(b"")
    assert_same_line(two_hosts, pictures, tmp_path / "bad", "50.png: ")


def test_predict_by_the_workers_of_a_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.h5").write_bytes(tiny_network(3))
    Path("pictures").mkdir()
    for number in range(40):
        write_png(Path(f"pictures/{number}.png"), picture(number, 3 * number, 200 - number))
    predict = functools.partial(label, Path("model.h5"), [Path("pictures")], None)
    predict(Path("alone"))
    with scheduler(ENV) as (address, _):
        with pytest.raises(DeepSkyError, match="has no worker for this project; run deepsky worker"):
            predict(Path("helped"), scheduler=address)
        with worker(address, tmp_path, ENV), Client(address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            predict(Path("helped"), scheduler=address)
    assert hashes(Path("helped")) == hashes(Path("alone"))
    with pytest.raises(ConfigError, match="scheduler nowhere: is no address; give tls://HOST:PORT"):
        predict(Path("helped"), scheduler="nowhere")


def test_predict_on_frames_is_helped(two_hosts: Client, tmp_path: Path) -> None:
    test_render.write_sky(tmp_path)
    bands = test_render.PARAMS.bands
    card = ModelCard(
        dataset="toy", network="tiny", weights="scratch", classes=("a", "b"), kind="flux", bands=bands,
        colour_bands=bands, image_shape=(16, 16, 3), pixel_scale_arcsec=None,
    )  # fmt: skip
    front = stretched_front(ImageSpec((16, 16, 3), "flux", bands, bands), 12)
    save_network(tmp_path / "model.h5", join(front, tiny_tail(softmax_answer(2)), "tiny"), card)
    objects = functools.partial(label, tmp_path / "model.h5", [tmp_path / "frames"], tmp_path / "catalogue.csv")
    assert_same_bytes(two_hosts, objects, tmp_path / "good")
    bad = sdss_path(tmp_path / "frames", "i", 11)
    bad.write_bytes(bad.read_bytes()[:2000])
    assert_same_line(two_hosts, objects, tmp_path / "bad", "frame-i-001000-2-0011.fits.bz2: cannot be decompressed")


def test_a_file_of_which_a_machine_sees_another_version_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "images.npy"
    missing = Version.of(path)
    assert missing.found() == path
    path.write_bytes(b"old")
    known = Version.of(path)
    assert known.found() == path
    monkeypatch.setattr("deepsky.files._PATIENCE_S", 0.0)
    path.write_bytes(b"newer")
    for version in (known, missing):
        with pytest.raises(DataError, match=r"images.npy: is another file, or none, on the worker .*; start all"):
            version.found()
