"""Light of one simulated galaxy in red, green and blue: bulge, disc, arms, bar, ring, companion and dust.

Bars, arms and rings are drawn in the plane of the disc, so that those of inclined galaxies are foreshortened.
"""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from deepsky.simulation.shapes import Shape

Plane = npt.NDArray[np.float32]
_OLD = np.array([1.08, 0.91, 0.60], np.float32)  # red, green and blue of the stars of an elliptical
_YOUNG = np.array([0.80, 0.93, 1.26], np.float32)
_DUST = np.array([0.7, 0.85, 0.95], np.float32)  # it reddens
_REACH = 4.0  # half-light radii that are drawn
_REACH_OF_TWO = 5.5
_SCALE = 1 / 1.678  # scale length of an exponential disc in its half-light radii
_EDGE_ON = 0.3  # axis ratio of discs that are seen from the edge
_BAR_LENGTH = 0.95  # half of it, in half-light radii
_BAR_SHARE = 0.42  # of the light of a disc with a full bar


class _Grid(NamedTuple):
    """Where each pixel lies, in half-light radii: along and across the major axis; radius and angle in the disc."""

    along: Plane
    across: Plane
    radius: Plane
    angle: Plane


def galaxy_light(radius_px: float, shape: Shape, rng: np.random.Generator) -> Plane:
    """Draw a galaxy without atmosphere, sky and noise.

    Args:
        radius_px: half-light radius along the major axis, pixels.
        shape: what to draw.
        rng: source of clumps, of the bar's place and of the companion.

    Returns:
        Red, green and blue surface brightness, float32 (side, side, 3), the galaxy in the middle.
    """
    half_px = int(np.ceil((_REACH_OF_TWO if shape.merger > 0 else _REACH) * radius_px))
    light = _light_at((0.0, 0.0), half_px, radius_px, shape, rng)
    if shape.merger > 0:
        place, relative_size = rng.uniform(0, 2 * np.pi), rng.uniform(0.55, 0.95)
        distance_px = rng.uniform(0.9, 2.1) * radius_px
        centre = (distance_px * np.cos(place), distance_px * np.sin(place))
        light += _light_at(centre, half_px, relative_size * radius_px, _companion(shape, rng), rng)
    steps = np.arange(-half_px, half_px + 1, dtype=np.float32) / np.float32(half_px)
    fade = np.clip(4 - 4 * np.hypot(steps, steps[:, np.newaxis]), 0, 1)  # no corners and no edge
    return light * fade[..., np.newaxis]


def _companion(shape: Shape, rng: np.random.Generator) -> Shape:
    return shape._replace(
        axis_ratio=rng.uniform(0.3, 0.95),
        bulge=rng.uniform(0.2, 0.9),
        blueness=float(np.clip(shape.blueness + rng.uniform(-0.3, 0.3), 0, 1)),
        brightness=shape.brightness * rng.uniform(0.6, 1.2),
        disturbed=rng.uniform(0.5, 1.0),
        angle_deg=rng.uniform(0, 360),
    )


def _light_at(
    centre: tuple[float, float], half_px: int, radius_px: float, shape: Shape, rng: np.random.Generator
) -> Plane:
    grid = _grid(centre, half_px, radius_px, shape, rng)
    bulge = _bulge(grid, shape)
    disc, young = _disc(grid, shape, radius_px, rng)
    total = 2 * np.pi * shape.brightness * radius_px**2 * shape.axis_ratio
    old = shape.bulge * bulge / bulge.sum()
    scale = (1 - shape.bulge) / (disc.sum() + young.sum())
    parts = ((old, 0.35), (disc * scale, 0.7), (young * scale, 1.0))
    colours = [_OLD + (_YOUNG - _OLD) * np.float32(share * shape.blueness) for _, share in parts]
    light = np.float32(total) * sum(
        np.multiply.outer(part, colour) for (part, _), colour in zip(parts, colours, strict=True)
    )
    if shape.dust > 0:
        lane = np.exp(-((grid.across / (0.3 * shape.axis_ratio)) ** 2) - (grid.along / 1.6) ** 2)
        light *= 1 - np.multiply.outer(lane, _DUST * np.float32(shape.dust))
    return light.astype(np.float32, copy=False)


def _grid(centre: tuple[float, float], half_px: int, radius_px: float, shape: Shape, rng: np.random.Generator) -> _Grid:
    steps = np.arange(-half_px, half_px + 1, dtype=np.float32) / np.float32(radius_px)
    x, y = np.meshgrid(steps - np.float32(centre[0] / radius_px), steps - np.float32(centre[1] / radius_px))
    if shape.disturbed > 0.1:
        bend, phase = np.float32(0.45 * shape.disturbed), np.float32(rng.uniform(0, 2 * np.pi))
        x, y = x + bend * np.sin(1.1 * y + phase), y + bend * np.sin(0.9 * x + 2 * phase)
    turn = np.radians(shape.angle_deg)
    cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    along, across = cosine * x + sine * y, cosine * y - sine * x
    inclined = across / np.float32(shape.axis_ratio)
    return _Grid(along, across, np.hypot(along, inclined), np.arctan2(inclined, along))


