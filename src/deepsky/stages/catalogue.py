"""Stage catalogue: which objects."""

from pathlib import Path

import click

from deepsky.catalogue.objects import describe, read_real_objects
from deepsky.errors import DataError
from deepsky.files import whole_file
from deepsky.simulation.params import CatalogueParams
from deepsky.simulation.sky import draw_sky, reference_catalogue


def run(params: CatalogueParams, release: str, *, query: Path, out: Path) -> None:
    """Write the catalogue.

    Args:
        params: section ``catalogue`` of params.yaml.
        release: of SDSS, ``archive.release``.
        query: folder with the catalogue.csv of ``deepsky query``, or any table like it, for ``survey: sdss``.
        out: CSV with ``id`` and the 18 columns of the reference query, one row per object.

    Raises:
        DataError: there are no real objects yet, or their table is wrong.
    """
    if params.survey == "sdss":
        source = query / "catalogue.csv"
        if not source.exists():
            raise DataError(
                source,
                "is not there, and catalogue.survey is sdss",
                "run deepsky query, or copy a CSV with the columns of the reference query there (docs/archives.md)",
            )
        table = read_real_objects(source, release)
        for line in describe(table):
            click.echo(line)
    else:
        table = reference_catalogue(draw_sky(params), params.seed)
        table.insert(0, "id", table["objid"])
    with whole_file(out) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
