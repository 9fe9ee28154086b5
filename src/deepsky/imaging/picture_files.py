"""Pictures in a folder or a zip, read alike."""

import threading
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from deepsky.errors import DataError
from deepsky.imaging.pictures import Picture, decode_picture, is_picture, pictures_in, read_picture

_AGAIN = "fetch the zip again"
# The zip that each thread reads, open, and by what it is known: one handle has one place to read at.
_own = threading.local()


class PictureFiles:
    """The pictures of one folder (at any depth) or zip; nothing is ever unpacked.

    Attributes:
        place: the folder or zip.
        names: of the pictures, relative to ``place``, with ``/``, sorted.
    """

    def __init__(self, place: Path) -> None:
        """List the pictures.

        Args:
            place: a folder, or a file, which must be a zip.

        Raises:
            DataError: the file is not a zip.
        """
        self.place, self._is_zip = place, place.is_file()
        if self._is_zip:
            with self._open_zip() as archive:
                found = [name for name in archive.namelist() if is_picture(PurePosixPath(name)) and name[-1] != "/"]
        else:
            found = [path.relative_to(place).as_posix() for path in pictures_in(place)]
        self.names = sorted(found)

    def by_stem(self, wanted: Collection[str]) -> dict[str, str]:
        """Find the picture of each id by its name without the suffix.

        Args:
            wanted: ids; those that have no picture are left out of the answer.

        Raises:
            DataError: two pictures for one id.
        """
        found: dict[str, str] = {}
        wanted = frozenset(wanted)
        for name in self.names:
            stem = PurePosixPath(name).stem
            if stem in wanted and found.setdefault(stem, name) != name:
                problem = f"is a second image of id {stem}, beside {self.place / found[stem]}"
                raise DataError(self.place / name, problem, "keep one")
        return found

    def read(self, name: str) -> Picture:
        """Decode one picture; from any thread.

        Raises:
            DataError: as ``read_picture``; or the zip's member is broken, encrypted or packed in an unknown way.
        """
        if not self._is_zip:
            return read_picture(self.place / name)
        try:
            content = self._threads_zip().read(name)
        except (OSError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(self.place / name, f"cannot be read ({error})", _AGAIN) from error
        return decode_picture(self.place / name, content)

    def __getstate__(self) -> dict[str, object]:
        """Travel to a worker, which reads by name: without the list of names."""
        return {**self.__dict__, "names": []}

    def _threads_zip(self) -> zipfile.ZipFile:
        """Open the zip once per thread, whatever objects stand for it, and anew when it is another file."""
        stat = self.place.stat()
        known = (self.place.absolute(), stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if getattr(_own, "known", None) != known:
            _own.archive, _own.known = self._open_zip(), known
        archive: zipfile.ZipFile = _own.archive
        return archive

    def _open_zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.place)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(self.place, f"is not a whole zip ({error})", _AGAIN) from error
