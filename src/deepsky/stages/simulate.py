"""Stage simulate: stand-ins for the published datasets of galaxies, so that every dataset has an offline default."""

from pathlib import Path

from deepsky.simulation.params import SimulateParams
from deepsky.simulation.published import write_galaxy10, write_galaxy_zoo, write_galaxy_zoo1


def run(params: SimulateParams, *, out: Path) -> None:
    """Write the three stand-ins, each in the layout that the real one is published in.

    Args:
        params: how many galaxies, and the seed.
        out: gets galaxy_zoo/, galaxy_zoo1/ and Galaxy10_DECals.h5.
    """
    write_galaxy_zoo(params.n_galaxy_zoo, params.seed, out / "galaxy_zoo")
    write_galaxy_zoo1(params.n_galaxy_zoo1, params.seed, out / "galaxy_zoo1")
    write_galaxy10(params.n_galaxy10, params.seed, out / "Galaxy10_DECals.h5")
