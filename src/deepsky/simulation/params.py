"""What params.yaml says of the simulated sky. Light: it is read before anything heavy is imported."""

from dataclasses import dataclass
from typing import Literal

AT_LEAST = 12  # galaxies of each class, in Galaxy Zoo 1 and Galaxy10
_FEWEST = {"n_galaxy_zoo": 1, "n_galaxy_zoo1": 6 * AT_LEAST, "n_galaxy10": 10 * AT_LEAST}
_MOST = 50_000  # galaxies: an objID has 16 bits for them


@dataclass(frozen=True)
class CatalogueParams:
    """Section ``catalogue`` of params.yaml: which objects to work on.

    Attributes:
        survey: who is asked; ``simulated`` needs no network. ``sdss`` takes the objects of ``deepsky query``, ``list``
            positions and classes of which only cutouts can be had; neither has a use for the other keys.
        seed: of the simulated sky.
        n_fields: SDSS fields, 1..2000; of every four, two overlap.
        n_per_class_per_field: catalogued galaxies, quasars and stars in each field, on the mean over fields, 1..60.
    """

    survey: Literal["simulated", "sdss", "list"] = "simulated"
    seed: int = 20180227
    n_fields: int = 16
    n_per_class_per_field: int = 13

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, but must not be negative")
        if not 1 <= self.n_fields <= 2000:
            raise ValueError(f"n_fields is {self.n_fields}, but must be 1..2000")
        if not 1 <= self.n_per_class_per_field <= 60:
            raise ValueError(f"n_per_class_per_field is {self.n_per_class_per_field}, but must be 1..60")


@dataclass(frozen=True)
class SimulateParams:
    """Section ``simulate`` of params.yaml: how many galaxies the stand-ins of published datasets hold.

    Attributes:
        seed: of all three.
        n_galaxy_zoo: galaxies of the simulated Galaxy Zoo challenge; 5 % of them are cigars, the rarest class.
        n_galaxy_zoo1: of the simulated Galaxy Zoo 1, 72 or more: each of six classes gets 12.
        n_galaxy10: of the simulated Galaxy10 DECaLS, 120 or more: each of ten classes gets 12.
    """

    seed: int = 11
    n_galaxy_zoo: int = 400
    n_galaxy_zoo1: int = 300
    n_galaxy10: int = 300

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, not {self.seed}")
        for key, least in _FEWEST.items():
            if not least <= getattr(self, key) <= _MOST:
                raise ValueError(f"{key} must lie between {least} and {_MOST}, not {getattr(self, key)}")
