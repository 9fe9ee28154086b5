"""Stage catalogue: which objects."""

from pathlib import Path

import click

from deepsky.catalogue.objects import describe, read_real_objects
from deepsky.catalogue.position_list import read_positions
from deepsky.errors import DataError
from deepsky.files import whole_file
from deepsky.simulation.params import CatalogueParams
from deepsky.simulation.sky import draw_sky, reference_catalogue

# By survey: the table of its objects, and what to do where there is none.
_SOURCES = {
    "sdss": (
        "catalogue.csv",
        "run deepsky query, or copy a CSV with the columns of the reference query there (docs/archives.md)",
    ),
    "list": ("list.tsv", "copy a list of ra, dec and class there (docs/archives.md)"),
}


def run(params: CatalogueParams, release: str, *, query: Path, out: Path, classes: tuple[str, ...] = ()) -> None:
    """Write the catalogue.

    Args:
        params: section ``catalogue`` of params.yaml.
        release: of SDSS, that real objects are to be of.
        query: folder with the catalogue.csv of ``deepsky query``, or any table like it, for ``survey: sdss``; with
            list.tsv for ``survey: list``.
        out: CSV with ``id`` and the 18 columns of the reference query, or ra, dec and class, one row per object.
        classes: those that may occur in a list; none: any.

    Raises:
        DataError: there are no real objects yet, or their table is wrong.
    """
    if params.survey == "simulated":
        table = reference_catalogue(draw_sky(params), params.seed)
        table.insert(0, "id", table["objid"])
    else:
        name, remedy = _SOURCES[params.survey]
        source = query / name
        if not source.exists():
            raise DataError(source, f"is not there, and catalogue.survey is {params.survey}", remedy)
        table = read_real_objects(source, release) if params.survey == "sdss" else read_positions(source, classes)
        for line in describe(table):
            click.echo(line)
    with whole_file(out) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
