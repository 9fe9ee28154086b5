"""Stage fetch: the raw frames and cutouts of the catalogue's objects, with a manifest of where each came from.

It may be killed at any moment. Files appear by rename, so whatever has its right name is whole, and the next run goes
on from there and ends with the same bytes. Simulated files are drawn again at will (``simulation/files.py``);
downloaded ones are precious and never deleted (``archives/journal.py``).
"""

from pathlib import Path
from typing import Literal

import click
import pandas as pd

from deepsky.archives.downloader import fetch_all
from deepsky.archives.http import Client
from deepsky.archives.journal import only_one
from deepsky.archives.manifest import LABELS
from deepsky.archives.panstarrs import CACHE, find_stacks
from deepsky.archives.params import ArchiveParams, DownloadParams
from deepsky.archives.wanted import needed_columns, wanted_files, wanted_filters
from deepsky.catalogue.magnitudes import SDSS_BANDS
from deepsky.catalogue.tables import check_numbers, read_objects, read_table
from deepsky.errors import ConfigError
from deepsky.files import whole_file
from deepsky.simulation.files import draw_all, drop_simulated
from deepsky.simulation.params import CatalogueParams

_LABEL_COLUMNS = ("id", "class", "ra", "dec", *SDSS_BANDS, "run", "camcol", "field")


def run(
    params: CatalogueParams,
    archive: ArchiveParams,
    download: DownloadParams,
    on_bad_file: Literal["skip", "stop"],
    *,
    catalogue: Path,
    out: Path,
    retry_failed: bool = False,
) -> None:
    """Fetch what is not there yet, put away what is no longer wanted, and write the manifest.

    Args:
        params: section ``catalogue`` of params.yaml: who is asked.
        archive: section ``archive``: for what.
        download: section ``download``: how.
        on_bad_file: whether a file that cannot be had is an error, or only listed in out/failures.csv.
        catalogue: the stage catalogue's CSV.
        out: gets FOLDERS and manifest.csv (by path: path, url, bytes, sha256, time, etag, last_modified); in the
            folders of colour cutouts labels.csv, what the catalogue says of each object.
        retry_failed: fetch only what out/failures.csv lists.

    Raises:
        DataError: the catalogue is broken or of another survey; files could not be fetched or written.
        ConfigError: something is asked of the simulated survey that it does not have.
    """
    objects = read_objects(catalogue, id_column="id", label_column=None, classes=())
    check_numbers(objects, catalogue, needed_columns(archive))
    if retry_failed and params.survey == "simulated":
        raise ConfigError(
            "--retry-failed", "is for survey: sdss or list", "the simulated one never fails: run dvc repro"
        )
    with only_one(out):
        if params.survey != "simulated":
            _download(objects, archive, download, out, on_failure=on_bad_file, retry_failed=retry_failed)
        else:
            stacks = {name: {filter_: filter_ for filter_ in "yig"} for name in objects["id"]}
            draw_all(wanted_files(objects, stacks, archive)[0], params, archive, out)
        _write_labels(catalogue, archive, out)


def _write_labels(catalogue: Path, archive: ArchiveParams, out: Path) -> None:
    """Make the folders of colour cutouts whole datasets; the catalogue's cells stay as they are, digit for digit."""
    table = read_table(catalogue, required=("id",))
    kept = table[[column for column in _LABEL_COLUMNS if column in table.columns]]
    for folder, is_wanted in (("sdss_jpg", archive.sdss_jpg), ("stsci_jpg", archive.stsci_jpg)):
        if is_wanted:
            with whole_file(out / folder / LABELS) as temporary:
                kept.to_csv(temporary, index=False, lineterminator="\n")
        else:
            (out / folder / LABELS).unlink(missing_ok=True)


def _download(
    objects: pd.DataFrame,
    archive: ArchiveParams,
    download: DownloadParams,
    out: Path,
    *,
    on_failure: Literal["skip", "stop"],
    retry_failed: bool,
) -> None:
    drop_simulated(out)
    stacks = find_stacks(objects, wanted_filters(archive), Client(download), out / CACHE)
    wanted, absent = wanted_files(objects, stacks, archive)
    outcome = fetch_all(
        wanted,
        absent,
        out,
        download,
        missing=archive.missing,
        on_failure=on_failure,
        retry_failed=retry_failed,
    )
    click.echo(
        f"{outcome.n_fetched} files fetched ({outcome.n_bytes / 1e6:.0f} MB), "
        f"{len(wanted) + len(absent) - outcome.n_fetched - outcome.n_missing - outcome.n_failed} there before, "
        f"{outcome.n_missing} not in the archives, {outcome.n_failed} failed"
    )
