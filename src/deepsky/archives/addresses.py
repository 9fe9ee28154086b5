"""Where the surveys' services publish a file: its documented URL, and the name it has on disk."""

SDSS_FRAMES = "https://data.sdss.org/sas/dr17/eboss/photoObj/frames/301"
SDSS_CUTOUTS = "https://skyserver.sdss.org/dr17/SkyServerWS/ImgCutout/getjpeg"
PANSTARRS_CUTOUTS = "https://ps1images.stsci.edu/cgi-bin/fitscut.cgi"


def frame_path(run: int, camcol: int, field: int, band: str) -> str:
    """Path of a frame below the folder of all frames; the folder's run is not padded, the file's is."""
    return f"{run}/{camcol}/frame-{band}-{run:06d}-{camcol}-{field:04d}.fits.bz2"


def frame_url(run: int, camcol: int, field: int, band: str) -> str:
    """URL of a frame in SDSS DR17."""
    return f"{SDSS_FRAMES}/{frame_path(run, camcol, field, band)}"


def sdss_jpeg_url(ra_deg: float, dec_deg: float, *, scale: float, width: int, height: int) -> str:
    """URL of an SDSS colour cutout; ``opt`` stays empty, for drawn markers would leak labels."""
    return f"{SDSS_CUTOUTS}?ra={ra_deg}&dec={dec_deg}&scale={scale}&width={width}&height={height}&opt="


def panstarrs_jpeg_url(ra_deg: float, dec_deg: float, *, size: int, red: str, green: str, blue: str) -> str:
    """URL of a Pan-STARRS colour cutout; red, green and blue name the stacks."""
    return f"{PANSTARRS_CUTOUTS}?ra={ra_deg}&dec={dec_deg}&size={size}&format=jpg&red={red}&green={green}&blue={blue}"
