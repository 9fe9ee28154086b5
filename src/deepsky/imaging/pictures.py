"""Decode pictures strictly, and encode PNG. OpenCV hides truncation, CMYK and 16 bits; they are refused here."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from deepsky.errors import DataError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
Picture = npt.NDArray[np.uint8]

_SMALLEST_SIDE_PX = 8
_JPEG, _PNG, _TIFF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", (b"II*\x00", b"MM\x00*")
# Start-of-frame markers (C4, C8 and CC mean something else), start of scan, end of image.
_SOF, _SOS, _EOI = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}, 0xDA, b"\xff\xd9"
# TIFF's tag 262: 0 to 3 are gray, RGB and palette; the decoder would make some colours of the others.
_PHOTOMETRIC, _PLAIN_COLOURS = 262, range(4)
_OTHER_COLOURS = {4: "transparency mask", 5: "CMYK", 6: "YCbCr", 8: "CIELab", 9: "ICCLab", 10: "ITULab"}
_PNG_LEVEL = (cv2.IMWRITE_PNG_COMPRESSION, 1)  # three times as fast as the default, 4 % larger
_AGAIN = "fetch the file again or take it out of the dataset"


def read_picture(path: Path) -> Picture:
    """Decode a JPEG, PNG or TIFF of 8 bits; gray becomes three equal channels, transparency is dropped.

    Returns:
        uint8, (height, width, 3), red, green, blue; EXIF rotation is not applied.

    Raises:
        DataError: unreadable, another format, cut short, CMYK or other colours, not 8 bits, or smaller than 8 px.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", _AGAIN) from error
    return decode_picture(path, content)


def decode_picture(path: object, content: bytes) -> Picture:
    """Decode the bytes of a picture as ``read_picture`` does.

    Args:
        path: names it in errors.
        content: the whole file.

    Raises:
        DataError: as ``read_picture``.
    """
    _check_container(path, content)
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DataError(path, f"cannot be decoded ({error.err})", _AGAIN) from error
    if pixels is None:
        raise DataError(path, "cannot be decoded", _AGAIN)
    if pixels.dtype != np.uint8:
        raise DataError(path, f"has {8 * pixels.dtype.itemsize} bits per channel", "convert it to 8 bits")
    if min(pixels.shape[:2]) < _SMALLEST_SIDE_PX:
        size = f"{pixels.shape[1]} x {pixels.shape[0]} px"
        raise DataError(path, f"is only {size}", f"give at least {_SMALLEST_SIDE_PX} px a side")
    return _to_rgb(pixels)


def middle(path: object, picture: Picture, crop_px: int | None) -> Picture:
    """Cut out the middle square, (crop_px, crop_px, channel); None keeps all.

    Args:
        path: names the picture in errors.
        picture: uint8, (height, width, channel).
        crop_px: side of the square.

    Raises:
        DataError: the picture is smaller than ``crop_px``.
    """
    if crop_px is None:
        return picture
    height, width = picture.shape[:2]
    if min(height, width) < crop_px:
        raise DataError(path, f"is {width} x {height} px, less than crop_px {crop_px}", "lower crop_px")
    top, left = (height - crop_px) // 2, (width - crop_px) // 2
    return picture[top : top + crop_px, left : left + crop_px]


