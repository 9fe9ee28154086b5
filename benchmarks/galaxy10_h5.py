"""Galaxy10 DECaLS to a packed dataset: ours, in slices as deep as the file's chunks, against image by image.

Writes a file of the release's structure (chunks of (555, 16, 16, 1), gzip: h5py's default, which fits the release's
size of 0.73 byte per pixel value; here 0.67), then packs it in one run both ways: the same preparation, the
second with ``file["images"][i]`` for each image. That takes hours for the release, so it is timed on a sample.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from deepsky.datasets.packed import create_images, open_packed
from deepsky.formats.format import preparation_of
from deepsky.formats.galaxy10 import CLASSES, SIDE_PX
from deepsky.formats.params import PicturesParams
from deepsky.stages import pack

TARGET = 50.0
CHUNKS = (555, 16, 16, 1)
PARAMS = PicturesParams("galaxy10", "given by main", 224, sha256="any")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-images", type=int, default=2220, help="of the file")
    parser.add_argument("--n-sample", type=int, default=24, help="images to read one by one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source, out = Path(name, "Galaxy10_DECals.h5"), Path(name, "packed")
        write_file(source, arguments.n_images)
        n_bytes = source.stat().st_size / (arguments.n_images * SIDE_PX**2 * 3)
        print(f"{arguments.n_images} images, {n_bytes:.2f} byte per pixel value")
        places = np.linspace(0, arguments.n_images - 1, arguments.n_sample).astype(int)
        theirs = read_one_by_one(source, places[::2], Path(name))
        started = time.perf_counter()
        pack.run("galaxy10", replace(PARAMS, source=str(source)), "stop", out=out)
        ours = arguments.n_images / (time.perf_counter() - started)
        theirs_after = read_one_by_one(source, places[1::2], Path(name))
        assert (open_packed(out).images[places[1::2]] == np.load(Path(name, "images.npy"))[places[1::2]]).all()
    print(f"ours {ours:,.0f} images/s with hash and rows, image by image {theirs:.2f} and {theirs_after:.2f}")
    print(f"galaxy10 h5 ratio {ours / max(theirs, theirs_after):.0f} (target >= {TARGET:.0f})")


def write_file(path: Path, n_images: int) -> None:
    """Galaxies of random size and brightness on a noisy sky."""
    rng = np.random.default_rng(1)
    y_px, x_px = np.mgrid[:SIDE_PX, :SIDE_PX] - SIDE_PX / 2
    with h5py.File(path, "w") as file:
        images = file.create_dataset(
            "images", (n_images, SIDE_PX, SIDE_PX, 3), np.uint8, chunks=CHUNKS, compression="gzip"
        )
        for start in range(0, n_images, CHUNKS[0]):
            n = min(CHUNKS[0], n_images - start)
            pictures = np.empty((n, SIDE_PX, SIDE_PX, 3), np.uint8)
            for picture in pictures:
                light = 180 * np.exp(-np.hypot(x_px, y_px * rng.uniform(1, 2)) / rng.uniform(8, 40))
                noisy = light[..., None] * rng.uniform(0.5, 1, 3) + rng.normal(20, 6, picture.shape)
                picture[:] = noisy.clip(0, 255)
            images[start : start + n] = pictures
        places = np.arange(n_images)
        file["ans"] = (places % len(CLASSES)).astype(np.uint8)
        file["ra"], file["dec"] = places * 360 / n_images, places * 60 / n_images
        file["redshift"], file["pxscale"] = np.full(n_images, 0.1), np.full(n_images, 0.262)


def read_one_by_one(source: Path, places: np.ndarray, folder: Path) -> float:
    """Images per second."""
    with h5py.File(source) as file:
        images = create_images(folder, (len(file["images"]), PARAMS.size_px, PARAMS.size_px, 3), np.uint8)
        started = time.perf_counter()
        for place in places:
            images[place] = preparation_of(PARAMS).apply(source, file["images"][place])
        return len(places) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
