"""What a download must be before it gets its name: whole, of its kind, and of its place."""

import bz2
import math
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from astropy.io import fits

from deepsky.archives.answers import Failed
from deepsky.archives.wanted import Wanted
from deepsky.catalogue.survey import FRAME_DELAY

FRAME_NAXIS = (2048, 1489)
FITS_BLOCK_BYTES = 2880
PSFIELD_HDUS = 7  # an empty one, one per filter, one that sums up (SDSS data model: psField)
_END_CARD = re.compile(rb"END {77}")
_BZ2_END = 0x177245385090
_FIRST_BLOCK_BYTES = 1_000_000  # at most: 900 kB do not grow by more than 1 % and 600 bytes
_LONGEST_HEADER_BYTES = 100 * FITS_BLOCK_BYTES
_OUTSIDE = "blank: outside the survey's footprint"


def check_content(path: Path, wanted: Wanted, *, whole: bool) -> None:
    """Refuse a complete transfer that is not the wanted file.

    Args:
        path: the file.
        wanted: what it must be.
        whole: decompress all of a frame. Of an undisturbed transfer only the first block is decompressed and the end
            mark found: all of it costs 0.4 s of CPU, more than fetching it, and render checks every block's CRC anyway.

    Raises:
        Failed: another content ("retry"), or a blank cutout, which lies outside the footprint ("missing").
    """
    with path.open("rb") as file:
        start = file.read(1024)
    if re.match(rb"\s*<(!doctype\s+html|html|head|\?xml)", start, re.IGNORECASE):
        title = re.search(rb"<title>([^<]*)", start, re.IGNORECASE)
        said = " ".join(title[1].decode("utf-8", "replace").split()) if title else "without a title"
        raise _bad(f"is a web page ({said}), not the file")
    try:
        if wanted.kind == "frame":
            _check_frame(path, wanted.place, whole=whole)
        elif wanted.kind == "jpeg":
            _check_jpeg(path)
        else:
            _check_fits(path, wanted)
    except (ValueError, TypeError, KeyError, EOFError, fits.VerifyError, cv2.error) as error:
        raise _bad(f"cannot be read ({type(error).__name__}: {error})") from error


def _check_frame(path: Path, place: tuple[Any, ...], *, whole: bool) -> None:
    content = path.read_bytes()  # 3 MB
    if not re.match(rb"BZh[1-9]", content):
        raise _bad("is no bzip2 file")
    # The end mark is followed by a CRC and up to 7 bits that fill the last byte.
    tail = int.from_bytes(content[-11:])
    ends = [tail >> n_bits & 0xFFFFFFFF for n_bits in range(8) if tail >> 32 + n_bits & 0xFFFFFFFFFFFF == _BZ2_END]
    if not ends:
        raise _bad("ends without bzip2's end mark: truncated")
    # A parallel bzip2 writes a stream per block; cut between two of them, such a file ends with a mark, too.
    # A stream begins with 10 constant bytes; of a single block the CRC, which comes next, is the stream's as well.
    whole = whole or int.from_bytes(content[10:14]) in ends or content.find(content[:10], 10) > 0
    try:
        raw = bz2.decompress(content) if whole else _first_bytes(content)
    except (OSError, ValueError) as error:
        raise _bad(f"cannot be decompressed ({error})") from error
    end = _END_CARD.search(raw)
    if not end or not raw.startswith(b"SIMPLE"):
        raise _bad("holds no FITS image")
    header = fits.Header.fromstring(raw[: end.end()].decode("ascii", "replace"))
    _check_place(header, place)
    shape = header.get("NAXIS1"), header.get("NAXIS2")
    if shape != FRAME_NAXIS:
        raise _bad(f"is {shape[0]} x {shape[1]} pixels, but a frame is {FRAME_NAXIS[0]} x {FRAME_NAXIS[1]}")
    if whole and len(raw) < _blocks(end.end()) + _data_bytes(header):
        raise _bad("holds less than its FITS header says")


