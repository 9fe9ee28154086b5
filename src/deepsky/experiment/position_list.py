"""What params.yaml must be like where the objects are a list of positions, of which no more than a class is known."""

from collections.abc import Collection, Iterable, Mapping

from deepsky.archives.params import ArchiveParams
from deepsky.config import PARAMS, Problems
from deepsky.formats.params import FramesParams, PicturesParams

Entry = FramesParams | PicturesParams  # of section datasets
_WHY = "and a list of positions (catalogue.survey) names no fields"


def check_list(archive: ArchiveParams, of_frames: Collection[str], entries: Mapping[str, Entry]) -> None:
    """Refuse whatever wants SDSS fields.

    Args:
        archive: what is to be fetched.
        of_frames: names of the entries that are made of frames.
        entries: all that are made from what is fetched, by name.

    Raises:
        ConfigError: a line for each.
    """
    problems = Problems()
    for key, none in (("bands", "[]"), ("psf_fields", "false")):
        if getattr(archive, key):
            problems.add(f"{PARAMS}: archive.{key}", f"asks for files of SDSS fields, {_WHY}", f"write {none}")
    for name, entry in entries.items():
        place = f"{PARAMS}: datasets.{'frames' if isinstance(entry, FramesParams) else 'pictures'}.{name}"
        if name in of_frames:
            problems.add(place, f"is made of frames of SDSS fields, {_WHY}", f"take it out: deepsky drop {name}")
        elif entry.group_by in ("field", "objid"):
            problems.add(f"{place}.group_by", f"is {entry.group_by}, {_WHY}", "write neighbours or sky")
    problems.stop()


def listed_classes(entries: Iterable[Entry]) -> list[str]:
    """Return the classes that all of these datasets know: what another one is, is told before anything is fetched."""
    known = [set(entry.classes) for entry in entries]
    return sorted(set.intersection(*known)) if known else []
