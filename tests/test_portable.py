"""What others load: a process that knows nothing of deepsky answers as the saved network does."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import pytest

from deepsky.commands import export
from deepsky.errors import DeepSkyError
from deepsky.imaging.pictures import write_png
from deepsky.networks.backbone import caffe_scaling
from deepsky.networks.finetune import base_of, build_tail_of
from deepsky.networks.heads import join, softmax_answer, tree_answer
from deepsky.networks.inputs import ImageSpec, colour_front, stretched_front
from deepsky.networks.portable import portable
from deepsky.networks.views import average_views
from deepsky.training.saved import ModelCard, load_network, save_network
from tests.test_finetune import TINY
from tests.test_networks import some_images
from tests.tiny_networks import SIDE_PX, tiny_tail
from tests.workspace import ROOT

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}
RGB = ImageSpec((24, 24, 3), "uint8", ("red", "green", "blue"))
FLUX = ImageSpec((SIDE_PX, SIDE_PX, 4), "flux", ("g", "r", "i", "z"), ("i", "r", "g"))
# Without deepsky: the answers of every network of a folder, or why it cannot be loaded.
STRANGER = """
import sys
sys.modules["deepsky"] = None
import json, pathlib, keras, numpy as np
folder, said = pathlib.Path(sys.argv[1]), {}
for path in sorted([*folder.glob("*.h5"), *folder.glob("*.keras")]):
    try:
        network = keras.models.load_model(path, compile=False)
    except Exception as error:
        said[path.name] = str(error)
    else:
        np.save(folder / f"{path.name}.npy", network.predict(np.load(folder / f"{path.stem}.npy"), verbose=0))
(folder / "said.json").write_text(json.dumps(said))
"""


def of_pictures() -> keras.Model:
    """Every layer of our own that a network of pictures is trained with: dropout, frozen statistics, two views."""
    tail = build_tail_of(
        replace(TINY, scale=caffe_scaling), 20, None, frozen_norm=True, hidden_units=(8,), dropout=0.2, seed=3,
        answer=softmax_answer(3),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for layer in base_of(tail).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    last = tail.get_layer("head").get_layer("probabilities")
    last.kernel.assign(0.01 * last.kernel)  # not too sure of its answers
    return average_views(join(colour_front(RGB, 20), tail, "tiny"), 2, [1, 0, 2], "tiny")


def of_flux() -> keras.Model:
    return join(stretched_front(FLUX, SIDE_PX), tiny_tail(softmax_answer(3), 4), "tiny")


def of_votes() -> keras.Model:
    return average_views(join(colour_front(FLUX, SIDE_PX), tiny_tail(tree_answer()), "tiny"), 2, range(37), "tiny")


def card_of(spec: ImageSpec, target: str = "class") -> ModelCard:
    return ModelCard(
        dataset="toy", network="tiny", weights="scratch", classes=("A", "B", "C"), kind=spec.kind, bands=spec.bands,
        colour_bands=spec.colour_bands, image_shape=spec.shape, pixel_scale_arcsec=None, target=target,
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], keras.Model], ImageSpec, str]] = {
    "pictures": (of_pictures, RGB, "class"),
    "flux": (of_flux, FLUX, "class"),
    "votes": (of_votes, FLUX, "fractions"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each network as .h5 and .keras, its images, what it says of them, and what a stranger says."""
    place = tmp_path_factory.mktemp("networks")
    for name, (make, spec, target) in NETWORKS.items():
        network, images = make(), some_images(spec, 5)
        save_network(place / f"{name}.h5", network, card_of(spec, target))
        portable(network, "keras").save(place / f"{name}.keras")
        np.save(place / f"{name}.npy", images)
        np.save(place / f"{name}.own.npy", network.predict(images, verbose=0))
    command = [sys.executable, "-c", STRANGER, str(place)]
    subprocess.run(command, check=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    return place


@pytest.mark.parametrize("file", ["pictures.h5", *(f"{name}.keras" for name in NETWORKS)])
def test_keras_alone_answers_as_the_saved_network_does(file: str, folder: Path) -> None:
    own = np.load(folder / f"{Path(file).stem}.own.npy")
    np.testing.assert_allclose(np.load(folder / f"{file}.npy"), own, atol=1e-6)
    assert len(np.unique(own[:, 0])) == len(own), "the pixels must matter"


@pytest.mark.parametrize(("name", "module"), [("flux", "inputs"), ("votes", "inputs")])
def test_what_an_h5_cannot_say_without_deepsky_it_says_in_one_line(name: str, module: str, folder: Path) -> None:
    said = json.loads((folder / "said.json").read_text())
    assert sorted(said) == ["flux.h5", "votes.h5"]
    assert f"this .h5 needs deepsky: import deepsky.networks.{module} first" in said[f"{name}.h5"]
    assert "\n" not in said[f"{name}.h5"]


@pytest.mark.parametrize("name", NETWORKS)
def test_deepsky_loads_what_was_evaluated_to_the_last_bit(name: str, folder: Path) -> None:
    network, _ = load_network(folder / f"{name}.h5")
    answers = network.predict(np.load(folder / f"{name}.npy"), verbose=0)
    np.testing.assert_array_equal(answers, np.load(folder / f"{name}.own.npy"))


def test_the_python_of_the_readme_answers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (file,) = re.findall(r'Path\("(.*?)"\)', code)
    (tmp_path / file).parent.mkdir(parents=True)
    shutil.copy(folder / "pictures.h5", tmp_path / file)
    image = np.load(folder / "pictures.npy")[0]
    write_png(tmp_path / "galaxy.jpg", image)  # OpenCV goes by the content: no loss
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    said = re.findall(r"'(\w)': np.float32\((.*?)\)", capsys.readouterr().out)
    assert [name for name, _ in said] == ["A", "B", "C"]
    own = np.load(folder / "pictures.own.npy")[0]
    np.testing.assert_allclose([float(value) for _, value in said], own, atol=1e-6)


@pytest.mark.parametrize(("name", "kind"), [("pictures", "onnx"), ("pictures", "litert"), ("votes", "onnx")])
def test_other_programs_answer_as_the_network_does(
    name: str, kind: Literal["onnx", "litert"], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "litert":
        pytest.importorskip("ai_edge_litert")
    out = tmp_path / f"network{SUFFIXES[kind]}"
    export.run(str(folder / f"{name}.h5"), kind, out)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{out}: (n, ")
    assert second.startswith("checked by ")
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_an_export_that_answers_something_else_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_CLOSE", -1.0)
    with pytest.raises(DeepSkyError, match="answers something else"):
        export.run(str(folder / "flux.h5"), "keras", tmp_path / "network.keras")
    with pytest.raises(DeepSkyError, match=r"network.h5: is no name of a keras file; let it end in .keras"):
        export.run(str(folder / "flux.h5"), "keras", tmp_path / "network.h5")
    assert not list(tmp_path.iterdir())
