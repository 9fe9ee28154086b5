"""What a card is worth: features, heads and a training from scratch, each against its measure in the same run.

    python benchmarks/gpu.py [--backend jax] [--small]

Under TensorFlow and JAX in turn, a process for each. Features: images/s from a memory map on disk, against the same
network on images that are on the device already. Heads: a population in one program against one by one, compiling not
counted in either. Training: DenseNet121 from scratch, also with deterministic: true, in a process of its own. On a CPU
the sizes are small, which shows that it works.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import keras
import numpy as np
import optuna
import pandas as pd
from image_training import Watch, fit_ours
from population import draw, fit_alone, make_examples

from deepsky.cards import memory_bytes
from deepsky.datasets.packed import DatasetCard, Packed
from deepsky.lean_keras import compute_deterministically
from deepsky.networks.backbone import build_features
from deepsky.networks.inputs import ImageSpec
from deepsky.networks.params import Precision
from deepsky.networks.precision import on_cpu
from deepsky.networks.registry import find_backbone
from deepsky.training.batch_size import images_per_step
from deepsky.training.population import HeadTrainer
from deepsky.training.predict import predict_batches
from deepsky.training.recipe import Recipe

BACKENDS, CLASSES = ("tensorflow", "jax"), ("a", "b", "c")
N_ROUNDS = 3
RATE = "images/s: "  # before what one process tells the other


def main() -> None:
    options = read_options()
    if not options.here:
        for backend in [options.backend] if options.backend else BACKENDS:
            command = [sys.executable, __file__, "--here", *(["--small"] if options.small else [])]
            subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend}, check=True)
        return
    compute_deterministically(options.deterministic)
    small = options.small or on_cpu()
    memory = memory_bytes()
    on = f"{keras.distribution.list_devices()[0]}{f' of {memory / 2**30:.0f} GiB' if memory else ''}"
    print(f"{keras.backend.backend()} on {on}{', small sizes' if small else ''}", flush=True)
    n_images, size_px, n_heads, n_alone = (64, 64, 8, 2) if small else (8192, 224, 256, 8)
    with tempfile.TemporaryDirectory() as folder:
        packed = noise(Path(folder) / "images.npy", n_images, size_px)
        trained = replace(packed, rows=packed.rows[: n_images // 4])
        if options.deterministic:
            print(f"{RATE}{training_rate(trained, size_px, 'float32')}")
            return
        for network in ("mobilenet", "resnet50"):
            for precision in ("float32", "mixed"):
                measure_features(network, precision, packed.images, size_px)
        measure_heads(n_heads, n_alone)
        rates = {precision: training_rate(trained, size_px, precision) for precision in ("float32", "mixed")}
    print(f"ratio mixed / float32: {rates['mixed'] / rates['float32']:.2f}", flush=True)
    command = [sys.executable, *sys.argv, "--deterministic"]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    rate = next(float(line.removeprefix(RATE)) for line in said.splitlines() if line.startswith(RATE))
    print(f"ratio deterministic / free, float32: {rate / rates['float32']:.2f}", flush=True)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, help="only this one")
    parser.add_argument("--small", action="store_true", help="small sizes on a card too")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # measure in this process
    parser.add_argument("--deterministic", action="store_true", help=argparse.SUPPRESS)  # measure one training so
    return parser.parse_args()


def noise(path: Path, n_images: int, size_px: int) -> Packed:
    """Write random pictures of random classes, and open them as stage features does."""
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n_images, size_px, size_px, 3))
    rng = np.random.default_rng(0)
    for start in range(0, n_images, 256):
        images[start : start + 256] = rng.integers(0, 256, images[start : start + 256].shape, dtype=np.uint8)
    images.flush()
    labels = rng.choice(CLASSES, n_images)
    rows = pd.DataFrame({"id": map(str, range(n_images)), "label": labels, "image": range(n_images)})
    return Packed(np.load(path, mmap_mode="r"), rows, DatasetCard("uint8", ("r", "g", "b"), (), CLASSES, None, 0))


def measure_features(network: str, precision: Precision, images: np.ndarray, size_px: int) -> None:
    spec = ImageSpec((size_px, size_px, 3), "uint8", ("r", "g", "b"))
    front = build_features(find_backbone(network), spec, size_px, None, fast=True, precision=precision)
    n_at_once = min(len(images), images_per_step("auto", front))
    on_device, n_batches = keras.ops.convert_to_tensor(images[:n_at_once]), len(images) // n_at_once
    front.predict_on_batch(on_device)  # compiles
    ours_s, bare_s = [], []
    for _ in range(N_ROUNDS):
        ours_s.append(seconds(lambda: predict_batches(front, images, n_at_once)))
        bare_s.append(seconds(lambda: [front.predict_on_batch(on_device) for _ in range(n_batches)]))
    ours, bare = len(images) / min(ours_s), n_batches * n_at_once / min(bare_s)
    print(f"features of {network}, {precision}, {n_at_once} at once: {ours:.0f} images/s, on device {bare:.0f}")
    print(f"ratio features / compute only, {network}, {precision}: {ours / bare:.2f} (aim 1)", flush=True)


def measure_heads(n_heads: int, n_alone: int) -> None:
    examples, trainer, (heads,) = make_examples(), HeadTrainer(), draw(n_heads, 1)
    trainer.train(heads, examples, lambda number, score: True)  # compiles
    fit_alone(replace(heads[0], epochs=1), examples)  # what is slow once in a process
    together_s = seconds(lambda: trainer.train(heads, examples, lambda number, score: True))
    alone_s = seconds(lambda: [fit_alone(head, examples) for head in heads[:n_alone]])
    together, alone = 3600 * n_heads / together_s, 3600 * n_alone / alone_s
    print(f"heads: {together:.0f} an hour in a population of {n_heads}, {alone:.0f} one by one")
    print(f"ratio population / one by one: {together / alone:.1f} (aim 50 on a GPU)", flush=True)


def training_rate(packed: Packed, size_px: int, precision: Precision) -> float:
    """Return images/s of a training from scratch, and print them."""
    recipe = Recipe(
        dataset="noise", network="densenet121", start="scratch", learn="all", hidden_units=(), input_size_px=size_px,
        epochs=1 + N_ROUNDS, keep="last",
    )  # fmt: skip
    watch = Watch()
    fit_ours(packed, replace(recipe, precision=precision), watch)
    rate = len(packed.rows) / median(watch.epochs_s)
    print(f"densenet121 at {size_px} px, {precision}: {rate:.0f} images/s, {max(watch.waits):.1%} waiting")
    return rate


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    main()
