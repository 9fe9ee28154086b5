"""Which files a catalogue's objects need: each distinct field's frames once, and each object's cutouts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from deepsky.archives.addresses import (
    PANSTARRS_FILTERS,
    PANSTARRS_LISTS,
    frame_path,
    frame_url,
    panstarrs_fits_url,
    panstarrs_jpeg_url,
    psfield_path,
    psfield_url,
    sdss_jpeg_url,
)
from deepsky.archives.manifest import Absent
from deepsky.archives.params import ArchiveParams

_FIELD = ("run", "rerun", "camcol", "field")
Kind = Literal["frame", "psfield", "jpeg", "fits_cutout"]
Stacks = Mapping[str, str]  # filter -> the service's file name of the stack that covers a place


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file to fetch.

    Attributes:
        path: where to, below the folder of raw files; its first part is one of FOLDERS.
        url: where from, in the service's documented form.
        kind: what the content must be.
        place: run, camcol, field and band of a frame (band "" of a psField); ra and dec in degrees of a cutout.
    """

    path: str
    url: str
    kind: Kind
    place: tuple[int, int, int, str] | tuple[float, float]

    @property
    def folder(self) -> str:
        """Which of FOLDERS, and so which service."""
        return self.path.partition("/")[0]


def needed_columns(params: ArchiveParams) -> tuple[str, ...]:
    """Name the numbers that must be known of an object: its place, and of frames its field as well."""
    of_fields = params.bands or params.psf_fields
    return ("ra", "dec", *(_FIELD if of_fields else ()))


def wanted_filters(params: ArchiveParams) -> tuple[str, ...]:
    """Name the Pan-STARRS filters whose stacks must be known; a colour picture takes three of those that there are."""
    return PANSTARRS_FILTERS if params.stsci_jpg else params.stsci_fits


def wanted_files(
    objects: pd.DataFrame, stacks: Mapping[str, Stacks], params: ArchiveParams
) -> tuple[list[Wanted], list[Absent]]:
    """List all files of some objects; see ``sdss_files`` and ``panstarrs_files``.

    Returns:
        The files that can be had, and those that no stack covers.
    """
    found, absent = panstarrs_files(objects, stacks, params)
    return [*sdss_files(objects, params), *found], absent


def sdss_files(objects: pd.DataFrame, params: ArchiveParams) -> list[Wanted]:
    """List the SDSS files of some objects.

    Args:
        objects: id (str) and what ``needed_columns`` says (degrees); one row per object.
        params: what is wanted.
    """
    return [*_field_files(objects, params), *_sdss_cutouts(objects, params)]


def _field_files(objects: pd.DataFrame, params: ArchiveParams) -> list[Wanted]:
    wanted = list[Wanted]()
    if not params.bands and not params.psf_fields:
        return wanted
    fields = objects[list(_FIELD)].drop_duplicates().sort_values(["run", "camcol", "field"])
    for run, rerun, camcol, field in fields.to_numpy(int).tolist():
        for band in params.bands:
            url = frame_url(params.of_frames, rerun, run, camcol, field, band)
            place = (run, camcol, field, band)
            wanted.append(Wanted(f"frames/{frame_path(*place)}", url, "frame", place))
        if params.psf_fields:
            url = psfield_url(params.of_frames, rerun, run, camcol, field)
            path = f"frames/{psfield_path(run, camcol, field)}"
            wanted.append(Wanted(path, url, "psfield", (run, camcol, field, "")))
    return wanted


def _sdss_cutouts(objects: pd.DataFrame, params: ArchiveParams) -> list[Wanted]:
    wanted, scale, side = list[Wanted](), params.sdss_scale_arcsec, params.cutout_px
    if params.sdss_jpg:
        for name, *place_deg in objects[["id", "ra", "dec"]].itertuples(index=False):
            ra_deg, dec_deg = map(float, place_deg)
            url = sdss_jpeg_url(params.of_cutouts, ra_deg, dec_deg, scale=scale, width=side, height=side)
            wanted.append(Wanted(f"sdss_jpg/{name}.jpg", url, "jpeg", (ra_deg, dec_deg)))
    return wanted


def panstarrs_files(
    objects: pd.DataFrame, stacks: Mapping[str, Stacks], params: ArchiveParams
) -> tuple[list[Wanted], list[Absent]]:
    """List the Pan-STARRS files of some objects.

    Args:
        objects: id (str), ra, dec (degrees); one row per object.
        stacks: of each object that the survey covers, by id: the stacks' file names by filter.
        params: what is wanted.

    Returns:
        The files that can be had, and those that no stack covers; a colour picture needs three filters.
    """
    wanted, absent, side = list[Wanted](), list[Absent](), params.cutout_px
    for name, *place_deg in objects[["id", "ra", "dec"]].itertuples(index=False):
        ra_deg, dec_deg = place = (float(place_deg[0]), float(place_deg[1]))
        own = stacks.get(name, {})
        names = [own[filter_] for filter_ in PANSTARRS_FILTERS if filter_ in own]
        path = f"stsci_jpg/{name}.jpg"
        if params.stsci_jpg and len(names) < 3:
            absent.append(Absent(path, PANSTARRS_LISTS, "no stack covers it in three filters"))
        elif params.stsci_jpg:
            red, green, blue = names[0], names[len(names) // 2], names[-1]
            url = panstarrs_jpeg_url(ra_deg, dec_deg, size=side, red=red, green=green, blue=blue)
            wanted.append(Wanted(path, url, "jpeg", place))
        for filter_ in params.stsci_fits:
            path = f"stsci_fits/{name}-{filter_}.fits"
            if filter_ not in own:
                absent.append(Absent(path, PANSTARRS_LISTS, f"no stack covers it in {filter_}"))
            else:
                url = panstarrs_fits_url(ra_deg, dec_deg, size=side, stack=own[filter_])
                wanted.append(Wanted(path, url, "fits_cutout", place))
    return wanted, absent