def _first_bytes(content: bytes) -> bytes:
    """Decompress until the header ends; taking all of the first block's bytes out costs half as much again."""
    decompressor = bz2.BZ2Decompressor()
    raw = decompressor.decompress(content[:_FIRST_BLOCK_BYTES], max_length=4 * FITS_BLOCK_BYTES)
    while not _END_CARD.search(raw) and len(raw) < _LONGEST_HEADER_BYTES and not decompressor.needs_input:
        raw += decompressor.decompress(b"", max_length=4 * FITS_BLOCK_BYTES)
    return raw


def _check_place(header: fits.Header, place: tuple[Any, ...]) -> None:
    """Compare what the header names, where it names it, with run, camcol, field and band."""
    run, camcol, field, band = place
    named = {"RUN": run, "CAMCOL": camcol}
    if band:
        named |= {"FILTER": band, "FRAME": field + FRAME_DELAY[band]}
    for key, expected in named.items():
        found = str(header.get(key, "")).strip()
        if found and found != str(expected):
            raise _bad(f"is another file: {key} {found}, not {expected}")


def _check_jpeg(path: Path) -> None:
    content = path.read_bytes()
    if not content.startswith(b"\xff\xd8"):
        raise _bad("is no JPEG file")
    # OpenCV fills what a truncated file lacks with gray; inside the data FF D9 never occurs.
    if not content.endswith(b"\xff\xd9"):
        raise _bad("ends without the JPEG end mark: truncated")
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise _bad("is a JPEG file that cannot be decoded")
    if pixels.min() == pixels.max():
        raise Failed("missing", _OUTSIDE)


def _check_fits(path: Path, wanted: Wanted) -> None:
    """Walk the HDUs: the file must end where the last header says. Astropy's own check only warns."""
    n_bytes, position, n_hdus = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        if file.read(6) != b"SIMPLE":
            raise _bad("is no FITS file")
        while position < n_bytes:
            file.seek(position)
            try:
                header = fits.Header.fromfile(file)
                end = file.tell() + _data_bytes(header)
            except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
                raise _bad(f"has a broken FITS header at byte {position}") from error
            if end <= position:
                raise _bad(f"has a FITS header of negative size at byte {position}")
            position = end
            if wanted.kind == "psfield":
                _check_place(header, wanted.place)
            n_hdus += 1
    if wanted.kind == "psfield" and n_hdus < PSFIELD_HDUS:
        raise _bad(f"has {n_hdus} of a psField's {PSFIELD_HDUS} HDUs: truncated")
    if position != n_bytes:
        raise _bad(f"is {n_bytes} bytes, but its FITS headers say {position}: truncated")
    if wanted.kind == "fits_cutout":
        try:
            with fits.open(path, memmap=False) as hdus:
                images = [hdu.data for hdu in hdus if hdu.is_image and hdu.data is not None]
            finite = images[0][np.isfinite(images[0])]
        except Exception as error:  # astropy has a dozen kinds for odd headers, and warns of others
            raise _bad("holds no readable FITS image") from error
        if finite.size == 0 or finite.min() == finite.max():
            raise Failed("missing", _OUTSIDE)


def _data_bytes(header: fits.Header) -> int:
    """Size of an HDU's data with its padding, as the FITS standard computes it."""
    n_axes = int(header["NAXIS"])
    n_values = math.prod(int(header[f"NAXIS{axis}"]) for axis in range(1, n_axes + 1)) if n_axes else 0
    n_values = int(header.get("GCOUNT", 1)) * (int(header.get("PCOUNT", 0)) + n_values)
    return _blocks(n_values * abs(int(header["BITPIX"])) // 8)


def _blocks(n_bytes: int) -> int:
    return -(-n_bytes // FITS_BLOCK_BYTES) * FITS_BLOCK_BYTES


def _bad(reason: str) -> Failed:
    return Failed("retry", reason)
