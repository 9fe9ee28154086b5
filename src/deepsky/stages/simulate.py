"""Stage simulate: stand-ins for the published galaxy collections, so that every dataset has an offline default."""

from dataclasses import dataclass
from pathlib import Path

from deepsky.simulation.published import (
    AT_LEAST,
    GALAXY10_COUNTS,
    ZOO1_SHARES,
    write_galaxy10,
    write_galaxy_zoo,
    write_galaxy_zoo1,
)

_MOST = 50_000  # galaxies: an objID has 16 bits for them


@dataclass(frozen=True)
class SimulateParams:
    """Section ``simulate`` of params.yaml.

    Attributes:
        seed: of all three collections.
        n_galaxy_zoo: galaxies of the simulated Galaxy Zoo challenge; 5 % of them are cigars, the rarest class.
        n_galaxy_zoo1: of the simulated Galaxy Zoo 1, 72 or more: each of six classes gets 12.
        n_galaxy10: of the simulated Galaxy10 DECaLS, 120 or more: each of ten classes gets 12.
    """

    seed: int
    n_galaxy_zoo: int
    n_galaxy_zoo1: int
    n_galaxy10: int

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, not {self.seed}")
        fewest = {
            "n_galaxy_zoo": 1,
            "n_galaxy_zoo1": AT_LEAST * len(ZOO1_SHARES),
            "n_galaxy10": AT_LEAST * len(GALAXY10_COUNTS),
        }
        for key, least in fewest.items():
            if not least <= getattr(self, key) <= _MOST:
                raise ValueError(f"{key} must lie between {least} and {_MOST}, not {getattr(self, key)}")


def run(params: SimulateParams, *, out: Path) -> None:
    """Write the three collections, each in the layout it is published in.

    Args:
        params: how many galaxies, and the seed.
        out: gets galaxy_zoo/, galaxy_zoo1/ and Galaxy10_DECals.h5.
    """
    write_galaxy_zoo(params.n_galaxy_zoo, params.seed, out / "galaxy_zoo")
    write_galaxy_zoo1(params.n_galaxy_zoo1, params.seed, out / "galaxy_zoo1")
    write_galaxy10(params.n_galaxy10, params.seed, out / "Galaxy10_DECals.h5")
