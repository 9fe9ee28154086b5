"""Stage catalogue: which objects."""

from pathlib import Path

from deepsky.catalogue.simulated import CatalogueParams, draw_sky, reference_catalogue
from deepsky.files import whole_file


def run(params: CatalogueParams, *, out: Path) -> None:
    """Write the catalogue.

    Args:
        params: section ``catalogue`` of params.yaml.
        out: CSV with the 18 columns of the reference query, one row per object, ordered by objid.
    """
    table = reference_catalogue(draw_sky(params), params.seed)
    with whole_file(out) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
