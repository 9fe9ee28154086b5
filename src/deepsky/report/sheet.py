"""A sheet of objects with the answers to them: one HTML file, in the report page's style."""

from deepsky.evaluation.album import Album
from deepsky.report.pictures import Pictures
from deepsky.report.words import make_environment


def render_sheet(title: str, album: Album) -> str:
    """Return the sheet's HTML.

    Args:
        title: its heading.
        album: what it shows.
    """
    template = make_environment().get_template("sheet.html.jinja")
    return template.render(title=title, album=album, pictures=Pictures([album]))
