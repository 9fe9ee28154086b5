"""Where weights come from: folder, cache, download from a real server on this machine, seed."""

import hashlib
import inspect
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from deepsky.archives.params import DownloadParams
from deepsky.commands import download_weights
from deepsky.commands import networks as networks_command
from deepsky.errors import ConfigError, DataError, WeightsError
from deepsky.networks import efficientnet_lite0, mobilenet
from deepsky.networks.backbone import Backbone, load_weights
from deepsky.networks.params import WeightsParams
from deepsky.networks.pretrained import draw_weights
from deepsky.networks.published import download_file, find_file
from deepsky.networks.registry import BACKBONES, find_backbone, known_networks
from deepsky.networks.saving import save_h5
from deepsky.networks.torch_archive import read_archive
from deepsky.networks.weights_card import read_weights_card
from deepsky.stages import weights as stage

FILE = mobilenet.BACKBONE.weights_file
OFFLINE = WeightsParams()
ONLY_REAL = WeightsParams(source="imagenet")


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.files``, from where a Range begins; hangs up after ``server.breaks_after`` bytes."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.server.ranges.append(self.headers["Range"])  # type: ignore[attr-defined]
        body = self.server.files.get(self.path)  # type: ignore[attr-defined]
        if body is None:
            self.send_error(404)
            return
        begin = int((self.headers["Range"] or "bytes=0-")[6:-1])
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body) - begin))
        self.send_header("ETag", '"the only version"')
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        self.wfile.write(body[begin : self.server.breaks_after])  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.files, http.asked, http.ranges, http.breaks_after = {}, [], [], None  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield http
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def address(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture(autouse=True)
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no folder named: the machine's own must not decide these tests."""
    for variable in ("DEEPSKY_WEIGHTS", "DEEPSKY_WEIGHTS_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras" / "models").mkdir(parents=True)
    return tmp_path / "keras"


@pytest.fixture(scope="session")
def mobilenet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights in the form of Keras' own file."""
    path = tmp_path_factory.mktemp("weights") / FILE
    save_h5(mobilenet.BACKBONE.build(32), path)
    return path


QUICK = DownloadParams(requests_per_s=None, timeout_s=5.0, tries=1)


def _left(keras_home: Path) -> list[str]:
    """Name what a download left; its lock, an empty file, stays."""
    return [path.name for path in (keras_home / "models").iterdir() if path.suffix != ".lock"]


def _served(monkeypatch: pytest.MonkeyPatch, server: ThreadingHTTPServer, address: str, body: bytes) -> Backbone:
    """Let MobileNet's published file be ``body``, and be served."""
    server.files[f"/mobilenet/{FILE}"] = body  # type: ignore[attr-defined]
    monkeypatch.setenv("DEEPSKY_WEIGHTS_URL", address)
    known = replace(mobilenet.BACKBONE, weights_digest=hashlib.sha256(body).hexdigest())
    monkeypatch.setattr(mobilenet, "BACKBONE", known)
    return known


def test_a_file_comes_into_kerass_cache_and_is_found_there(
    server: ThreadingHTTPServer,
    address: str,
    mobilenet_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keras_home: Path,
) -> None:
    body = mobilenet_file.read_bytes()
    told: list[tuple[int, int | None]] = []
    backbone = _served(monkeypatch, server, address, body)
    assert download_file(backbone, QUICK, lambda *so_far: told.append(so_far)) == keras_home / "models" / FILE
    assert told[-1] == (len(body), len(body))
    assert len(told) > 10
    assert _left(keras_home) == [FILE]
    stage.run({"mobilenet": True}, ONLY_REAL, out=tmp_path / "out")
    assert (tmp_path / "out" / "mobilenet" / "weights.h5").read_bytes() == body
    card = read_weights_card(tmp_path / "out" / "mobilenet")
    assert (card.weights, card.source) == ("imagenet", FILE)
    assert card.sha256 == hashlib.sha256(body).hexdigest()


def test_what_had_come_of_a_file_is_not_asked_for_again(
    server: ThreadingHTTPServer, address: str, monkeypatch: pytest.MonkeyPatch, keras_home: Path
) -> None:
    body = bytes(range(256)) * 9000
    backbone = _served(monkeypatch, server, address, body)
    server.breaks_after = 1_000_000  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=f"{FILE}: (ended after|cannot be downloaded).*make weights goes on from there"):
        download_file(backbone, QUICK, lambda *_: None)
    assert not (keras_home / "models" / FILE).exists()
    part = keras_home / "models" / f"{FILE}.part"
    assert part.stat().st_size == 1_000_000
    server.breaks_after = None  # type: ignore[attr-defined]
    assert download_file(backbone, QUICK, lambda *_: None).read_bytes() == body
    assert server.ranges == [None, "bytes=1000000-"]  # type: ignore[attr-defined]
    assert _left(keras_home) == [FILE]


