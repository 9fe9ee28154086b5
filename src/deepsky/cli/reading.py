"""Options that say how FITS frames and the catalogue of their objects are to be understood."""

from collections.abc import Callable
from typing import Any

import click


def split(_: click.Context, option: click.Parameter, text: str | None) -> list[str]:
    """Split A,B,C."""
    return [each.strip() for each in text.split(",")] if text else []


def _pairs(_: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Read NAME=VALUE of every use of an option; the name of a value alone is ""."""
    parted = [text.rpartition("=") for text in texts]
    return {name.strip(): value.strip() for name, _, value in parted}


def _filters(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    pairs = _pairs(context, option, texts)
    if "" in pairs:
        raise click.BadParameter(f"{pairs['']!r} is not NAME=BAND", context, option)
    return pairs


def _magnitudes(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> dict[str, float]:
    try:
        return {band: float(value) for band, value in _pairs(context, option, texts).items()}
    except ValueError as error:
        raise click.BadParameter(f"not a magnitude or BAND=magnitude ({error})", context, option) from error


_OPTIONS = (
    click.option("--position", type=click.Choice(["radec", "xy"]), default="radec", show_default=True),
    click.option("--position-columns", metavar="A,B", callback=split, help="its columns (default: ra,dec or x,y)"),
    click.option("--position-band", help="band whose pixels x and y count, from 0 (default: r, or the first band)"),
    click.option(
        "--filter",
        "filters",
        metavar="NAME=BAND",
        multiple=True,
        callback=_filters,
        help="band of a filter whose name does not say it: F814W=i",
    ),
    click.option(
        "--zero-point",
        "zero_points",
        metavar="[BAND=]MAG",
        multiple=True,
        callback=_magnitudes,
        help="AB magnitude of one unit of a pixel, where the frames do not say it",
    ),
)


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of ``commands.frame_options``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
