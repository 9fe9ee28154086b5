"""Small FITS frames of known stars, written as the survey writes its own: turned sky, bands offset by pixels."""

import bz2
import gzip
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

HEIGHT, WIDTH = 96, 128
SCALE_DEG = 0.396 / 3600
OFFSETS_PX = {"u": (6.3, -4.6), "g": (-3.4, 2.7), "r": (0.0, 0.0), "i": (2.2, 5.1), "z": (-5.5, -1.3)}
CENTRE = (150.0, 20.0)  # ra, dec in degrees of field 0


def frame_wcs(band: str, field: int = 0) -> WCS:
    """A field's neighbours lie 84 rows further: 12 rows overlap."""
    turn = np.radians(57)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = list(CENTRE)
    offset_x, offset_y = OFFSETS_PX[band]
    wcs.wcs.crpix = [WIDTH / 2 + offset_x, HEIGHT / 2 + offset_y - 84 * field]
    wcs.wcs.cd = SCALE_DEG * np.array([[np.cos(turn), np.sin(turn)], [np.sin(turn), -np.cos(turn)]])
    return wcs


def star_frame(wcs, stars, *, noise_nmgy=0.01, seed=1, sigma_px=1.4):
    """Paint Gaussian stars (ra, dec, nanomaggies) on seeded noise, float32 (HEIGHT, WIDTH)."""
    flux = np.random.default_rng(seed).normal(0, noise_nmgy, (HEIGHT, WIDTH))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for ra, dec, total in stars:
        x, y = wcs.all_world2pix(ra, dec, 0)
        profile = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma_px**2))
        flux += total * profile / (2 * np.pi * sigma_px**2)
    return flux.astype(np.float32)


def write_frame(path: Path, flux, wcs=None, **header) -> Path:
    """Write one HDU; keywords override the header, None removes one. The suffix says how to compress."""
    hdu = fits.PrimaryHDU(flux, wcs.to_header() if wcs is not None else None)
    hdu.header["BUNIT"] = "nanomaggy"
    for key, value in header.items():
        if value is None:
            hdu.header.remove(key)
        else:
            hdu.header[key] = value
    plain = path.with_name(path.name + ".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    hdu.writeto(plain)
    content = plain.read_bytes()
    plain.unlink()
    pack = {".bz2": bz2.compress, ".gz": gzip.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(content))
    return path


def sdss_path(folder: Path, band: str, field: int, run: int = 1000, camcol: int = 2) -> Path:
    return folder / f"{run}/{camcol}/frame-{band}-{run:06d}-{camcol}-{field:04d}.fits.bz2"


def write_field(folder: Path, bands: str, field: int, stars) -> None:
    """Write every band of SDSS field 1000-2-FIELD."""
    for band in bands:
        wcs = frame_wcs(band, field)
        header = {"FILTER": band, "RUN": 1000, "CAMCOL": 2}
        write_frame(sdss_path(folder, band, field), star_frame(wcs, stars, seed=ord(band) + field), wcs, **header)
