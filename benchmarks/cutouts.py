"""Cutouts of one band: ours, in a batch with sub-pixel placement, against SkyCoord + Cutout2D per object.

One run alternates both ways on the same seeded positions and prints the ratio of their best times.
FRAMES holds SDSS frames (.fits.bz2); the first one found is used.
"""

import argparse
import time
from pathlib import Path

import astropy.units
import cv2
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import Cutout2D

from deepsky.imaging.cutouts import cut_objects
from deepsky.imaging.fields import find_frames
from deepsky.imaging.frames import Frame, read_frame, read_header

TARGET = 50.0
SIZE_PX, N_OBJECTS, N_ROUNDS = 64, 400, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, default=Path("data/raw/frames"))
    path = find_frames([parser.parse_args().frames])[0]
    cv2.setNumThreads(1)
    frame = read_frame(path, band=str(read_header(path)["FILTER"]).strip())
    height, width = frame.flux_nmgy.shape
    rng = np.random.default_rng(1)
    x_px, y_px = rng.uniform(0, width - 1, N_OBJECTS), rng.uniform(0, height - 1, N_OBJECTS)
    ra_deg, dec_deg = frame.astrometry.to_sky(x_px, y_px)
    ours_s, theirs_s = [], []
    for _ in range(N_ROUNDS):
        started = time.perf_counter()
        cut_objects([frame], ra_deg, dec_deg, SIZE_PX)
        ours_s.append(time.perf_counter() - started)
        started = time.perf_counter()
        cut_one_by_one(frame, ra_deg, dec_deg)
        theirs_s.append(time.perf_counter() - started)
    ours, theirs = N_OBJECTS / min(ours_s), N_OBJECTS / min(theirs_s)
    print(f"batched {ours:,.0f}/s, Cutout2D + SkyCoord {theirs:,.0f}/s ({SIZE_PX} px, {path.name})")
    print(f"cutouts ratio {ours / theirs:.1f} (target >= {TARGET:.0f})")


def cut_one_by_one(frame: Frame, ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    flux = np.zeros((len(ra_deg), SIZE_PX, SIZE_PX), np.float32)
    for target, ra, dec in zip(flux, ra_deg, dec_deg, strict=True):
        place = SkyCoord(ra, dec, unit=astropy.units.deg)
        cutout = Cutout2D(frame.flux_nmgy, place, SIZE_PX, wcs=frame.astrometry.wcs, mode="partial", fill_value=0)
        target[:] = cutout.data
    return flux


if __name__ == "__main__":
    main()
