"""What params.yaml says of networks: sections ``weights`` and ``features``, and the key ``augment``."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "mixed"]  # mixed: 16 bits
BatchSize = Literal["auto"] | int
AUGMENT_LIMITS = {"rotation_deg": 180.0, "shift": 0.5, "shear_deg": 45.0, "zoom": 0.5, "brightness": 0.9}


@dataclass(frozen=True)
class AugmentParams:
    """How far a random view strays from its image; the defaults change nothing.

    Attributes:
        flip: whether half of the views are mirror images. Only left-right: top-bottom is that, turned by 180 degrees.
        rotation_deg: largest turn to either side, 0..180.
        shift: largest move along each axis, as a share of the side, 0..0.5.
        shear_deg: largest angle by which upright lines lean, 0..45.
        zoom: largest share by which an image grows or shrinks, 0..0.5.
        brightness: largest share by which pixels brighten or darken, 0..0.9.
    """

    flip: bool = False
    rotation_deg: float = 0.0
    shift: float = 0.0
    shear_deg: float = 0.0
    zoom: float = 0.0
    brightness: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what leaves nothing of an image."""
        for name, most in AUGMENT_LIMITS.items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie between 0 and {most:g}, not {getattr(self, name)}")

    @property
    def moves(self) -> bool:
        """Tell whether any view has its pixels elsewhere."""
        return self.flip or any((self.rotation_deg, self.shift, self.shear_deg, self.zoom))

    def times(self, strength: float) -> "AugmentParams":
        """Return views that stray ``strength`` times as far, up to the limits; ``flip`` stays."""
        own = {name: min(strength * getattr(self, name), most) for name, most in AUGMENT_LIMITS.items()}
        return AugmentParams(flip=self.flip, **own)


@dataclass(frozen=True, kw_only=True)
class WeightsParams:
    """Section ``weights``.

    Attributes:
        source: ``imagenet`` stops without the real weights, ``imagenet-or-random`` then draws random ones,
            ``random`` always draws them.
        folder: a folder with Keras' no-top ``.h5`` files; the environment variable DEEPSKY_WEIGHTS overrides it.
        seed: of the random weights.
    """

    source: Literal["imagenet", "imagenet-or-random", "random"] = "imagenet-or-random"
    folder: str | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse a seed that no generator takes."""
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie between 0 and {2**32 - 1}, not {self.seed}")


@dataclass(frozen=True, kw_only=True)
class FeaturesParams:
    """Section ``features``.

    Attributes:
        batch_size: images per step; ``auto``: 32 on a CPU, on a GPU by its memory. It changes speed, and on another
            card the last digits of features.
    """

    batch_size: BatchSize = "auto"

    def __post_init__(self) -> None:
        """Refuse what no memory holds."""
        if self.batch_size != "auto" and not 1 <= self.batch_size <= 65_536:
            raise ValueError(f"batch_size must lie between 1 and 65536, not {self.batch_size}")
