"""Ten epochs of a frozen MobileNet: features once and a head, against fitting the whole frozen network from files.

    python benchmarks/frozen_training.py [--images FOLDER] [--n-images 640]

Prints two ratios with their targets; both sides of each are measured in this run. Our side counts everything from
packed images to a fitted head; decoding into the packed array is the pack stage's work, done once for all networks.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import keras
import numpy as np

from deepsky.networks.backbone import build_features
from deepsky.networks.heads import build_head, join, softmax_answer
from deepsky.networks.inputs import ImageSpec
from deepsky.networks.registry import find_backbone
from deepsky.training.batches import TrainBatches
from deepsky.training.examples import Examples
from deepsky.training.fit import Phase, fit_phases
from deepsky.training.predict import predict_batches
from deepsky.training.recipe import Recipe

SIZE_PX, N_CLASSES = 224, 3
N_TIMED = 160  # images of one timed predict: many short ones find a quiet moment of a busy machine
RECIPE = Recipe(dataset="noise", network="mobilenet", input_size_px=SIZE_PX)
SPEC = ImageSpec((SIZE_PX, SIZE_PX, 3), "uint8", ("red", "green", "blue"))


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, labels = write_images(folder, options.images, options.n_images)
        np.save(folder / "images.npy", images)
        packed = np.load(folder / "images.npy", mmap_mode="r")
        front = build_features(find_backbone("mobilenet"), SPEC, SIZE_PX, None)
        fast = build_features(find_backbone("mobilenet"), SPEC, SIZE_PX, None, fast=True)
        for model in (front, fast):
            model.predict(images[:64], batch_size=32, verbose=0)  # compile before any clock runs

        features_s, bare_s, plain_s = fastest(
            lambda: predict_batches(fast, packed[:N_TIMED], 32),
            lambda: fast.predict(images[:N_TIMED], batch_size=32, verbose=0),
            lambda: front.predict(images[:N_TIMED], batch_size=32, verbose=0),
        )
        ours_s = timed(lambda: fit_head(fast, packed, labels))
        epochs = options.full_epochs
        full_s = timed(lambda: fit_full_network(front, folder / "jpeg", epochs)) * RECIPE.epochs / epochs
    extrapolated = "" if epochs == RECIPE.epochs else f" (from {epochs})"
    rates = ", ".join(f"{min(N_TIMED, len(images)) / seconds:.0f}" for seconds in (features_s, bare_s, plain_s))
    print(f"images/s of features, bare predict of the same network, and with its batch normalisation unfolded: {rates}")
    print(f"ratio features / bare predict: {bare_s / features_s:.2f} (target >= 0.95)")
    print(f"ratio features / bare predict of the unfolded network: {plain_s / features_s:.2f}")
    print(f"{RECIPE.epochs} epochs: ours {ours_s:.1f} s, full frozen network from files {full_s:.1f} s{extrapolated}")
    print(f"ratio full / ours: {full_s / ours_s:.1f} (target >= 8)")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of JPEG files; default: seeded noise")
    parser.add_argument("--n-images", type=int, default=640)
    parser.add_argument("--full-epochs", type=int, default=RECIPE.epochs, help="fewer: the rest is extrapolated")
    return parser.parse_args()


def write_images(folder: Path, source: Path | None, n_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Write class folders of JPEG files; return the decoded RGB pixels and the class of each."""
    rng = np.random.default_rng(0)
    files: list[Path | None] = [None] * n_images
    if source:
        files = [path for path in sorted(source.rglob("*")) if path.suffix in (".jpg", ".jpeg")][:n_images]
    labels = np.arange(len(files)) % N_CLASSES
    images = np.empty((len(files), SIZE_PX, SIZE_PX, 3), np.uint8)
    for number, (file, label) in enumerate(zip(files, labels, strict=True)):
        pixels = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8) if file is None else cv2.imread(str(file))
        pixels = cv2.resize(pixels, (SIZE_PX, SIZE_PX))
        target = folder / "jpeg" / str(label) / f"{number:05d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), pixels)
        images[number] = cv2.imread(str(target))[..., ::-1]
    return images, labels


def fit_head(front: keras.Model, packed: np.ndarray, labels: np.ndarray) -> None:
    """Do what stages features and train do, with every image in train; val is one batch."""
    inputs = predict_batches(front, packed, 32)
    rows = np.arange(len(inputs) + 32) % len(inputs)
    split = np.where(np.arange(len(rows)) < len(inputs), "train", "val")
    examples = Examples(inputs, rows, np.eye(N_CLASSES, dtype=np.float32)[labels[rows]], split)
    head = new_head(inputs.shape[1])
    fit_phases(head, head, examples, [Phase(RECIPE)], lambda recipe, first: TrainBatches(examples, recipe, first))


def fit_full_network(front: keras.Model, folder: Path, epochs: int) -> None:
    """Fit image -> probabilities with the frozen backbone inside, decoding the files in every epoch."""
    files = keras.utils.image_dataset_from_directory(
        folder, label_mode="categorical", image_size=(SIZE_PX, SIZE_PX), batch_size=32, seed=1, verbose=False
    )
    network = join(front, new_head(front.output_shape[1]), "full")
    network.compile(
        optimizer=keras.optimizers.Adam(1e-3), loss="categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    network.fit(files, epochs=epochs, shuffle=False, verbose=0)  # the dataset shuffles itself


def new_head(n_features: int) -> keras.Model:
    return build_head(n_features, softmax_answer(N_CLASSES), RECIPE.hidden_units, RECIPE.activation)


def fastest(*calls: Callable[[], object], n_rounds: int = 10) -> Sequence[float]:
    """Return the shortest time of each call, in seconds; taken in turns, so that a busy moment hits all."""
    times: list[list[float]] = [[] for _ in calls]
    for round_number in range(n_rounds):
        order = list(zip(times, calls, strict=True))
        for own, call in order if round_number % 2 else reversed(order):
            own.append(timed(call))
    return [min(own) for own in times]


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
