"""JAX does what TensorFlow does, in processes of their own.

KERAS_BACKEND=jax trains, saves and predicts; what TensorFlow saved predicts the same under JAX. A head even learns the
same under both, alone and in a population: its first weights, its dropout and the order of its examples do not depend
on the backend. Importing Keras takes seconds, so one JAX process does all that JAX has to do.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from deepsky.datasets.packed import DatasetCard, open_packed, write_rows
from deepsky.networks.augment import MirrorBack, RandomView, mirror_swaps
from deepsky.networks.finetune import unfreeze
from deepsky.networks.heads import softmax_answer
from deepsky.networks.params import AugmentParams, WeightsParams
from deepsky.networks.tree import TreeFractions
from deepsky.networks.views import average_views
from deepsky.stages import features, train, weights
from deepsky.stages.features import NetworkFeatures
from deepsky.tracking.params import TrackingParams
from deepsky.training.examples import examples_of, read_split
from deepsky.training.explain import grad_cam
from deepsky.training.population import HeadTrainer
from deepsky.training.recipe import Recipe
from deepsky.training.saved import load_network
from deepsky.training.view_features import read_views
from tests.conftest import ROOT
from tests.test_explain import pictures, pooled_tail
from tests.test_finetune import HEAD, TINY, TINY_TOP, some_batch, step, tiny_tail
from tests.trained_folders import make_project

HEAD_RUN = Recipe(
    dataset="toy", network="mobilenet", input_size_px=32, hidden_units=(64, 32), activation="gelu", dropout=0.3,
    batch_norm=True, l2=1e-4, label_smoothing=0.1, schedule="cosine", batch_size=8, epochs=3,
)  # fmt: skip
RECIPES = {
    "mobilenet": HEAD_RUN,
    "cnn_small": replace(HEAD_RUN, network="cnn_small", start="scratch", learn="all", input_size_px=16),
}


def write_inputs(folder: Path) -> None:
    rng = np.random.default_rng(0)
    packed, n_rows = folder / "packed", 48
    packed.mkdir(parents=True)
    np.save(packed / "images.npy", rng.integers(0, 256, (n_rows, 20, 20, 3), dtype=np.uint8))
    labels = np.where(np.arange(n_rows) % 2, "STAR", "GALAXY")
    rows = pd.DataFrame({"id": np.arange(n_rows).astype(str), "label": labels, "image": np.arange(n_rows)})
    write_rows(packed, rows, DatasetCard("uint8", ("r", "g", "b"), (), ("GALAXY", "STAR"), None, 0), [])
    split = np.array(["train", "train", "val", "test"])[np.arange(n_rows) % 4]
    pd.DataFrame({"id": rows["id"], "split": split, "group": rows["id"]}).to_csv(folder / "split.csv", index=False)
    weights.run({"mobilenet": True}, WeightsParams(source="random"), out=folder / "weights")
    cached = NetworkFeatures(views={HEAD_RUN.views.name: HEAD_RUN.views})
    data = {"packed": packed, "split": folder / "split.csv", "weights": folder / "weights"}
    features.run({"mobilenet": cached}, 16, **data, out=folder / "features")


def train_both(folder: Path, name: str) -> None:
    """What `deepsky train` does for a head and for a network, in one process because importing Keras takes seconds."""
    inputs, out = folder / "inputs", folder / name
    files = {"packed": inputs / "packed", "split": inputs / "split.csv"}
    for network, recipe in RECIPES.items():
        own = {"features": inputs / "features" / network, "weights": inputs / "weights" / network}
        train.run(network, recipe, TrackingParams(experiment="tests"), {}, **files, **own, out=out / network)


def predict(folder: Path, name: str) -> None:
    inputs, saved = folder / "inputs", folder / name
    images = np.array(open_packed(inputs / "packed").images)
    for network in RECIPES:
        model, card = load_network(saved / network / "model.h5")
        expected = pd.read_csv(saved / network / "predictions.csv")[[f"p_{name}" for name in card.classes]]
        np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=2e-4)


def train_population(folder: Path, name: str) -> None:
    inputs, saved = folder / "inputs", folder / name
    packed = open_packed(inputs / "packed")
    views = read_views(inputs / "features/mobilenet" / HEAD_RUN.views.name, len(packed.images))
    examples = examples_of(packed, read_split(inputs / "split.csv", packed), views.plain)
    outcome = HeadTrainer().train([HEAD_RUN, HEAD_RUN], examples, lambda number, score: True)[1]
    history = pd.read_csv(saved / "mobilenet/history.csv")
    losses = [score.val_loss for score in outcome.scores]
    np.testing.assert_allclose(losses, history["val_loss"], rtol=5e-3)  # 0.0015 apart on some processors


def answers_of_a_tail() -> np.ndarray:
    return keras.ops.convert_to_numpy(tiny_tail()(some_batch()[0], training=False))


def train_the_top_of_a_tail() -> None:
    tail = tiny_tail()
    unfreeze(tail, TINY, 1)
    changed = step(tail)
    assert {path.split("/")[0] for path in changed} - HEAD == TINY_TOP, changed
    assert not any("moving" in path for path in changed)


def heats_of_known_weights() -> np.ndarray:
    tail, rng = pooled_tail(softmax_answer(3)), np.random.default_rng(0)
    tail.set_weights([rng.normal(0, 0.3, weight.shape) for weight in tail.get_weights()])
    return np.array([heat for (heat,) in grad_cam(tail, pictures(), [[1]] * 3, exclusive=True)])


def learn_from_views() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    image = keras.Input((16, 16, 3), dtype="uint8", name="image")
    pixels = keras.layers.Rescaling(1 / 255, name="scale")(image)
    augment = AugmentParams(flip=True, rotation_deg=180, shift=0.1, shear_deg=10, zoom=0.2, brightness=0.3)
    seen, mirrored = RandomView(asdict(augment), seed=5, top=1.0, name="view")(pixels)
    answer = keras.layers.Dense(3, activation="softmax", name="probabilities")(keras.layers.Flatten(name="flat")(seen))
    back = MirrorBack(mirror_swaps(("a", "b", "c"), (("a", "b"),)), name="mirror_back")([answer, mirrored])
    learner = keras.Model(image, back, name="learner")
    learner.set_weights([rng.normal(0, 0.1, w.shape) if len(w.shape) else w for w in learner.get_weights()])
    images, labels = rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8), np.eye(3)[np.arange(8) % 3]
    learner.compile(keras.optimizers.SGD(0.1), loss="categorical_crossentropy", jit_compile=True)
    losses = learner.fit(images, labels, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]
    averaged = average_views(keras.Model(image, learner(image), name="core"), 8, (1, 0, 2), "averaged")
    tree = TreeFractions()(rng.normal(0, 3, (4, 37)).astype(np.float32))
    return {
        "losses": np.array(losses),
        "averaged": averaged.predict(images, verbose=0),
        "tree": keras.ops.convert_to_numpy(tree),
        "plain": learner.predict(images, verbose=0),
    }


def use_jax(folder: Path, name: str) -> None:
    """All that JAX has to do; what needs nothing of the other processes comes before they have ended."""
    out = folder / name
    np.save(out / "tail.npy", answers_of_a_tail())
    train_the_top_of_a_tail()
    np.save(out / "heats.npy", heats_of_known_weights())
    np.savez(out / "views.npz", **learn_from_views())
    train_both(folder, name)
    predict(folder, name)
    sys.stdin.read()
    predict(folder, "a")
    train_population(folder, "a")


def start(run: Callable[[Path, str], None], folder: Path, name: str, backend: str) -> "subprocess.Popen[str]":
    """Run one of the functions above in a fresh process, in a project of its own."""
    script = f"""
