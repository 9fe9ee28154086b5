"""What params.yaml says of the archives. Light: it is read before anything heavy is imported."""

from dataclasses import dataclass
from typing import Literal

from deepsky.archives.addresses import PANSTARRS_FILTERS, SDSS_BANDS, QueryRelease, Release


@dataclass(frozen=True)
class ArchiveParams:
    """Section ``archive`` of params.yaml: what to fetch of each object.

    Attributes:
        release: of SDSS, for whatever has none of its own.
        query_release: of what ``deepsky query`` asks; None: ``release``.
        frames_release: of frames and point-spread functions; None: ``release``.
        cutouts_release: of SDSS colour cutouts; None: ``release``.
        bands: of the frames; none leaves frames out.
        psf_fields: whether to fetch each field's point-spread functions as well.
        sdss_jpg: whether to fetch SDSS colour cutouts.
        stsci_jpg: whether to fetch Pan-STARRS colour cutouts.
        stsci_fits: the filters of Pan-STARRS FITS cutouts.
        cutout_px: side of every cutout, the services' pixels.
        sdss_scale_arcsec: arcsec per pixel of SDSS cutouts (Pan-STARRS' are 0.25).
        missing: what to do when an archive has no such file: ``skip`` leaves the object out of that dataset.
    """

    release: Release = "dr17"
    query_release: QueryRelease | None = None
    frames_release: Release | None = None
    cutouts_release: Release | None = None
    bands: tuple[str, ...] = SDSS_BANDS
    psf_fields: bool = False
    sdss_jpg: bool = True
    stsci_jpg: bool = True
    stsci_fits: tuple[str, ...] = ()
    cutout_px: int = 240
    sdss_scale_arcsec: float = 0.4
    missing: Literal["skip", "stop"] = "skip"

    def __post_init__(self) -> None:
        for key, known in (("bands", SDSS_BANDS), ("stsci_fits", PANSTARRS_FILTERS)):
            names = getattr(self, key)
            unknown = [name for name in names if name not in known]
            if unknown:
                raise ValueError(f"{key}: band {unknown[0]!r} is unknown, the survey has {', '.join(known)}")
            if len(set(names)) < len(names):
                raise ValueError(f"{key} names a band twice")
        if not 10 <= self.cutout_px <= 2048:
            raise ValueError(f"cutout_px is {self.cutout_px}, but the services draw 10..2048 px")
        if not 0.01 <= self.sdss_scale_arcsec <= 60:
            raise ValueError(f"sdss_scale_arcsec is {self.sdss_scale_arcsec}, but must be 0.01..60")

    @property
    def of_query(self) -> QueryRelease:
        """Return the release that is queried."""
        return self.query_release or self.release

    @property
    def of_frames(self) -> Release:
        """Return the release of frames and point-spread functions."""
        return self.frames_release or self.release

    @property
    def of_cutouts(self) -> Release:
        """Return the release of SDSS colour cutouts."""
        return self.cutouts_release or self.release


@dataclass(frozen=True)
class DownloadParams:
    """Section ``download`` of params.yaml: how archives are asked; changes no result.

    Attributes:
        mirror: base URL in place of every host (http, https, or file:///folder laid out as the services' paths).
        connections: side by side, per host.
        requests_per_s: per host; None: as fast as it answers.
        timeout_s: seconds without a byte after which a server counts as gone.
        tries: per file.
        contact: e-mail address for the User-Agent.
    """

    mirror: str | None = None
    connections: int = 4
    requests_per_s: float | None = 5.0
    timeout_s: float = 60.0
    tries: int = 5
    contact: str | None = None

    def __post_init__(self) -> None:
        if self.mirror is not None and not self.mirror.startswith(("http://", "https://", "file:///")):
            raise ValueError(f"mirror is {self.mirror!r}, but must begin with https://, http:// or file:///")
        if not 1 <= self.connections <= 16:
            raise ValueError(f"connections is {self.connections}, but must be 1..16")
        if self.requests_per_s is not None and not 0 < self.requests_per_s <= 1000:
            raise ValueError(f"requests_per_s is {self.requests_per_s}, but must be null or above 0, at most 1000")
        if not 0 < self.timeout_s <= 3600:
            raise ValueError(f"timeout_s is {self.timeout_s}, but must be above 0, at most 3600")
        if not 1 <= self.tries <= 100:
            raise ValueError(f"tries is {self.tries}, but must be 1..100")
        if self.contact is not None and ("@" not in self.contact or not self.contact.isascii() or " " in self.contact):
            raise ValueError(f"contact is {self.contact!r}, but must be an e-mail address")