def _bulge(grid: _Grid, shape: Shape) -> Plane:
    """Sersic's profile; an elliptical is nothing but a bulge."""
    elliptical = shape.bulge >= 0.8
    ratio = shape.axis_ratio if elliptical else (1 + shape.axis_ratio) / 2
    size = 1.0 if elliptical else 0.25 + 0.5 * shape.bulge
    power = 2 + 2 * shape.boxy
    index = 2.5 if elliptical else 1.8
    across = np.abs(grid.across) / np.float32(ratio)
    if shape.boxy > 0:
        radius = (np.abs(grid.along) ** np.float32(power) + across ** np.float32(power)) ** np.float32(1 / power)
    else:
        radius = np.hypot(grid.along, across)
    return np.exp((1 / 3 - 2 * index) * (radius / np.float32(size) + 1e-3) ** np.float32(1 / index))


def _disc(grid: _Grid, shape: Shape, radius_px: float, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Surface brightness of the disc's old and young stars."""
    if shape.axis_ratio < _EDGE_ON:
        height = np.abs(grid.across) * np.float32(1.5 / (_SCALE * shape.axis_ratio))
        disc = np.exp(-np.abs(grid.along) / _SCALE) / np.cosh(np.minimum(height, 30)) ** 2
        return disc, np.zeros_like(disc)
    smooth = np.exp(-grid.radius / _SCALE)
    grain = 0.55 if shape.irregular > 0.3 else 0.3
    clumps = _clumps(len(smooth), grain * radius_px, rng)
    if shape.irregular > 0.3:
        return 0.3 * smooth, smooth * np.exp(np.float32(1.3 * shape.irregular) * clumps)
    bar_angle = rng.uniform(0, np.pi)
    disc, young = (1 - 0.85 * shape.arms) * smooth, np.zeros_like(smooth)
    if shape.arms > 0:
        young += np.float32(shape.arms) * _arms(grid, shape, bar_angle) * np.exp(np.float32(0.5) * clumps)
    if shape.bar > 0:
        disc += np.float32(shape.bar * _BAR_SHARE * smooth.sum()) * _bar(grid, bar_angle)
    if shape.ring > 0:
        ring = np.exp(-(((grid.radius - 1.6) / 0.3) ** 2))
        young += np.float32(0.45 * shape.ring * smooth.sum() / ring.sum()) * ring * np.exp(np.float32(0.3) * clumps)
    if shape.lens > 0:
        arc = np.exp(-(((grid.radius - 1.9) / 0.16) ** 2) + 3 * (np.cos(grid.angle - bar_angle) - 1))
        young += np.float32(0.5 * shape.lens * smooth.sum() / arc.sum()) * arc
    if shape.disturbed > 0.1:
        young += np.float32(0.35 * shape.disturbed * smooth.sum()) * _tail(grid, shape, bar_angle)
    return disc, young


def _arms(grid: _Grid, shape: Shape, start: float) -> Plane:
    """Logarithmic spirals that leave the ends of the bar."""
    winding = np.float32(shape.clockwise / np.tan(np.radians(shape.pitch_deg)))
    radius = np.maximum(grid.radius, np.float32(0.05))
    phase = shape.n_arms * (grid.angle - start + winding * np.log(radius / _BAR_LENGTH))
    crest = np.exp(np.float32(1.8) * (np.cos(phase) - 1))
    begin = 1 / (1 + np.exp((0.6 - radius) / np.float32(0.12)))
    return np.asarray(2.2 * crest * begin * np.exp(-radius / (1.08 * _SCALE)), np.float32)


def _bar(grid: _Grid, angle: float) -> Plane:
    """Draw a bar of unit light."""
    along = grid.radius * np.cos(grid.angle - np.float32(angle))
    across = grid.radius * np.sin(grid.angle - np.float32(angle))
    bar = np.exp(-(np.square(along / _BAR_LENGTH) ** 2) - (across / (0.2 * _BAR_LENGTH)) ** 2)
    return bar / bar.sum()


def _tail(grid: _Grid, shape: Shape, start: float) -> Plane:
    """Draw a tidal tail of unit light: one open arm that reaches far out on one side."""
    radius = np.maximum(grid.radius, np.float32(0.05))
    angle = grid.angle - start + np.float32(0.8 * shape.clockwise) * np.log(radius)
    tail = np.exp(np.float32(6) * (np.cos(angle) - 1) - ((radius - 1.9) / 0.8) ** 2)
    return tail / tail.sum()


def _clumps(side_px: int, grain_px: float, rng: np.random.Generator) -> Plane:
    """Draw a random field of unit scatter with grains of the given size."""
    n_grains = max(4, round(side_px / grain_px))
    grains = rng.standard_normal((n_grains, n_grains), dtype=np.float32)
    return cv2.resize(grains, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
