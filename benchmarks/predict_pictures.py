"""Label 20,000 small pictures from files, against bare ``predict`` on the same ones in memory: the ratio of times."""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import keras
import numpy as np
import numpy.typing as npt

from deepsky.commands import predict
from deepsky.networks.heads import join, softmax_answer
from deepsky.networks.inputs import ImageSpec, stretched_front
from deepsky.networks.registry import find_scratch
from deepsky.training.saved import ModelCard, load_network, save_network

SIDE_PX, CLASSES = 64, ("galaxy", "quasar", "star")
AIM = 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_pictures(folder / "pictures", options.pictures)
        write_network(folder / "model.h5")
        label(folder, 0)  # warm up what both share
        bare = min(seconds(lambda: in_memory(folder, images)) for _ in range(options.rounds))
        ours = min(seconds(lambda k=k: label(folder, k)) for k in range(1, options.rounds + 1))
    print(f"{options.pictures:,} JPEGs of {SIDE_PX} px, cnn_small: in memory {bare:.1f} s, from files {ours:.1f} s")
    print(f"deepsky predict against bare predict: {ours / bare:.2f} x (aim: at most {AIM} x)")


def write_pictures(folder: Path, n_pictures: int) -> npt.NDArray[np.uint8]:
    folder.mkdir()
    rng, images = np.random.default_rng(0), np.empty((n_pictures, SIDE_PX, SIDE_PX, 3), np.uint8)
    for number in range(n_pictures):
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        path = folder / f"{number:06}.jpg"
        cv2.imwrite(str(path), cv2.resize(coarse, (SIDE_PX, SIDE_PX)))
        images[number] = cv2.imread(str(path))[..., ::-1]
    return images


def write_network(path: Path) -> None:
    keras.utils.set_random_seed(1)
    front = stretched_front(ImageSpec((SIDE_PX, SIDE_PX, 3), "uint8", ("red", "green", "blue")), SIDE_PX)
    tail = find_scratch("cnn_small")(front.output_shape[1:], softmax_answer(len(CLASSES)))
    card = ModelCard(
        dataset="benchmark", network="cnn_small", weights="scratch", classes=CLASSES, kind="uint8",
        bands=("red", "green", "blue"), colour_bands=(), image_shape=(SIDE_PX, SIDE_PX, 3), pixel_scale_arcsec=None,
    )  # fmt: skip
    save_network(path, join(front, tail, "cnn_small"), card)


def in_memory(folder: Path, images: npt.NDArray[np.uint8]) -> None:
    network, _ = load_network(folder / "model.h5")
    network.predict(images, batch_size=predict.BATCH_SIZE, verbose=0)


def label(folder: Path, number: int) -> None:
    predict._loaded.cache_clear()
    predict.run(
        str(folder / "model.h5"), [str(folder / "pictures")], folder / f"{number}.csv",
        catalogue=None, id_column=None, reading={},
    )  # fmt: skip


def seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
