"""Where weights come from: folder, cache, download from a real server on this machine, seed."""

import hashlib
import inspect
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import keras
import numpy as np
import pytest

from deepsky.archives.http import download
from deepsky.errors import ConfigError, DataError, WeightsError
from deepsky.networks import mobilenet
from deepsky.networks.backbone import load_weights
from deepsky.networks.params import WeightsParams
from deepsky.networks.pretrained import draw_weights
from deepsky.networks.registry import BACKBONES, find_backbone
from deepsky.networks.saving import save_h5
from deepsky.networks.weights_card import read_weights_card
from deepsky.stages import weights as stage

FILE = mobilenet.BACKBONE.weights_file
OFFLINE = WeightsParams()
ONLINE = WeightsParams(source="imagenet", download=True)


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.files``; /short promises more bytes than it sends."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        body = self.server.files.get(self.path)  # type: ignore[attr-defined]
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + (1000 if "short" in self.path else 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.files, http.asked = {}, []  # type: ignore[attr-defined]
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


def test_download_writes_the_file_and_returns_its_hash(
    server: ThreadingHTTPServer, address: str, tmp_path: Path
) -> None:
    body = bytes(range(256)) * 9000  # more than one chunk
    server.files["/a.h5"] = body  # type: ignore[attr-defined]
    expected = hashlib.sha256(body).hexdigest()
    assert download(f"{address}/a.h5", tmp_path / "deep" / "a.h5", digest=expected) == expected
    assert (tmp_path / "deep" / "a.h5").read_bytes() == body


@pytest.mark.parametrize(
    ("name", "digest", "problem"),
    [
        ("absent.h5", None, "answers 404"),
        ("a.h5", "0" * 64, "has the hash .* not 0000"),
        ("short.h5", None, "cannot be downloaded|ended after"),
    ],
)
def test_download_that_fails_leaves_nothing(
    name: str, digest: str | None, problem: str, server: ThreadingHTTPServer, address: str, tmp_path: Path
) -> None:
    server.files |= {"/a.h5": b"abc", "/short.h5": b"abc"}  # type: ignore[attr-defined]
    folder = tmp_path / "out"
    with pytest.raises(DataError, match=f"{name}: ({problem})") as caught:
        download(f"{address}/{name}", folder / "a.h5", digest=digest)
    assert "\n" not in str(caught.value)
    assert not folder.exists() or list(folder.iterdir()) == []


def test_download_from_a_closed_port_names_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = http.server_address[1]
    http.server_close()
    with pytest.raises(DataError, match=rf"http://127\.0\.0\.1:{port}/a: cannot be downloaded"):
        download(f"http://127.0.0.1:{port}/a", tmp_path / "a")


def test_imagenet_is_downloaded_when_no_folder_has_it(
    server: ThreadingHTTPServer, address: str, mobilenet_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files[f"/mobilenet/{FILE}"] = mobilenet_file.read_bytes()  # type: ignore[attr-defined]
    known = replace(mobilenet.BACKBONE, weights_digest=hashlib.sha256(mobilenet_file.read_bytes()).hexdigest())
    monkeypatch.setattr(mobilenet, "BACKBONE", known)
    monkeypatch.setenv("DEEPSKY_WEIGHTS_URL", address)
    stage.run({"mobilenet": True}, ONLINE, out=tmp_path / "out")
    assert (tmp_path / "out" / "mobilenet" / "weights.h5").read_bytes() == mobilenet_file.read_bytes()
    card = read_weights_card(tmp_path / "out" / "mobilenet")
    assert (card.weights, card.source) == ("imagenet", FILE)
    assert card.sha256 == hashlib.sha256(mobilenet_file.read_bytes()).hexdigest()


def test_imagenet_stops_and_names_every_place(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keras_home: Path
) -> None:
    monkeypatch.setenv("DEEPSKY_WEIGHTS_URL", address)
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("DEEPSKY_WEIGHTS", str(tmp_path / "mine"))
    with pytest.raises(WeightsError) as caught:
        stage.run({"mobilenet": True}, ONLINE, out=tmp_path / "out")
    for place in (str(tmp_path / "mine"), str(keras_home / "models"), f"{address}/mobilenet/{FILE}", "404"):
        assert place in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("network", BACKBONES)
def test_a_download_with_another_hash_than_keras_own_is_refused(
    network: str, server: ThreadingHTTPServer, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = find_backbone(network)
    server.files[f"/{backbone.weights_folder}/{backbone.weights_file}"] = b"abc"  # type: ignore[attr-defined]
    monkeypatch.setenv("DEEPSKY_WEIGHTS_URL", address)
    with pytest.raises(WeightsError, match=f"has the hash .* not {backbone.weights_digest}"):
        stage.run({network: True}, ONLINE, out=tmp_path / "out")


@pytest.mark.parametrize("network", BACKBONES)
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
    named = WeightsParams(source="imagenet", folder=str(places["params"]), download=False, seed=1)
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


@pytest.mark.parametrize("network", ["mobilenet", "resnet50", "densenet121", "vgg16", "xception"])
def test_random_weights_are_seeded_and_their_features_usable(network: str) -> None:
    backbone = find_backbone(network)
    base = draw_weights(backbone, 7)
    rng = np.random.default_rng(0)
    sky = (255 * rng.uniform(0, 1, (6, 6, 6, 3)) ** 6).astype(np.float32)  # dark, with a few bright places
    rgb = keras.Input((96, 96, 3))
    pixels = keras.ops.image.resize(sky, (96, 96), interpolation="bilinear")
    maps = keras.Model(rgb, base(backbone.scale(rgb)))(pixels)
    features = keras.ops.convert_to_numpy(maps).mean(axis=(1, 2))
    assert 0.01 < features.std(axis=0).mean() < 10, "features of different pictures must differ, and not explode"


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
    stage.run({"mobilenet": True}, ONLINE, out=tmp_path / "named")
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
