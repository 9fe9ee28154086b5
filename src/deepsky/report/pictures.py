"""The small pictures of a page: each stands in it once, however many runs show it."""

import base64
from collections.abc import Iterable

from deepsky.evaluation.album import Album


class Pictures:
    """Numbers of the distinct pictures of some albums."""

    def __init__(self, albums: Iterable[Album]) -> None:
        """Give each a number, in order."""
        every = (jpeg for album in albums for jpeg in album.pictures.values())
        self._numbers = {jpeg: number for number, jpeg in enumerate(dict.fromkeys(every))}

    def number(self, album: Album, picture: int) -> int:
        """Return the number of a picture of an album."""
        return self._numbers[album.pictures[picture]]

    @property
    def style(self) -> str:
        """Return the style sheet that holds them: the class ``pN`` shows picture N."""
        return "\n".join(
            f".p{number}{{background-image:url(data:image/jpeg;base64,{base64.b64encode(jpeg).decode()})}}"
            for jpeg, number in self._numbers.items()
        )
