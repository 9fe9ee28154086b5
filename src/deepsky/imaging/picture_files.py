"""Pictures in a folder or a zip, read alike."""

import threading
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from math import nan
from pathlib import Path, PurePosixPath

from deepsky.errors import DataError
from deepsky.imaging.pictures import Picture, decode_picture, file_content, is_picture, pictures_in

_AGAIN = "fetch the zip again"
# A member that is larger than pictures are, or that was packed to so small a part of itself, is there to fill memory.
_LARGEST_BYTES, _BLANK_BYTES, _LARGEST_RATIO = 1 << 29, 1 << 24, 200
# The zip that each thread reads, open, and by what it is known: one handle has one place to read at.
_own = threading.local()


class PictureFiles:
    """The pictures of one folder (at any depth) or zip; nothing is ever unpacked, and nothing hidden is taken.

    Attributes:
        place: the folder or zip.
        names: of the pictures, relative to ``place``, with ``/``, sorted.
    """

    def __init__(self, place: Path) -> None:
        """List the pictures.

        Args:
            place: a folder, or a file, which must be a zip.

        Raises:
            DataError: there is no such place, the file is not a zip, a member leads out of it, or two have one name.
        """
        self.place, self._is_zip = place, place.is_file()
        if self._is_zip:
            with self._open_zip() as archive:
                found = list(self._members(archive))
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
            first = found.setdefault(stem, name) if stem in wanted else name
            if first != name and not self._is_same(first, name):
                problem = f"is a second image of id {stem}, beside {self.place / first}"
                raise DataError(self.place / name, problem, "keep one")
        return found

    def drop_repeated(self) -> None:
        """Keep one name of each picture that links lead to as well; of a copy they would make two."""
        if not self._is_zip:
            self.names = sorted({(self.place / name).resolve(): name for name in reversed(self.names)}.values())

    def read(self, name: str) -> Picture:
        """Decode one picture; from any thread.

        Raises:
            DataError: as ``read_picture``; or the zip's member is broken, encrypted or packed in an unknown way.
        """
        return decode_picture(self.place / name, self.read_bytes(name))

    def read_bytes(self, name: str) -> bytes:
        """Read the file of one picture; from any thread.

        Raises:
            DataError: as ``read``.
        """
        if not self._is_zip:
            return file_content(self.place / name)
        archive, members = self._threads_zip()
        try:
            member = members[name]
            n_bytes, n_packed = member.file_size, member.compress_size
            if n_bytes > min(_LARGEST_BYTES, max(_BLANK_BYTES, _LARGEST_RATIO * n_packed)):
                problem = f"would unpack from {n_packed:,} to {n_bytes:,} bytes"
                raise DataError(self.place / name, problem, "take it out: it is no picture but a zip bomb")
            return archive.read(member)
        except (OSError, KeyError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(self.place / name, f"cannot be read ({error})", _AGAIN) from error

    def n_bytes(self, names: Sequence[str]) -> list[float]:
        """Return the size of each picture's file (of a zip: unpacked); NaN where it cannot be read."""
        if not self._is_zip:
            return [_size_of(self.place / name) for name in names]
        members = self._threads_zip()[1]
        return [float(members[name].file_size) for name in names]

    def __getstate__(self) -> dict[str, object]:
        """Travel to a worker, which reads by name: without the list of names."""
        return {**self.__dict__, "names": []}

    def _is_same(self, first: str, second: str) -> bool:
        """Tell one file that is reached by two ways: links are followed."""
        return not self._is_zip and (self.place / first).samefile(self.place / second)

    def _members(self, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
        """Find the pictures of a zip by name; some programs write Windows' separators."""
        members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            name = member.filename.replace("\\", "/")
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise DataError(self.place, f"holds {name}, which leads out of it", "pack the pictures again")
            if not is_picture(path) or name.endswith("/"):
                continue
            if name in members:
                raise DataError(self.place, f"holds two members named {name}", "pack it again, with one of them")
            members[name] = member
        return members

    def _threads_zip(self) -> tuple[zipfile.ZipFile, Mapping[str, zipfile.ZipInfo]]:
        """Open the zip once per thread, whatever objects stand for it, and anew when it is another file."""
        stat = self.place.stat()
        known = (self.place.absolute(), stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if getattr(_own, "known", None) != known:
            archive = self._open_zip()
            _own.opened, _own.known = (archive, self._members(archive)), known
        opened: tuple[zipfile.ZipFile, Mapping[str, zipfile.ZipInfo]] = _own.opened
        return opened

    def _open_zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.place)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(self.place, f"is not a whole zip ({error})", _AGAIN) from error


def _size_of(path: Path) -> float:
    try:
        return float(path.stat().st_size)
    except OSError:  # it is told when it is read
        return nan