def fit_picture(picture: Picture, shape_px: tuple[int, int]) -> Picture:
    """Resize uint8 (height, width, channel) to (*shape_px, channel); another aspect is squeezed."""
    if picture.shape[:2] == shape_px:
        return picture
    # Area mean avoids aliasing when shrinking, but repeats pixels when enlarging.
    shrinks = picture.shape[0] >= shape_px[0] and picture.shape[1] >= shape_px[1]
    resized = cv2.resize(picture, shape_px[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized.reshape(*shape_px, picture.shape[2])  # OpenCV drops the axis of a single channel


def is_picture(name: PurePath) -> bool:
    """Tell a picture by its name; a Mac adds ._NAME beside NAME, which is none."""
    return name.suffix.lower() in PICTURE_SUFFIXES and not name.name.startswith("._")


def pictures_in(folder: Path) -> Iterator[Path]:
    """List the pictures of a folder, at any depth, in no order."""
    return (path for path in folder.rglob("*") if is_picture(path) and not path.is_dir())


def find_pictures(places: Sequence[Path]) -> list[Path]:
    """List pictures: files as they are named, folders at any depth, each sorted.

    Raises:
        DataError: a place that is not there, or without pictures.
    """
    pictures: list[Path] = []
    for place in places:
        found = [place] if place.is_file() else sorted(pictures_in(place))
        if not found:
            raise DataError(place, f"holds no pictures (*{', *'.join(PICTURE_SUFFIXES)})", "name the right folder")
        pictures += found
    return pictures


def to_gray(picture: Picture) -> Picture:
    """Turn red, green, blue (height, width, 3) into luminance (height, width, 1), uint8."""
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., np.newaxis]


def write_png(path: Path, picture: Picture) -> None:
    """Write gray (height, width) or red, green, blue (height, width, 3), uint8, as PNG.

    Raises:
        OSError: the file cannot be written (OpenCV's own writer would only return False).
    """
    pixels = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    path.write_bytes(cv2.imencode(".png", pixels, _PNG_LEVEL)[1].tobytes())


def _to_rgb(pixels: Picture) -> Picture:
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    code = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}[channels]
    return cv2.cvtColor(pixels, code)


def _check_container(path: object, content: bytes) -> None:
    """Check what the decoder would pass over in silence."""
    if content.startswith(_JPEG):
        _check_jpeg(path, content)
    elif content.startswith(_PNG):
        if b"IEND" not in content[-32:]:
            raise DataError(path, "is cut short (no IEND at its end)", _AGAIN)
    elif content.startswith(_TIFF):
        _check_tiff(path, content)
    else:
        raise DataError(path, "is neither JPEG, PNG nor TIFF", "convert it to one of these")


def _check_jpeg(path: object, content: bytes) -> None:
    """Walk the segments to the first scan: 8 bits, not CMYK, and an end marker after it."""
    place, channels, bits = 2, 0, 8
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != _SOS:
        if content[place + 1] == 0xFF:  # fill byte
            place += 1
            continue
        length = int.from_bytes(content[place + 2 : place + 4])
        if content[place + 1] in _SOF and place + 10 <= len(content):
            bits, channels = content[place + 4], content[place + 9]
        place += 2 + length
    if channels == 4:
        raise DataError(path, "is a CMYK JPEG", "convert it to RGB or gray")
    if bits != 8:
        raise DataError(path, f"has {bits} bits per channel", "convert it to 8 bits")
    # A thumbnail in the header has its own end marker; only one after the scan began counts.
    if not channels or content.rfind(_EOI) < place:
        raise DataError(path, "is cut short (no end-of-image marker)", _AGAIN)


def _check_tiff(path: object, content: bytes) -> None:
    """Look up the colour space in the first directory; one that is cut short is left to the decoder."""
    order: Literal["little", "big"] = "little" if content.startswith(b"II") else "big"
    start = int.from_bytes(content[4:8], order)
    n_entries = int.from_bytes(content[start : start + 2], order)
    for place in range(start + 2, min(start + 2 + 12 * n_entries, len(content) - 11), 12):
        if int.from_bytes(content[place : place + 2], order) == _PHOTOMETRIC:
            width = 4 if int.from_bytes(content[place + 2 : place + 4], order) == 4 else 2  # LONG, else SHORT
            colours = int.from_bytes(content[place + 8 : place + 8 + width], order)
            if colours not in _PLAIN_COLOURS:
                name = _OTHER_COLOURS.get(colours, f"photometric {colours}")
                raise DataError(path, f"is a {name} TIFF", "convert it to RGB or gray")
