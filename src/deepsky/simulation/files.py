"""The simulated survey's raw files: drawn side by side, kept only as long as they would be drawn the same.

Files appear by rename, so whatever has its right name is whole; a killed run goes on from there.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import cast

from joblib import Parallel, delayed

from deepsky.archives.addresses import FOLDERS
from deepsky.archives.journal import SIMULATED, set_aside
from deepsky.archives.manifest import LABELS, Receipt, write_manifest
from deepsky.archives.params import ArchiveParams
from deepsky.archives.wanted import Wanted
from deepsky.errors import ConfigError, DataError
from deepsky.files import whole_file
from deepsky.progress import track
from deepsky.simulation.archive import SimulatedArchive
from deepsky.simulation.params import CatalogueParams


def draw_all(wanted: Sequence[Wanted], params: CatalogueParams, archive: ArchiveParams, out: Path) -> None:
    """Draw what is not there yet, drop what is no longer wanted, and write the manifest.

    Args:
        wanted: files of the simulated survey.
        params: its parameters.
        archive: what cutouts are like.
        out: gets FOLDERS and manifest.csv; downloads that lie there are set aside.

    Raises:
        ConfigError: something is asked that the simulated survey does not have.
        DataError: an object of another sky; a file cannot be written.
    """
    for key in ("psf_fields", "stsci_fits"):
        if getattr(archive, key):
            raise ConfigError(f"params.yaml: archive.{key}", "is for survey: sdss", "the simulated survey has none")
    try:
        set_aside(out)
        (out / "manifest.csv").unlink(missing_ok=True)  # it must never stand beside files that it does not describe
        for folder in FOLDERS:
            _prepare(out, folder, wanted, params, archive)
    except OSError as error:
        raise _unwritable(error, out) from error
    missing = [each for each in wanted if not (out / each.path).exists()]
    # Workers are processes: drawing and bz2 hold the interpreter's lock.
    done = Parallel(n_jobs=-1, return_as="generator_unordered")(
        delayed(_draw)(each, params, archive, out) for each in missing
    )
    for _ in track(done, "fetch", len(missing)):
        pass
    try:
        write_manifest([_receipt(each, out) for each in wanted], out)
    except OSError as error:
        raise _unwritable(error, out / "manifest.csv") from error


def _draw(wanted: Wanted, params: CatalogueParams, archive: ArchiveParams, out: Path) -> None:
    content = _answer(wanted, params, archive)
    try:
        with whole_file(out / wanted.path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise _unwritable(error, out / wanted.path) from error


def _answer(wanted: Wanted, params: CatalogueParams, archive: ArchiveParams) -> bytes:
    survey = _survey(params)
    if wanted.folder == "frames":
        return survey.frame(*cast(tuple[int, int, int, str], wanted.place))
    ra_deg, dec_deg = cast(tuple[float, float], wanted.place)
    side = archive.cutout_px
    if wanted.folder == "sdss_jpg":
        return survey.sdss_jpeg(ra_deg, dec_deg, scale=archive.sdss_scale_arcsec, width=side, height=side)
    return survey.panstarrs_jpeg(ra_deg, dec_deg, size=side)


@lru_cache(maxsize=1)
def _survey(params: CatalogueParams) -> SimulatedArchive:
    """One survey per worker process: it draws the whole sky when it starts."""
    return SimulatedArchive(params)


def drop_simulated(out: Path) -> None:
    """Take the simulated survey's files away, to make room for real ones."""
    for name in FOLDERS:
        if (out / name / SIMULATED).exists():
            shutil.rmtree(out / name)


def _prepare(out: Path, name: str, wanted: Sequence[Wanted], params: CatalogueParams, archive: ArchiveParams) -> None:
    """Leave in one folder only files that this run would draw to the same bytes."""
    folder = out / name
    drawn_with = asdict(params)
    if name != "frames":
        drawn_with |= {"cutout_px": archive.cutout_px, "sdss_scale_arcsec": archive.sdss_scale_arcsec}
    source = json.dumps(drawn_with, sort_keys=True) + "\n"
    own = {out / each.path: each for each in wanted if each.folder == name}
    if folder.exists() and not _is_current(folder, source, own, params, archive):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):  # files before the folder they are in
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in own and path not in (folder / SIMULATED, folder / LABELS):
            path.unlink()  # another catalogue's file, or the torso of a killed run
    if not (folder / SIMULATED).exists():
        with whole_file(folder / SIMULATED) as temporary:
            temporary.write_text(source)


def _is_current(
    folder: Path, source: str, own: dict[Path, Wanted], params: CatalogueParams, archive: ArchiveParams
) -> bool:
    """Say whether a folder was drawn with these parameters, and by a program that still answers the same.

    The second is tried on the first file that is there: a changed program would else go on from its old files.
    """
    try:
        if (folder / SIMULATED).read_text() != source:
            return False
    except OSError:
        return False
    kept = next((path for path in own if path.exists()), None)
    return kept is None or kept.read_bytes() == _answer(own[kept], params, archive)


def _receipt(wanted: Wanted, out: Path) -> Receipt:
    content = (out / wanted.path).read_bytes()
    return Receipt(wanted.path, f"simulated:{wanted.url}", len(content), hashlib.sha256(content).hexdigest())


def _unwritable(error: OSError, path: Path) -> DataError:
    where = error.filename or path
    return DataError(
        where, f"cannot be written ({error.strerror})", "free the disk or choose a folder you may write to"
    )
