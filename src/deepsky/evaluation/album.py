"""Examples of a run with their small pictures, as one JSON file that a page is made of."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deepsky.errors import DataError
from deepsky.evaluation.examples import Example, Group, examples_of
from deepsky.evaluation.pictured import Pictured
from deepsky.evaluation.tiles import small_jpeg


@dataclass(frozen=True)
class Album:
    """What is shown of a run.

    Attributes:
        groups: the objects.
        pictures: place of an image in its dataset -> JPEG.
    """

    groups: Sequence[Group]
    pictures: Mapping[int, bytes]


def make_album(run: Pictured, groups: Sequence[Group]) -> Album:
    """Return the groups with the picture of each object, once."""
    rows = {one.picture: one.row for one in examples_of(groups)}
    return Album(groups, {place: small_jpeg(run.picture(row)) for place, row in sorted(rows.items())})


def album_json(album: Album) -> dict[str, Any]:
    """Return plain values; pictures in base64."""
    pictures = {str(place): base64.b64encode(jpeg).decode() for place, jpeg in album.pictures.items()}
    return {"groups": [asdict(group) for group in album.groups], "pictures": pictures}


def read_album(path: Path) -> Album:
    """Read what ``album_json`` made.

    Raises:
        DataError: the file is missing or malformed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pictures = {int(place): base64.b64decode(text, validate=True) for place, text in content["pictures"].items()}
        album = Album([_group(**group) for group in content["groups"]], pictures)
        for one in examples_of(album.groups):
            pictures[one.picture]  # a KeyError tells of one that is missing
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(path, f"cannot be read ({error})", "run dvc repro to evaluate again") from error
    return album


def _group(examples: Sequence[Any], beside: Sequence[Any], **rest: Any) -> Group:
    return Group(examples=[_example(**one) for one in examples], beside=[_example(**one) for one in beside], **rest)


def _example(caption: Sequence[str], **rest: Any) -> Example:
    return Example(caption=tuple(caption), **rest)
