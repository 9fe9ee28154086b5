"""Decode pictures strictly, and encode PNG.

A decoder for viewers fills in what is damaged, and OpenCV's hides CMYK as well: here that is refused.
"""

import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from deepsky.errors import DataError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
Picture = npt.NDArray[np.uint8]

_SMALLEST_SIDE_PX, _LARGEST_PX = 8, 10**8  # of a side; of a whole picture, which takes 300 MB
_JPEG, _PNG, _TIFF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", (b"II*\x00", b"MM\x00*")
_PLAIN = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")  # Pillow's words for 8 bits of gray, palette or colour
# TIFF's tags: bits of each channel, how it is packed, and where its strips, or tiles, begin and how long they are.
_BITS, _COMPRESSION, _PARTS, _DEFLATE = 258, 259, ((273, 279), (324, 325)), (8, 32946)
_PNG_LEVEL = (cv2.IMWRITE_PNG_COMPRESSION, 1)  # three times as fast as the default, 4 % larger
_AGAIN = "fetch the file again or take it out of the dataset"


def read_picture(path: Path) -> Picture:
    """Decode a JPEG, PNG or TIFF of 8 bits; gray becomes three equal channels, transparency is dropped.

    Returns:
        uint8, (height, width, 3), red, green, blue; EXIF rotation is not applied.

    Raises:
        DataError: unreadable, another format, damaged, cut short, CMYK or other colours, not 8 bits, smaller than 8 px
            or larger than 100 million. Of TIFF only what is cut or does not unpack is known to be damaged: it has no
            check sums.
    """
    return decode_picture(path, file_content(path))


def file_content(path: Path) -> bytes:
    """Read a file.

    Raises:
        DataError: it cannot be read, or is a pipe or device: reading one may never end.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(path, "is no file but a folder, pipe or device", "take it out of the dataset")
        return path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", _AGAIN) from error


def decode_picture(path: object, content: bytes) -> Picture:
    """Decode the bytes of a picture as ``read_picture`` does.

    Args:
        path: names it in errors.
        content: the whole file.

    Raises:
        DataError: as ``read_picture``.
    """
    if content.startswith(_JPEG):
        return _decode_jpeg(path, content)
    if content.startswith(_PNG):
        return _decode_png(path, content)
    if content.startswith(_TIFF):
        return _decode_tiff(path, content)
    raise DataError(path, "is neither JPEG, PNG nor TIFF", "convert it to one of these")


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
    """Tell a picture by its name, seen from the folder or zip that is looked through; nothing hidden is data."""
    return name.suffix.lower() in PICTURE_SUFFIXES and not any(is_hidden(part) for part in name.parts)


def is_hidden(name: str) -> bool:
    """Tell what systems and programs keep beside a person's files: .ipynb_checkpoints, .Trash, a Mac's ._NAME."""
    return name.startswith(".") or name in ("__MACOSX", "$RECYCLE.BIN")


def pictures_in(folder: Path) -> Iterator[Path]:
    """List the pictures of a folder, at any depth, in no order.

    Links are followed, but not back into a folder that they stand in.

    Raises:
        DataError: the folder is not there, or must not be read.
    """
    try:
        yield from _walked(folder, frozenset())
    except OSError as error:
        remedy = "name the right folder" if isinstance(error, FileNotFoundError) else "make it readable"
        problem = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise DataError(error.filename, problem, remedy) from error


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


def _walked(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    whole = folder.resolve()
    if whole in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                yield from _walked(Path(entry.path), above | {whole})
            elif is_picture(PurePath(entry.name)):
                yield Path(entry.path)


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


def _decode_jpeg(path: object, content: bytes) -> Picture:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours in ("CMYK", "YCCK"):
            raise DataError(path, "is a CMYK JPEG", "convert it to RGB or gray")
        _check_size(path, height, width)
        pixels: Picture = simplejpeg.decode_jpeg(content, "RGB", strict=True)
    except ValueError as error:
        raise DataError(path, f"is damaged or cut short ({error})", _AGAIN) from error
    return pixels


def _decode_png(path: object, content: bytes) -> Picture:
    """Decode after the check sums of all chunks; what stands behind the last one does not matter."""
    place, kind = len(_PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", content[place : place + 8].ljust(8, b"\0"))
        end = place + 12 + length
        if end > len(content):
            raise DataError(path, "is cut short (no IEND at its end)", _AGAIN)
        if zlib.crc32(content[place + 4 : end - 4]) != int.from_bytes(content[end - 4 : end]):
            raise DataError(path, f"is damaged (chunk {kind.decode('latin-1')})", _AGAIN)
        if kind == b"IHDR":
            _check_size(path, *struct.unpack(">II", content[place + 8 : place + 16])[::-1])
        place = end
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError(path, "cannot be decoded", _AGAIN)
    if pixels.dtype != np.uint8:
        raise DataError(path, f"has {8 * pixels.dtype.itemsize} bits per channel", "convert it to 8 bits")
    code = {2: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}[
        pixels.shape[2] if pixels.ndim == 3 else 2
    ]
    return cv2.cvtColor(pixels, code)


def _decode_tiff(path: object, content: bytes) -> Picture:
    """Decode by Pillow, which tells what libtiff only warns of."""
    from PIL.TiffImagePlugin import TiffImageFile  # slow to import, and TIFF is rare

    order: Literal["little", "big"] = "little" if content.startswith(b"II") else "big"
    tags = int.from_bytes(content[4:8], order)
    if tags + 6 + 12 * int.from_bytes(content[tags : tags + 2], order) > len(content):
        raise DataError(path, "is cut short (no whole directory of tags)", _AGAIN)
    try:
        with TiffImageFile(io.BytesIO(content)) as image:
            _check_size(path, image.height, image.width)
            if (bits := max(image.tag_v2.get(_BITS, (1,)))) > 8:
                raise DataError(path, f"has {bits} bits per channel", "convert it to 8 bits")
            if image.mode not in _PLAIN:
                raise DataError(path, f"is a TIFF of {image.mode} pixels", "convert it to gray or RGB")
            if image.tag_v2.get(_COMPRESSION) in _DEFLATE:
                _check_strips(content, image.tag_v2)
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, zlib.error) as error:
        raise DataError(path, f"is damaged or cut short ({error})", _AGAIN) from error


def _check_strips(content: bytes, tags: Mapping[int, Any]) -> None:
    """Unpack the strips or tiles: their decoder stops at the last pixel, before the check sum."""
    for starts, lengths in _PARTS:
        for start, length in zip(tags.get(starts, ()), tags.get(lengths, ()), strict=True):
            zlib.decompress(content[start : start + length])


def _check_size(path: object, height: int, width: int) -> None:
    if min(height, width) < _SMALLEST_SIDE_PX:
        problem, remedy = f"is only {width} x {height} px", f"give at least {_SMALLEST_SIDE_PX} px a side"
        raise DataError(path, problem, remedy)
    if height * width > _LARGEST_PX:
        raise DataError(path, f"is {width:,} x {height:,} px, too large to decode", "cut it into smaller ones")
