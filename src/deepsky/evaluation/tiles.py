"""Rows of small pictures with captions as one figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.figure import Figure

from deepsky.evaluation.figures import DPI, INK, MUTED

Picture = npt.NDArray[np.uint8]
N_ACROSS = 8
RIGHT, WRONG = "#2e7d4f", "#b3261e"  # ink of captions
_TILE_PX, _GAP_PX, _MARGIN_PX = 104, 8, 12
_TITLE_PX, _HEADING_PX, _LINE_PX = 34, 24, 12
_MAX_LETTERS = 21  # of a line below a tile
_SHADES, _HEAT = "magma", "inferno"
_OVERLAY = 0.55  # how strongly the hottest place hides the picture
_JPEG_QUALITY = 85
_STEP = 8  # between the levels of a tile's colours: noise of single levels would fill three quarters of the file


@dataclass(frozen=True)
class Tile:
    """One small picture.

    Attributes:
        picture: (height, width, 3) uint8; None leaves the place empty.
        caption: lines below it.
        ink: their colour.
    """

    picture: Picture | None
    caption: tuple[str, ...] = ()
    ink: str = INK


@dataclass(frozen=True)
class Row:
    """Tiles beside each other, N_ACROSS at most.

    Attributes:
        tiles: from left to right.
        heading: above them; empty: none.
    """

    tiles: Sequence[Tile]
    heading: str = ""

    @property
    def height_px(self) -> int:
        """Return what the row needs."""
        n_lines = max((len(tile.caption) for tile in self.tiles), default=0)
        return _TILE_PX + _GAP_PX + n_lines * _LINE_PX + (_HEADING_PX if self.heading else 0)


# Rows and the heading above all of them.
Gallery = tuple[Sequence[Row], str]


def in_rows(tiles: Sequence[Tile], heading: str) -> list[Row]:
    """Break many tiles into rows below one heading."""
    return [Row(tiles[first : first + N_ACROSS], "" if first else heading) for first in range(0, len(tiles), N_ACROSS)]


def tiles_figure(rows: Sequence[Row], title: str) -> Figure:
    """Draw rows of tiles; pixels of the tiles are pixels of the figure."""
    width_px = 2 * _MARGIN_PX + N_ACROSS * _TILE_PX + (N_ACROSS - 1) * _GAP_PX
    height_px = _TITLE_PX + sum(row.height_px for row in rows) + _MARGIN_PX
    figure = Figure(figsize=(width_px / DPI, height_px / DPI), dpi=DPI)

    def write(x_px: float, y_px: float, text: str, **style: Any) -> None:
        figure.text(x_px / width_px, 1 - y_px / height_px, text, va="top", **style)

    write(_MARGIN_PX, 9, title, fontsize=11, color=INK)
    top_px = _TITLE_PX
    for row in rows:
        if row.heading:
            write(_MARGIN_PX, top_px + 4, row.heading, fontsize=8.5, color=MUTED)
        tile_top_px = top_px + (_HEADING_PX if row.heading else 0)
        for place, tile in enumerate(row.tiles):
            left_px = _MARGIN_PX + place * (_TILE_PX + _GAP_PX)
            if tile.picture is not None:
                figure.figimage(_fit(tile.picture), left_px, height_px - tile_top_px - _TILE_PX)
            for line, text in enumerate(tile.caption):
                y_px = tile_top_px + _TILE_PX + 2 + line * _LINE_PX
                write(left_px, y_px, _shortened(text), fontsize=6.5, color=tile.ink)
        top_px += row.height_px
    return figure


def small_jpeg(picture: Picture) -> bytes:
    """Return a picture as JPEG, reduced to the side of a tile where it is larger; the bytes depend on nothing else."""
    scale = min(1.0, _TILE_PX / max(picture.shape[:2]))
    smaller = _resized(picture, scale) if scale < 1 else picture
    _, content = cv2.imencode(".jpg", smaller[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return content.tobytes()


def shaded(values: npt.NDArray[np.floating]) -> Picture:
    """Turn one map, (height, width), into a picture, from its smallest to its greatest value."""
    lowest, highest = float(values.min()), float(values.max())
    unit = (values - lowest) / (highest - lowest) if highest > lowest else np.zeros_like(values)
    return _coloured(unit, _SHADES)


def overlaid(picture: Picture, heat: npt.NDArray[np.float32]) -> Picture:
    """Lay a heat map, any size, 0..1, over a picture: the hotter, the more it hides."""
    height, width = picture.shape[:2]
    large = np.clip(cv2.resize(heat, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)
    share = (_OVERLAY * large)[..., np.newaxis]
    mixed: Picture = np.rint((1 - share) * picture + share * _coloured(large, _HEAT)).astype(np.uint8)
    return mixed


def _coloured(unit: npt.NDArray[np.floating], name: str) -> Picture:
    rgb: Picture = np.rint(255 * colormaps[name](unit)[..., :3]).astype(np.uint8)
    return rgb


def _fit(picture: Picture) -> Picture:
    """Bring a picture to the tile's side, its longer side first; small ones keep their pixels visible."""
    levels = np.rint(_resized(picture, _TILE_PX / max(picture.shape[:2])) / _STEP) * _STEP
    return np.minimum(levels, 255).astype(np.uint8)


def _resized(picture: Picture, scale: float) -> Picture:
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    resized: Picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    return resized


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_LETTERS else f"{text[: _MAX_LETTERS - 1]}…"
