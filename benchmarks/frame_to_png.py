"""Frame to PNG: ours on all cores against the reference's way, and against merely decompressing the same files.

The reference's way is one process and, per frame, astropy's published example (its plot style gives the reference
study's 576 x 432 figures): fits.info, fits.getdata, imshow, colour bar, savefig. One run alternates all ways on the
same files, round by round, and prints the ratios of their best times; the last line leaves fits.info out.
FRAMES holds SDSS frames (.fits.bz2). The worker processes are started before the clock.

Source: https://docs.astropy.org/en/stable/generated/examples/io/plot_fits-image.html
"""

import argparse
import bz2
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import joblib
import matplotlib as mpl
from astropy.io import fits

from deepsky.imaging.fields import find_frames
from deepsky.imaging.frames import read_frame
from deepsky.imaging.pictures import write_png
from deepsky.imaging.stretch import asinh_stretch, shrink_to_plot, sky_limits, to_gray

TARGET_REFERENCE, TARGET_DECOMPRESSION = 6.0, 1.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, default=Path("data/raw/frames"))
    parser.add_argument("--files", type=int, default=12, help="frames to take, at most")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    paths = find_frames([options.frames])[: options.files]
    with tempfile.TemporaryDirectory() as scratch, joblib.Parallel(n_jobs=-1, batch_size=1) as pool:
        out = Path(scratch)
        pool(joblib.delayed(warm_up)(paths[0], out) for _ in range(2 * joblib.effective_n_jobs(-1)))
        ways: dict[str, Callable[[], object]] = {
            "ours": lambda: pool(joblib.delayed(ours)(path, out) for path in paths),
            "decompression": lambda: pool(joblib.delayed(decompress)(path) for path in paths),
        }
        ways["reference"] = lambda: [reference(path, out, info=True) for path in paths]
        ways["reference without info"] = lambda: [reference(path, out, info=False) for path in paths]
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                seconds[name].append(clock(way))
    best = {name: min(times) for name, times in seconds.items()}
    print(", ".join(f"{name} {len(paths) / value:.2f} frames/s" for name, value in best.items()))
    print(f"frame to PNG ratio {best['reference'] / best['ours']:.1f} (target >= {TARGET_REFERENCE:.0f})")
    ratio = best["ours"] / best["decompression"]
    print(f"frame to PNG over decompression {ratio:.3f} (target <= {TARGET_DECOMPRESSION})")
    print(f"without the example's fits.info: ratio {best['reference without info'] / best['ours']:.1f}")


def clock(way: Callable[[], object]) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def warm_up(path: Path, out: Path) -> None:
    ours(path, out)


def ours(path: Path, out: Path) -> None:
    """As render does for the plot of one band."""
    cv2.setNumThreads(1)
    small = shrink_to_plot(read_frame(path, band=path.name.split("-")[1]).flux_nmgy)
    write_png(out / f"{path.name}.png", to_gray(asinh_stretch(small, sky_limits(small))))


def decompress(path: Path) -> int:
    return len(bz2.decompress(path.read_bytes()))


def reference(path: Path, out: Path, *, info: bool) -> None:
    mpl.use("Agg")
    from astropy.visualization import astropy_mpl_style
    from matplotlib import pyplot

    with pyplot.style.context(astropy_mpl_style):
        if info:
            fits.info(path, output=False)
        image = fits.getdata(path, ext=0)
        figure = pyplot.figure()
        pyplot.grid(False)
        pyplot.imshow(image, cmap="gray")
        pyplot.colorbar()
        figure.savefig(out / f"{path.name}.reference.png")
        pyplot.close(figure)


if __name__ == "__main__":
    main()
