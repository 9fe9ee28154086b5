"""Where the surveys' services publish a file: its documented URL, and the name it has on disk."""

from typing import Literal, get_args

SDSS_BANDS = ("u", "g", "r", "i", "z")
PANSTARRS_FILTERS = ("y", "z", "i", "r", "g")  # from red to blue: a colour picture takes first, middle and last
Release = Literal["dr12", "dr13", "dr14", "dr15", "dr16", "dr17", "dr18"]
RELEASES: tuple[Release, ...] = get_args(Release)
QueryRelease = Literal["dr9", "dr10", Release]  # of these two the cutout service has, or had, other addresses
QUERY_RELEASES: tuple[QueryRelease, ...] = get_args(QueryRelease)

FOLDERS = ("frames", "sdss_jpg", "stsci_jpg", "stsci_fits")  # of raw files: one for each service

SDSS_DATA = "https://data.sdss.org"
SKYSERVER = "https://skyserver.sdss.org"
PANSTARRS = "https://ps1images.stsci.edu"
PANSTARRS_LISTS = f"{PANSTARRS}/cgi-bin/ps1filenames.py"
PANSTARRS_CUTOUTS = f"{PANSTARRS}/cgi-bin/fitscut.cgi"


def frame_path(run: int, camcol: int, field: int, band: str) -> str:
    """Path of a frame below the folder of all frames; the folder's run is not padded, the file's is."""
    return f"{run}/{camcol}/frame-{band}-{run:06d}-{camcol}-{field:04d}.fits.bz2"


def psfield_path(run: int, camcol: int, field: int) -> str:
    """Path of a field's point-spread functions below the folder of all frames, beside the field's frames."""
    return f"{run}/{camcol}/psField-{run:06d}-{camcol}-{field:04d}.fit"


def frame_url(release: Release, rerun: int, run: int, camcol: int, field: int, band: str) -> str:
    """URL of a frame (datamodel: ``frame``)."""
    return f"{_tree(release)}/photoObj/frames/{rerun}/{frame_path(run, camcol, field, band)}"


def psfield_url(release: Release, rerun: int, run: int, camcol: int, field: int) -> str:
    """URL of a field's point-spread functions (datamodel: ``psField``)."""
    name = f"psField-{run:06d}-{camcol}-{field:04d}.fit"
    return f"{_tree(release)}/photo/redux/{rerun}/{run}/objcs/{camcol}/{name}"


def sql_url(release: QueryRelease) -> str:
    """URL of the SQL service; takes ``cmd`` and ``format``."""
    page = {"dr9": "en/tools/search/x_sql.asp", "dr10": "en/tools/search/x_sql.aspx"}
    return f"{SKYSERVER}/{release}/{page.get(release, 'SkyServerWS/SearchTools/SqlSearch')}"


def sdss_jpeg_url(release: Release, ra_deg: float, dec_deg: float, *, scale: float, width: int, height: int) -> str:
    """URL of an SDSS colour cutout; ``opt`` stays empty, for drawn markers would leak labels."""
    service = f"{SKYSERVER}/{release}/SkyServerWS/ImgCutout/getjpeg"
    return f"{service}?ra={ra_deg}&dec={dec_deg}&scale={scale}&width={width}&height={height}&opt="


def panstarrs_jpeg_url(ra_deg: float, dec_deg: float, *, size: int, red: str, green: str, blue: str) -> str:
    """URL of a Pan-STARRS colour cutout; red, green and blue name the stacks."""
    return f"{PANSTARRS_CUTOUTS}?ra={ra_deg}&dec={dec_deg}&size={size}&format=jpg&red={red}&green={green}&blue={blue}"


def panstarrs_fits_url(ra_deg: float, dec_deg: float, *, size: int, stack: str) -> str:
    """URL of a Pan-STARRS cutout of one stack, FITS."""
    return f"{PANSTARRS_CUTOUTS}?ra={ra_deg}&dec={dec_deg}&size={size}&format=fits&red={stack}"


def _tree(release: Release) -> str:
    """Folder of a release's imaging: it moved twice."""
    number = int(release.removeprefix("dr"))
    owner = "boss" if number <= 12 else "eboss" if number <= 17 else "prior-surveys/sdss4-dr17-eboss"
    return f"{SDSS_DATA}/sas/{release}/{owner}"