import keras
from pathlib import Path
from tests.test_backends import {run.__name__}

assert keras.backend.backend() == {backend!r}
{run.__name__}(Path({str(folder)!r}), {name!r})
"""
    (folder / name).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        make_project(folder / name, patch)
        patch.setenv("KERAS_BACKEND", backend)
        patch.setenv("PYTHONPATH", str(ROOT))
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stderr=pipe, text=True)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder of the processes a and jax, and what those said that failed."""
    assert keras.backend.backend() == "tensorflow", "what JAX is compared with"
    folder = tmp_path_factory.mktemp("backends")
    write_inputs(folder / "inputs")
    # Side by side: what else the machine does must not matter either.
    processes = {"a": start(train_both, folder, "a", "tensorflow"), "jax": start(use_jax, folder, "jax", "jax")}
    said = {name: process.communicate()[1] for name, process in processes.items()}
    return folder, {name: said[name] for name, process in processes.items() if process.returncode}


def written_by(name: str, ended: tuple[Path, dict[str, str]]) -> Path:
    folder, failed = ended
    assert name not in failed, failed[name]
    return folder / name


def test_jax_trains_and_predicts_what_tensorflow_saved(ended: tuple[Path, dict[str, str]]) -> None:
    history = pd.read_csv(written_by("jax", ended) / "cnn_small/history.csv")
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    heads = [pd.read_csv(written_by(name, ended) / "mobilenet/history.csv") for name in ("a", "jax")]
    np.testing.assert_allclose(heads[0]["val_loss"], heads[1]["val_loss"], rtol=1e-3)


def test_jax_starts_fine_tuning_from_the_same_numbers(ended: tuple[Path, dict[str, str]]) -> None:
    answers = np.load(written_by("jax", ended) / "tail.npy")
    np.testing.assert_allclose(answers, answers_of_a_tail(), atol=1e-4)


def test_the_same_heat_under_jax(ended: tuple[Path, dict[str, str]]) -> None:
    heats = heats_of_known_weights()
    np.testing.assert_allclose(np.load(written_by("jax", ended) / "heats.npy"), heats, atol=2e-3)
    assert heats.max() == 1


def test_jax_and_tensorflow_learn_the_same_from_the_same_views_compiled(ended: tuple[Path, dict[str, str]]) -> None:
    found = np.load(written_by("jax", ended) / "views.npz")
    for name, values in learn_from_views().items():
        np.testing.assert_allclose(found[name], values, atol=2e-4, err_msg=name)
    assert not np.allclose(found["averaged"], found["plain"], atol=1e-2)
