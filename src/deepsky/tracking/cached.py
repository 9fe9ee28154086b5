"""What DVC keeps by hash: the content of a file or folder as it was, whatever stands in the workspace now."""

import configparser
import hashlib
import json
from pathlib import Path

from deepsky.errors import DataError

_FOLDER = ".dir"


class Cache:
    """DVC's cache of a project, read without DVC, which takes seconds to import.

    Attributes:
        folder: where it is.
    """

    def __init__(self, root: Path) -> None:
        """Find the cache.

        Args:
            root: of the project.
        """
        self._root, self.folder = root, _cache_folder(root)

    def file(self, path: str, digest: str) -> Path:
        """Return a file with the content that a path had.

        Args:
            path: from the project's root.
            digest: the MD5 of the content.

        Raises:
            DataError: this content is neither in the cache nor in the workspace.
        """
        cached = self.folder / "files/md5" / digest[:2] / digest[2:]
        if cached.is_file():
            return cached
        here = self._root / path
        if here.is_file() and _md5(here) == digest:
            return here
        raise DataError(
            path,
            f"was {digest}, which is neither here nor in DVC's cache",
            "run dvc fetch --all-commits where a remote has it",
        )

    def listing(self, path: str, digest: str) -> dict[str, str]:
        """Return the MD5 of each file of a folder, by its path below it; of a file its own.

        Args:
            path: from the project's root.
            digest: as dvc.lock has it.

        Raises:
            DataError: the folder's list is not in the cache.
        """
        if not digest.endswith(_FOLDER):
            return {"": digest}
        entries = json.loads(self.file(path, digest).read_text(encoding="utf-8"))
        return {entry["relpath"]: entry["md5"] for entry in entries}

    def inside(self, path: str, digest: str, name: str) -> Path:
        """Return a file with the content that a file of a folder had.

        Raises:
            DataError: the folder had no such file, or its content is not there.
        """
        listing = self.listing(path, digest)
        if name not in listing:
            raise DataError(path, f"had no {name} when its hash was {digest}", "run dvc repro to make it anew")
        return self.file(f"{path}/{name}", listing[name])


def _cache_folder(root: Path) -> Path:
    """Return where the cache is: .dvc/cache, unless the project's configuration says otherwise."""
    config = configparser.ConfigParser()
    config.read([root / ".dvc/config", root / ".dvc/config.local"], encoding="utf-8")
    told = config.get("cache", "dir", fallback="")
    return root / ".dvc" / (told or "cache")  # a relative one counts from .dvc


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
