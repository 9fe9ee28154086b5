"""Epochs and predictions that end when they are done, against those that wait for tf.data's tuner to wake.

The same network on the same packed images: `model.fit` from `TrainBatches` as it is and with one worker, by which
Keras lets tf.data read ahead; `predict_batches` against `model.predict`. The tuner sleeps 10, 20, 40, ... ms, so the
ratio depends on how long an epoch takes: several lengths are timed. Once they all come out near 1, the workaround in
`training/batches.py` and `training/predict.py` can go.
"""

import argparse
import time
from statistics import mean

import keras
import numpy as np

from deepsky.networks.heads import softmax_answer
from deepsky.networks.study_cnns import GALAXY10_1
from deepsky.training.batches import TrainBatches
from deepsky.training.examples import Examples
from deepsky.training.predict import predict_batches
from deepsky.training.recipe import Recipe

SIDE_PX, N_CLASSES, BATCH = 128, 10, 32
EPOCHS = 3
RECIPE = Recipe(
    dataset="noise", network="galaxy10_model_1", start="scratch", learn="all", input_size_px=SIDE_PX, keep="last",
    batch_size=BATCH, epochs=EPOCHS,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-images", type=int, nargs="+", default=[640, 960, 1280, 1920, 2560])
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (max(options.n_images), SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    targets = np.eye(N_CLASSES, dtype=np.float32)[rng.integers(0, N_CLASSES, len(images))]
    model = network()
    fit(model, images[:64], targets[:64], n_workers=2)  # compile before any clock runs
    model.predict(images[:64], batch_size=BATCH, verbose=0)
    for what, waiting, ours in (
        ("fit", lambda n: fit(model, images[:n], targets[:n], 1), lambda n: fit(model, images[:n], targets[:n], 2)),
        (
            "predict",
            lambda n: model.predict(images[:n], batch_size=BATCH, verbose=0),
            lambda n: predict_batches(model, images[:n], BATCH),
        ),
    ):
        ratios = []
        for n_images in options.n_images:
            seconds = [timed(way, n_images) for way in (waiting, ours)]
            ratios.append(seconds[0] / seconds[1])
            print(f"{what}, {n_images} images: {seconds[0]:.2f} s with tf.data, {seconds[1]:.2f} s without")
        print(f"{what} ratio {mean(ratios):.2f} (mean; {min(ratios):.2f} to {max(ratios):.2f})")


def network() -> keras.Model:
    image = keras.Input((SIDE_PX, SIDE_PX, 3), dtype="uint8")
    pixels = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    model = keras.Model(image, GALAXY10_1((SIDE_PX, SIDE_PX, 3), softmax_answer(N_CLASSES))(pixels))
    model.compile("adam", "categorical_crossentropy", jit_compile=False)
    return model


def fit(model: keras.Model, images: np.ndarray, targets: np.ndarray, n_workers: int) -> None:
    examples = Examples(images, np.arange(len(images)), targets, np.full(len(images), "train"))
    batches = TrainBatches(examples, RECIPE)
    batches.workers = n_workers
    model.fit(batches, epochs=EPOCHS, shuffle=False, verbose=0)


def timed(way, n_images: int) -> float:
    started = time.perf_counter()
    way(n_images)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
