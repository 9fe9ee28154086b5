"""Where a person can look at a place on the sky: pages of the surveys, which nothing here opens."""


def sdss_navigate_url(ra_deg: float, dec_deg: float) -> str:
    """Return the address of SDSS' page of the sky around a position."""
    return f"https://skyserver.sdss.org/dr17/VisualTools/navi?ra={ra_deg:.6f}&dec={dec_deg:.6f}&scale=0.2"


def legacy_viewer_url(ra_deg: float, dec_deg: float) -> str:
    """Return the address of the Legacy Surveys' viewer around a position, which is marked."""
    place = f"ra={ra_deg:.6f}&dec={dec_deg:.6f}&mark={ra_deg:.6f},{dec_deg:.6f}"
    return f"https://www.legacysurvey.org/viewer?{place}&layer=ls-dr10&zoom=16"
