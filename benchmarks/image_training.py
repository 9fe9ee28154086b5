"""One epoch of the Galaxy10 study's model 1 at 256 px: ours from packed images, `model.fit` from an image folder.

    python benchmarks/image_training.py [--network densenet121 --size-px 224 --n-images 2000]

Both train the same network on the same images with the same batch and optimizer, in the same run, in turns. The plain
way is `keras.utils.image_dataset_from_directory`, as the studies used it; it decodes every JPEG again in every epoch.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import cv2
import h5py
import keras
import numpy as np

from deepsky.datasets.packed import Packed, open_packed
from deepsky.formats.params import PicturesParams
from deepsky.simulation.published import write_galaxy10
from deepsky.stages import pack
from deepsky.training.build import make_job
from deepsky.training.recipe import Recipe

BATCH = 32
TARGET = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="galaxy10_model_1")
    parser.add_argument("--size-px", type=int, default=256)
    parser.add_argument("--n-images", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=3, help="of each way, twice, after one to warm up")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_galaxy10(options.n_images, 11, folder / "galaxy10.h5")
        source = str(folder / "galaxy10.h5")
        packing = PicturesParams(format="galaxy10", source=source, size_px=options.size_px, sha256="any")
        pack.run("galaxy10", packing, "stop", out=folder / "packed")
        write_jpegs(folder / "galaxy10.h5", folder / "jpegs")
        packed = open_packed(folder / "packed")
        watches = {"plain": Watch(), "float32": Watch(), "mixed": Watch()}
        for _ in range(2):
            recipe = Recipe(
                dataset="galaxy10", network=options.network, start="scratch", learn="all", hidden_units=(),
                input_size_px=options.size_px, epochs=1 + options.epochs, keep="last", batch_size=BATCH,
            )  # fmt: skip
            fit_plain(folder / "jpegs", packed, recipe, watches["plain"])
            for precision in ("float32", "mixed"):
                fit_ours(packed, replace(recipe, precision=precision), watches[precision])
    plain_s, n_images = median(watches["plain"].epochs_s), len(packed.rows)
    print(f"plain model.fit from JPEGs: {plain_s:.2f} s an epoch, {n_images / plain_s:.0f} images/s")
    for precision in ("float32", "mixed"):
        epoch_s, waiting = median(watches[precision].epochs_s), max(watches[precision].waits)
        rate = f"{epoch_s:.2f} s, {n_images / epoch_s:.0f} images/s"
        print(f"ours, {precision}: {rate}, at most {waiting:.1%} waiting for input (aim below 5 %)")
        print(f"image training ratio, {precision} {plain_s / epoch_s:.2f} (target >= {TARGET})")


def write_jpegs(source: Path, folder: Path) -> None:
    with h5py.File(source) as file:
        for number, (image, label) in enumerate(zip(file["images"][:], file["ans"][:], strict=True)):
            path = folder / str(label) / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])


def fit_plain(folder: Path, packed: Packed, recipe: Recipe, watch: "Watch") -> None:
    side_px = recipe.input_size_px
    images = keras.utils.image_dataset_from_directory(
        folder, label_mode="categorical", image_size=(side_px, side_px), batch_size=BATCH, seed=1, verbose=False
    )
    everything = np.full(len(packed.rows), "train")
    tail = make_job("plain", recipe, packed, everything, weights=folder).tail
    image = keras.Input((side_px, side_px, 3))
    model = keras.Model(image, tail(keras.layers.Rescaling(1 / 255)(image)))
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, epochs=recipe.epochs, shuffle=False, verbose=0, callbacks=[watch])  # the dataset shuffles itself


def fit_ours(packed: Packed, recipe: Recipe, watch: "Watch") -> None:
    everything = np.full(len(packed.rows), "train")
    make_job("ours", recipe, packed, everything, weights=Path()).fit([watch])  # it starts from scratch


class Watch(keras.callbacks.Callback):
    """Times the epochs, without the first of a fit, and keeps what they say of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs_s: list[float] = []
        self.waits: list[float] = []
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Stop it."""
        if epoch:
            self.epochs_s.append(time.perf_counter() - self._started)
            self.waits.append((logs or {}).get("input_wait_share", 0.0))


if __name__ == "__main__":
    main()
