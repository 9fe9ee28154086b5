"""What DVC keeps by hash: the content of a file or folder as it was, whatever stands in the workspace now."""

import hashlib
import json
import os
import re
from pathlib import Path

import platformdirs
from configobj import ConfigObj, ConfigObjError

from deepsky.errors import DataError

_FOLDER = ".dir"
_DVC = ("dvc", "iterative")  # as DVC names itself to platformdirs


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


def read_config(path: Path) -> ConfigObj:
    """Read one of DVC's configuration files, by what DVC reads it with; a file that is not there is empty.

    Returns:
        Its sections, all names in lower case, as DVC takes them.

    Raises:
        DataError: it is none, or cannot be read.
    """
    try:
        found = ConfigObj(str(path), encoding="utf-8", interpolation=False)
    except (ConfigObjError, UnicodeDecodeError, OSError) as error:
        raise DataError(path, f"is no configuration of DVC ({error})", "mend it") from error
    found.walk(lambda section, key: section.rename(key, key.lower()), call_on_sections=True)
    return found


def resolved(path: Path, value: str) -> str:
    """Return a path or URL that stands in one of DVC's configuration files: a relative path counts from its folder."""
    return value if re.match(r"\w+://", value) else str((path.parent / Path(value).expanduser()).resolve())


def _cache_folder(root: Path) -> Path:
    """Return where the cache is: .dvc/cache, unless one of the files that DVC reads says otherwise, the last one."""
    system = os.getenv("DVC_SYSTEM_CONFIG_DIR") or platformdirs.site_config_dir(*_DVC)
    person = os.getenv("DVC_GLOBAL_CONFIG_DIR") or platformdirs.user_config_dir(*_DVC)
    found = root / ".dvc/cache"
    for path in (Path(system, "config"), Path(person, "config"), root / ".dvc/config", root / ".dvc/config.local"):
        section = read_config(path).get("cache", {})
        told = section.get("dir", "") if isinstance(section, dict) else section
        if not isinstance(told, str) or told is section:
            raise DataError(path, f"says cache.dir = {told!r}, which is no folder", "run dvc config cache.dir FOLDER")
        found = Path(resolved(path, told)) if told else found
    return found


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
