"""Stage fetch: the raw frames and colour cutouts of the catalogue's objects, with a manifest of where each came from.

It may be killed at any moment. Files appear by rename, so whatever has its right name is whole, and the next run goes
on from there and ends with the same bytes. Each folder names the parameters that it was fetched with; what belongs to
others is thrown away.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, cast

import pandas as pd
from joblib import Parallel, delayed
from rich.console import Console
from rich.progress import track

from deepsky.archives.addresses import frame_path, frame_url, panstarrs_jpeg_url, sdss_jpeg_url
from deepsky.archives.simulated import SimulatedArchive
from deepsky.catalogue.simulated import CatalogueParams
from deepsky.catalogue.simulated_fields import BANDS
from deepsky.catalogue.tables import read_table
from deepsky.errors import DataError
from deepsky.files import whole_file

ARCHIVES = {"simulated": SimulatedArchive}
FOLDERS = ("frames", "sdss_jpg", "stsci_jpg")
JPEG_SIZE_PX = 240
SDSS_JPEG_SCALE_ARCSEC = 0.4
_SOURCE = ".source.json"


@dataclass(frozen=True)
class Download:
    """One file to fetch.

    Attributes:
        folder: which of FOLDERS, and so which service.
        path: where to, below ``out``.
        url: where from, in the service's documented form.
        question: what the archive is asked: run, camcol, field, band, or ra and dec in degrees.
    """

    folder: Literal["frames", "sdss_jpg", "stsci_jpg"]
    path: str
    url: str
    question: tuple[int, int, int, str] | tuple[float, float]


def run(params: CatalogueParams, *, catalogue: Path, out: Path) -> None:
    """Fetch what is not there yet, drop what is no longer wanted, and write the manifest.

    Args:
        params: section ``catalogue`` of params.yaml.
        catalogue: the stage catalogue's CSV.
        out: gets frames/{run}/{camcol}/, sdss_jpg/, stsci_jpg/ and manifest.csv (path, url, bytes, sha256; by path).

    Raises:
        DataError: the catalogue is broken or of another survey; a file cannot be written.
    """
    downloads = plan_downloads(catalogue, params.survey)
    try:
        (out / "manifest.csv").unlink(missing_ok=True)  # it must never stand beside files that it does not describe
        for folder in FOLDERS:
            _prepare(out, folder, downloads, params)
    except OSError as error:
        raise _unwritable(error, out) from error
    missing = [download for download in downloads if not (out / download.path).exists()]
    # Workers are processes: drawing and bz2 hold the interpreter's lock.
    done = Parallel(n_jobs=-1, return_as="generator_unordered")(
        delayed(_fetch)(download, params, out) for download in missing
    )
    for _ in track(done, description="fetch", total=len(missing), console=Console(stderr=True)):
        pass
    _write_manifest(downloads, out)


def plan_downloads(catalogue: Path, survey: str) -> list[Download]:
    """List the files of a catalogue's objects: each distinct field's five frames once, and two cutouts per object.

    Raises:
        DataError: the catalogue cannot be read or a cell is not a number.
    """
    table = read_table(catalogue, required=("objid", "ra", "dec", "run", "camcol", "field"))
    downloads = []
    for run_, camcol, field in _numbers(table, ("run", "camcol", "field"), catalogue).drop_duplicates().to_numpy(int):
        for band in BANDS:
            key = (int(run_), int(camcol), int(field), band)
            downloads.append(Download("frames", f"frames/{frame_path(*key)}", f"{survey}:{frame_url(*key)}", key))
    places = _numbers(table, ("ra", "dec"), catalogue)
    for objid, ra_deg, dec_deg in zip(table["objid"], places["ra"], places["dec"], strict=True):
        place, size = (float(ra_deg), float(dec_deg)), JPEG_SIZE_PX
        url = f"{survey}:{sdss_jpeg_url(*place, scale=SDSS_JPEG_SCALE_ARCSEC, width=size, height=size)}"
        downloads.append(Download("sdss_jpg", f"sdss_jpg/{objid}.jpg", url, place))
        url = f"{survey}:{panstarrs_jpeg_url(*place, size=size, red='y', green='i', blue='g')}"
        downloads.append(Download("stsci_jpg", f"stsci_jpg/{objid}.jpg", url, place))
    return downloads


def _numbers(table: pd.DataFrame, columns: tuple[str, ...], catalogue: Path) -> pd.DataFrame:
    try:
        return table[list(columns)].apply(pd.to_numeric)
    except ValueError as error:
        raise DataError(
            catalogue, f"{', '.join(columns)}: {error}", "every object needs a number in each of these columns"
        ) from error


def _fetch(download: Download, params: CatalogueParams, out: Path) -> None:
    content = _ask(download, params)
    try:
        with whole_file(out / download.path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise _unwritable(error, out / download.path) from error


def _ask(download: Download, params: CatalogueParams) -> bytes:
    archive = _archive(params)
    if download.folder == "frames":
        return archive.frame(*cast(tuple[int, int, int, str], download.question))
    ra_deg, dec_deg = cast(tuple[float, float], download.question)
    if download.folder == "sdss_jpg":
        return archive.sdss_jpeg(ra_deg, dec_deg, scale=SDSS_JPEG_SCALE_ARCSEC, width=JPEG_SIZE_PX, height=JPEG_SIZE_PX)
    return archive.panstarrs_jpeg(ra_deg, dec_deg, size=JPEG_SIZE_PX)


@lru_cache(maxsize=1)
def _archive(params: CatalogueParams) -> SimulatedArchive:
    """One archive per worker process: it draws the whole sky when it starts."""
    return ARCHIVES[params.survey](params)


def _prepare(out: Path, name: str, downloads: Sequence[Download], params: CatalogueParams) -> None:
    """Leave in one folder only files that this run would fetch to the same bytes."""
    folder, source = out / name, json.dumps(asdict(params), sort_keys=True) + "\n"
    wanted = {out / download.path: download for download in downloads if download.folder == name}
    if folder.exists() and not _is_current(folder, source, wanted, params):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):  # files before the folder they are in
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in wanted and path != folder / _SOURCE:
            path.unlink()  # another catalogue's file, or the torso of a killed run
    if not (folder / _SOURCE).exists():
        with whole_file(folder / _SOURCE) as temporary:
            temporary.write_text(source)


def _is_current(folder: Path, source: str, wanted: dict[Path, Download], params: CatalogueParams) -> bool:
    """Say whether a folder was fetched with these parameters, and by a program that still answers the same.

    The second is tried on the first file that is there: a changed program would else go on from its old files.
    """
    try:
        if (folder / _SOURCE).read_text() != source:
            return False
    except OSError:
        return False
    kept = next((path for path in wanted if path.exists()), None)
    return kept is None or kept.read_bytes() == _ask(wanted[kept], params)


def _write_manifest(downloads: Sequence[Download], out: Path) -> None:
    rows = []
    for download in sorted(downloads, key=lambda download: download.path):
        content = (out / download.path).read_bytes()
        rows.append((download.path, download.url, len(content), hashlib.sha256(content).hexdigest()))
    try:
        with whole_file(out / "manifest.csv") as temporary:
            table = pd.DataFrame(rows, columns=["path", "url", "bytes", "sha256"])
            table.to_csv(temporary, index=False, lineterminator="\n")
    except OSError as error:
        raise _unwritable(error, out / "manifest.csv") from error


def _unwritable(error: OSError, path: Path) -> DataError:
    where = error.filename or path
    return DataError(
        where, f"cannot be written ({error.strerror})", "free the disk or choose a folder you may write to"
    )