@pytest.mark.parametrize("network", [name for name in BACKBONES if name != "efficientnet_lite0"])
def test_another_file_than_keras_own_is_refused(
    network: str, server: ThreadingHTTPServer, address: str, monkeypatch: pytest.MonkeyPatch, keras_home: Path
) -> None:
    backbone = find_backbone(network)
    page = b"<html>please log in</html>"
    server.files[f"/{backbone.weights_folder}/{backbone.weights_file}"] = page  # type: ignore[attr-defined]
    monkeypatch.setenv("DEEPSKY_WEIGHTS_URL", address)
    with pytest.raises(DataError, match=f"not {backbone.weights_digest}; .*is a proxy between") as caught:
        download_file(backbone, QUICK, lambda *_: None)
    assert "\n" not in str(caught.value)
    assert _left(keras_home) == []


def test_two_that_download_the_same_file_do_it_once(
    server: ThreadingHTTPServer, address: str, monkeypatch: pytest.MonkeyPatch, keras_home: Path
) -> None:
    body = bytes(range(256)) * 9000
    backbone = _served(monkeypatch, server, address, body)
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(download_file, backbone, QUICK, lambda *_: None) for _ in range(2)]
        assert [one.result().read_bytes() for one in done] == [body, body]
    assert len(server.asked) == 1  # type: ignore[attr-defined]


