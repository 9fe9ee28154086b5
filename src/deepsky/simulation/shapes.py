"""Shapes of simulated galaxies: what each one is, before anyone looks at it or draws it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

_Range = tuple[float, float]


class Shape(NamedTuple):
    """One galaxy; what has no unit runs from 0 to 1 (absent to outstanding).

    Attributes:
        kind: of the galaxy, see draw_shapes.
        radius: half-light radius along the major axis, share of a 424 px picture's side.
        brightness: mean surface brightness within it, where the noise of the sky is 0.021.
        axis_ratio: apparent, of the whole galaxy.
        bulge: share of the light; 1 is an elliptical.
        blueness: of disc and arms; 0 is the colour of an elliptical.
        arms: contrast of the spiral arms.
        pitch_deg: of the arms; a small one winds them tightly.
        bar: share of what a bar can hold.
        ring: around the middle.
        lens: an arc, the image of something behind.
        disturbed: bent and lopsided, with a tail.
        irregular: clumps instead of a disc.
        merger: with a companion.
        dust: a lane along an edge-on disc.
        boxy: a bulge with corners.
        star: no galaxy, but a bright star.
        n_arms: 1 to 5, and 5 stands for more than 4.
        clockwise: 1 or -1, as the galaxy turns if its arms trail: seen from the middle outwards, the arms of a
            clockwise one bend anticlockwise. So do those that Galaxy Zoo 1 calls clockwise.
        angle_deg: of the major axis, clockwise from the right.
    """

    kind: str
    radius: float
    brightness: float
    axis_ratio: float
    bulge: float
    blueness: float
    arms: float
    pitch_deg: float
    bar: float
    ring: float
    lens: float
    disturbed: float
    irregular: float
    merger: float
    dust: float
    boxy: float
    star: float
    n_arms: int
    clockwise: int
    angle_deg: float


# The range that each number is drawn from, uniformly. Those not named, here or for the kind, are 0.
_COMMON: dict[str, _Range] = {
    "radius": (0.046, 0.085),
    "brightness": (0.35, 1.6),
    "axis_ratio": (0.55, 1.0),
    "bulge": (0.05, 0.35),
    "blueness": (0.4, 1.0),
    "arms": (0.0, 0.1),
    "pitch_deg": (10.0, 30.0),
    "bar": (0.0, 0.2),
    "disturbed": (0.0, 0.05),
    "irregular": (0.0, 0.05),
}
_SMOOTH: dict[str, _Range] = {"bulge": (0.85, 1.0), "blueness": (0.0, 0.6), "bar": (0.0, 0.05), "arms": (0.0, 0.04)}
_SPIRAL: dict[str, _Range] = {"arms": (0.5, 0.95), "axis_ratio": (0.42, 1.0), "radius": (0.048, 0.085)}
_EDGE_ON: dict[str, _Range] = {"axis_ratio": (0.13, 0.25), "radius": (0.048, 0.08), "brightness": (0.5, 1.6)}
_KINDS: dict[str, dict[str, _Range]] = {
    "round": {**_SMOOTH, "axis_ratio": (0.82, 1.0)},
    "in-between": {**_SMOOTH, "axis_ratio": (0.46, 0.76)},
    "cigar": {**_SMOOTH, "axis_ratio": (0.24, 0.34), "radius": (0.055, 0.085)},
    "disc": {"bulge": (0.2, 0.6), "blueness": (0.1, 0.6), "arms": (0.0, 0.35)},
    "barred": {**_SPIRAL, "bar": (0.6, 1.0), "bulge": (0.04, 0.2), "arms": (0.45, 0.95), "axis_ratio": (0.55, 1.0)},
    "tight": {**_SPIRAL, "pitch_deg": (9.0, 14.0), "bulge": (0.2, 0.5)},
    "loose": {**_SPIRAL, "pitch_deg": (20.0, 36.0), "bulge": (0.03, 0.25)},
    "thin": {**_EDGE_ON, "bulge": (0.0, 0.06), "dust": (0.0, 0.4)},
    "bulged": {**_EDGE_ON, "bulge": (0.28, 0.5), "dust": (0.0, 0.75), "boxy": (0.0, 0.7)},
    "ring": {"ring": (0.6, 1.0), "lens": (0.0, 0.3), "bulge": (0.15, 0.4), "arms": (0.0, 0.2)},
    "lens": {**_SMOOTH, "lens": (0.6, 1.0), "axis_ratio": (0.7, 1.0)},
    "disturbed": {"disturbed": (0.6, 1.0), "arms": (0.1, 0.6), "bulge": (0.1, 0.35)},
    "irregular": {"irregular": (0.6, 1.0), "bulge": (0.0, 0.1), "blueness": (0.7, 1.0), "axis_ratio": (0.4, 0.9)},
    "merger": {"merger": (0.6, 1.0), "disturbed": (0.15, 0.45), "arms": (0.0, 0.6), "bulge": (0.2, 0.9)},
    "faint": {"radius": (0.018, 0.032), "brightness": (0.06, 0.16), "bulge": (0.3, 1.0)},
    "star": {"star": (0.8, 1.0), "brightness": (8.0, 40.0), "radius": (0.05, 0.09)},
}
_DRAWN = Shape._fields[1:-3]
_ARM_SHARES = {1: 0.05, 2: 0.63, 3: 0.14, 4: 0.08, 5: 0.10}  # 5 stands for more than 4


def share_out(shares: Mapping[str, float], n: int, *, at_least: int = 0) -> list[str]:
    """Give each of n objects a kind so that the shares are kept to one object; nothing is drawn.

    Args:
        shares: kind -> share; they need not sum to 1.
        n: how many; at least ``at_least * len(shares)``.
        at_least: objects that also the rarest kind gets; the commonest ones give them up.

    Returns:
        Kinds in the order of ``shares``, length n.
    """
    free = n - at_least * len(shares)
    excess = np.maximum(np.array(list(shares.values())) / sum(shares.values()) * n - at_least, 0)
    exact = excess / max(excess.sum(), 1e-12) * free
    counts = np.floor(exact).astype(int)
    for place in np.argsort(counts - exact, kind="stable")[: free - counts.sum()]:
        counts[place] += 1
    return [kind for kind, count in zip(shares, counts, strict=True) for _ in range(count + at_least)]


def draw_shapes(kinds: Sequence[str], rng: np.random.Generator) -> pd.DataFrame:
    """Draw the shape of each galaxy.

    Args:
        kinds: one of the 16 kinds for each galaxy, for example ``round``, ``barred``, ``merger``.
        rng: source of every number.

    Returns:
        One row per galaxy, the columns as the fields of Shape.
    """
    ranges = np.array([[{**_COMMON, **_KINDS[kind]}.get(name, (0.0, 0.0)) for name in _DRAWN] for kind in kinds])
    drawn = ranges[..., 0] + rng.random(ranges.shape[:2]) * (ranges[..., 1] - ranges[..., 0])
    shapes = pd.DataFrame(drawn, columns=list(_DRAWN))
    shapes.insert(0, "kind", list(kinds))
    shapes["n_arms"] = rng.choice(list(_ARM_SHARES), len(shapes), p=list(_ARM_SHARES.values()))
    shapes["clockwise"] = rng.choice([-1, 1], len(shapes))
    shapes["angle_deg"] = rng.uniform(0, 360, len(shapes))
    return shapes


def edge_on(shapes: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Say how much each galaxy is a disc seen from its edge, 0 to 1: flat, and not all of it bulge."""
    flat = np.clip((0.36 - shapes["axis_ratio"].to_numpy()) / 0.1, 0, 1)
    return flat * np.clip((0.8 - shapes["bulge"].to_numpy()) / 0.2, 0, 1)