def test_the_command_downloads_what_it_can_and_names_the_rest(
    server: ThreadingHTTPServer,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keras_home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("download: {mirror: 'http://mirror.example', tries: 1}\n")
    body = b"weights"
    _served(monkeypatch, server, address, body)
    with pytest.raises(DataError, match=r"weights of vgg16: are not there \(vgg16: .*answers 404"):
        download_weights.run(["vgg16", "mobilenet", "efficientnet_lite0"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"mobilenet: {keras_home / 'models' / FILE}"
    assert said[1].startswith("efficientnet_lite0: ")
    (tmp_path / "params.yaml").write_text("weights: {source: random}\n")
    with pytest.raises(ConfigError, match=r"weights\.source: is random"):
        download_weights.run([])


def test_every_network_is_listed_with_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keras_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("{}\n")
    (keras_home / "models" / FILE).write_bytes(b"any")
    networks_command.run()
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(lines) == {*known_networks(), "parameters:"}
    assert lines["mobilenet"].endswith(f"ImageNet weights: {keras_home / 'models' / FILE}")
    assert lines["vgg16"].endswith("not here (deepsky download-weights vgg16)")
    assert "3,413,024" in lines["efficientnet_lite0"]


def test_a_file_that_no_server_has_is_an_error(address: str, monkeypatch: pytest.MonkeyPatch, keras_home: Path) -> None:
    monkeypatch.setenv("DEEPSKY_WEIGHTS_URL", address)
    with pytest.raises(DataError, match=f"{FILE}: answers 404"):
        download_file(mobilenet.BACKBONE, QUICK, lambda *_: None)
    assert _left(keras_home) == []


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = http.server_address[1]
    http.server_close()
    monkeypatch.setenv("DEEPSKY_WEIGHTS_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(DataError, match=rf"http://127\.0\.0\.1:{port}/mobilenet/.*: cannot be downloaded"):
        download_file(mobilenet.BACKBONE, QUICK, lambda *_: None)


def test_imagenet_stops_and_names_every_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keras_home: Path
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("DEEPSKY_WEIGHTS", str(tmp_path / "mine"))
    with pytest.raises(WeightsError, match="make weights downloads what is missing") as caught:
        stage.run({"mobilenet": True}, ONLY_REAL, out=tmp_path / "out")
    for place in (FILE, str(tmp_path / "mine"), str(keras_home / "models")):
        assert place in str(caught.value)
    assert not (tmp_path / "out").exists()


# ---- weights of a package ----


def test_efficientnet_has_its_weights_wherever_deepsky_is_installed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        stage.run({"efficientnet_lite0": True}, ONLY_REAL, out=tmp_path / name)
    card = read_weights_card(tmp_path / "one" / "efficientnet_lite0")
    assert (card.weights, card.source) == ("imagenet", "efficientnet-lite0-57934424.pth")
    assert card == read_weights_card(tmp_path / "two" / "efficientnet_lite0")  # the same bytes


@pytest.mark.parametrize(("picture", "label", "probability"), [("china.jpg", 698, 0.32), ("flower.jpg", 985, 0.22)])
def test_efficientnet_knows_a_palace_and_a_daisy(picture: str, label: int, probability: float) -> None:
    path, _ = find_file(efficientnet_lite0.BACKBONE, None)
    assert path is not None
    base = efficientnet_lite0.build(224)
    efficientnet_lite0.set_published(base, path.read_bytes(), path)
    image = load_sample_image(picture)[:, :, :]
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    square = cv2.resize(image[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_AREA)
    pixels = keras.Input((224, 224, 3))
    maps = keras.Model(pixels, base(efficientnet_lite0.scaling(pixels)))(square[None].astype(np.float32))
    features = keras.ops.convert_to_numpy(maps).mean(axis=(1, 2))
    arrays = read_archive(path.read_bytes(), efficientnet_lite0.BACKBONE.weights_digest, path)
    logits = (features @ arrays["_fc.weight"].T + arrays["_fc.bias"])[0]
    found = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert found.argmax() == label
    assert found[label] == pytest.approx(probability, abs=0.01)


def test_a_package_with_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "efficientnet-lite0-57934424.pth"
    other.write_bytes(pickle.dumps("anything"))
    monkeypatch.setenv("DEEPSKY_WEIGHTS", str(tmp_path))
    with pytest.raises(
        WeightsError, match=rf"{other}: has SHA-256 \w+, not 579344.*; take it away, or install its package again"
    ):
        stage.run({"efficientnet_lite0": True}, OFFLINE, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_its_package_a_network_is_random_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = replace(efficientnet_lite0.BACKBONE, package=("no-such-package", "no_such_package"))
    monkeypatch.setattr(efficientnet_lite0, "BACKBONE", lost)
    stage.run({"efficientnet_lite0": True}, OFFLINE, out=tmp_path / "out")
    assert read_weights_card(tmp_path / "out" / "efficientnet_lite0").weights == "random"
    assert "make clean setup installs its package no-such-package" in capsys.readouterr().err


def test_an_archive_may_name_nothing_else(tmp_path: Path) -> None:
    content = pickle.dumps(Path)
    with pytest.raises(pickle.UnpicklingError, match="is not part of a state dict"):
        read_archive(content, hashlib.sha256(content).hexdigest(), "a file")


@pytest.mark.parametrize("network", [name for name in BACKBONES if name != "efficientnet_lite0"])
def test_hashes_and_addresses_are_those_in_keras(network: str) -> None:
    backbone = find_backbone(network)
    source = inspect.getsource(inspect.getmodule(getattr(keras.applications, backbone.weights_folder).preprocess_input))
    assert f"{backbone.weights_folder}/" in source
    if backbone.weights_algorithm == "md5":
        assert backbone.weights_digest in source
        ending = "_weights_tf_dim_ordering_tf_kernels_notop.h5"
        assert backbone.weights_file == f"{network}{ending}"
        assert ending in source


def test_a_network_that_only_starts_from_scratch_gets_a_card_and_no_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.run({"cnn_small": False, "mobilenet": True, "vgg16": False}, OFFLINE, out=tmp_path / "out")
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert files == {f"{name}/weights.json" for name in ("cnn_small", "mobilenet", "vgg16")} | {"mobilenet/weights.h5"}
    kinds = [read_weights_card(tmp_path / "out" / name).weights for name in ("cnn_small", "mobilenet", "vgg16")]
    assert kinds == ["scratch", "random", "scratch"]
    said = capsys.readouterr()
    assert "mobilenet" in said.err
    assert "vgg16" not in said.out + said.err
    # Another set of networks leaves nothing of this one.
    stage.run({"cnn_small": False}, OFFLINE, out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cnn_small"]


def test_a_network_without_pretrained_weights_cannot_have_any(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="network cnn_small: has no pretrained weights"):
        stage.run({"cnn_small": True}, OFFLINE, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="seed must lie between 0 and 4294967295"):
        WeightsParams(seed=seed)


def test_the_default_asks_no_server_and_says_loudly_that_weights_are_random(
    server: ThreadingHTTPServer,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DEEPSKY_WEIGHTS_URL", address)
    stage.run({"mobilenet": True}, OFFLINE, out=tmp_path / "out")
    assert server.asked == []  # type: ignore[attr-defined]
    assert read_weights_card(tmp_path / "out" / "mobilenet").weights == "random"
    assert "RANDOM weights" in capsys.readouterr().err


def test_the_variable_wins_over_params_and_the_folder_over_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keras_home: Path
) -> None:
    places = {"params": tmp_path / "params", "variable": tmp_path / "variable", "cache": keras_home / "models"}
    contents = {}
    for seed, (name, folder) in enumerate(places.items()):
        folder.mkdir(exist_ok=True)
        keras.utils.set_random_seed(seed)
        save_h5(mobilenet.BACKBONE.build(32), folder / FILE)
        contents[name] = (folder / FILE).read_bytes()
    named = WeightsParams(source="imagenet", folder=str(places["params"]), seed=1)
    monkeypatch.setenv("DEEPSKY_WEIGHTS", str(places["variable"]))
    for name in ("variable", "params", "cache"):
        stage.run({"mobilenet": True}, named, out=tmp_path / "out")
        assert (tmp_path / "out" / "mobilenet" / "weights.h5").read_bytes() == contents[name]
        monkeypatch.delenv("DEEPSKY_WEIGHTS", raising=False)
        if name == "params":
            (places["params"] / FILE).unlink()


def test_a_named_folder_that_is_missing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSKY_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match=r"DEEPSKY_WEIGHTS: .*nowhere is not a folder"):
        stage.run({"mobilenet": True}, OFFLINE, out=tmp_path / "out")


def test_a_file_that_does_not_fit_stops_even_the_tolerant_source(tmp_path: Path, keras_home: Path) -> None:
    (keras_home / "models" / FILE).write_bytes(b"half a download")
    with pytest.raises(WeightsError, match=f"{FILE}: holds no weights of mobilenet"):
        stage.run({"mobilenet": True}, OFFLINE, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("network", ["mobilenet", "vgg16"])
def test_a_cached_file_with_another_hash_is_used_as_custom_and_survives(
    network: str, tmp_path: Path, keras_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = find_backbone(network)
    cached = keras_home / "models" / backbone.weights_file
    save_h5(backbone.build(32), cached)
    before = cached.read_bytes()
    stage.run({network: True}, OFFLINE, out=tmp_path / "out")
    assert cached.read_bytes() == before
    assert (tmp_path / "out" / network / "weights.h5").read_bytes() == before
    card = read_weights_card(tmp_path / "out" / network)
    assert card.weights == "custom"
    assert card.source == f"{backbone.weights_file} (not Keras' own file: its hash differs)"
    assert f"{network} gets CUSTOM weights" in capsys.readouterr().err


@pytest.mark.parametrize("network", ["efficientnet_lite0", "mobilenet", "resnet50", "densenet121", "vgg16", "xception"])
def test_random_weights_are_seeded_and_their_features_usable(network: str) -> None:
    backbone = find_backbone(network)
    base = draw_weights(backbone, 7)
    rng = np.random.default_rng(0)
    sky = (255 * rng.uniform(0, 1, (6, 6, 6, 3)) ** 6).astype(np.float32)  # dark, with a few bright places
    rgb = keras.Input((96, 96, 3))
    pixels = keras.ops.image.resize(sky, (96, 96), interpolation="bilinear")
    maps = keras.Model(rgb, base(backbone.scale(rgb)))(pixels)
    features = keras.ops.convert_to_numpy(maps).mean(axis=(1, 2))
    apart = features.std(axis=0).mean()
    assert 0.01 < apart < 10, "features of different pictures must differ, and not explode"
    assert apart > 0.1 * features.mean(), "a head sees what differs, not what all pictures have in common"


def test_random_weights_are_the_same_bytes_for_the_same_seed_only(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 1), ("other", 2)):
        stage.run({"mobilenet": True}, replace(OFFLINE, seed=seed), out=tmp_path / name)
    assert (tmp_path / "one" / "mobilenet" / "weights.h5").read_bytes() == (
        tmp_path / "two" / "mobilenet" / "weights.h5"
    ).read_bytes()
    assert (tmp_path / "one" / "mobilenet" / "weights.h5").read_bytes() != (
        tmp_path / "other" / "mobilenet" / "weights.h5"
    ).read_bytes()
    assert (tmp_path / "one" / "mobilenet" / "weights.json").read_text() == (
        tmp_path / "two" / "mobilenet" / "weights.json"
    ).read_text()


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no weights"):
        read_weights_card(tmp_path)
    (tmp_path / "weights.json").write_text(json.dumps({"weights": "imagenet"}))
    with pytest.raises(WeightsError, match="holds no weights"):
        read_weights_card(tmp_path)


@pytest.mark.real
def test_the_real_mobilenet_loads_from_its_folder_and_from_the_cache(
    real_weights: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keras_home: Path
) -> None:
    real = real_weights() / FILE
    monkeypatch.setenv("DEEPSKY_WEIGHTS", str(real.parent))
    stage.run({"mobilenet": True}, ONLY_REAL, out=tmp_path / "named")
    monkeypatch.delenv("DEEPSKY_WEIGHTS")
    (keras_home / "models" / FILE).write_bytes(real.read_bytes())
    stage.run({"mobilenet": True}, OFFLINE, out=tmp_path / "cached")
    for name in ("named", "cached"):
        assert read_weights_card(tmp_path / name / "mobilenet").weights == "imagenet"
        assert (tmp_path / name / "mobilenet" / "weights.h5").read_bytes() == real.read_bytes()
    assert (keras_home / "models" / FILE).read_bytes() == real.read_bytes()
    base = mobilenet.BACKBONE.build(128)
    load_weights(base, tmp_path / "cached" / "mobilenet" / "weights.h5")
    assert base.predict(np.zeros((1, 128, 128, 3), np.float32), verbose=0).std() > 0.01
