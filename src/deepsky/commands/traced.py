"""The raw files that a run's data came from, and which objects of which split came from each."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from deepsky.archives.manifest import MANIFEST, Receipt, read_receipts
from deepsky.config import build
from deepsky.errors import DataError
from deepsky.imaging.frame_names import identify_by_name, is_frame
from deepsky.imaging.params import Reading
from deepsky.tracking.cached import Cache

_RAW = "data/raw"
_READS_RAW = ("render", "pack")  # stages


@dataclass(frozen=True)
class RawFile:
    """One file.

    Attributes:
        path: from the project's root.
        digest: SHA-256 where an archive's manifest has it, else MD5, which DVC has.
        bytes: its size; None where only its hash is known.
        url: where it came from; empty where it is a person's own.
        objects: id and split of those that came from it.
    """

    path: str
    digest: str
    bytes: int | None
    url: str
    objects: tuple[tuple[str, str], ...] = ()

    def counts(self) -> dict[str, int]:
        """Return how many objects of each split came from it."""
        return dict(Counter(split for _, split in self.objects))


@dataclass(frozen=True)
class RawFiles:
    """What a stage read that no other stage but fetch or simulate wrote.

    Attributes:
        path: of the folder or file.
        digest: its hash, as the run recorded it.
        files: what was in it.
        problem: why that cannot be told; empty where it can.
    """

    path: str
    digest: str
    files: tuple[RawFile, ...]
    problem: str = ""


@dataclass(frozen=True)
class Traced:
    """What a run learned from.

    Attributes:
        dataset: its name.
        recorded: what the run recorded of its origin, see ``Lineage.as_json``.
        cache: the project's.
    """

    dataset: str
    recorded: Mapping[str, Any]
    cache: Cache

    def rows(self) -> Iterator[dict[str, str]]:
        """Yield the dataset's rows, a mapping by column each, with the split of each.

        Raises:
            DataError: they are no longer there.
        """
        packed, split = f"data/packed/{self.dataset}", f"data/splits/{self.dataset}.csv"
        data = self.recorded["data"]
        for path in (packed, split):
            if path not in data:
                raise DataError(path, "is not among what the run recorded", "give a run that dvc repro trained")
        rows, file = self.cache.inside(packed, data[packed], "rows.csv"), self.cache.file(split, data[split])
        parts = {row["id"]: row["split"] for row in _read(file)}
        for row in _read(rows):
            row["split"] = parts.get(row["id"], "none")
            yield row

    @cached_property
    def raw(self) -> list[RawFiles]:
        """Return the raw files, by what stage render or pack read."""
        made_by = self.recorded["made_by"]
        read = {
            path: digest
            for stage, entry in made_by.items()
            if stage.partition("@")[0] in _READS_RAW
            for path, digest in entry["deps"].items()
        }
        made = {path: digest for entry in made_by.values() for path, digest in entry["outs"].items()}
        return [self._below(path, digest, made) for path, digest in sorted(read.items())]

    def row_of(self, identity: str) -> dict[str, str]:
        """Return an object's row, with its split.

        Raises:
            DataError: the dataset has no such object.
        """
        found = next((row for row in self.rows() if row["id"] == identity), None)
        if found is None:
            raise DataError(identity, f"is no object of {self.dataset}", "give the id as data/packed's rows.csv has it")
        return found

    def files_of(self, identity: str) -> list[RawFile]:
        """Return the raw files that an object came from."""
        return [one for raw in self.raw for one in raw.files if any(name == identity for name, _ in one.objects)]

    def as_json(self) -> list[dict[str, Any]]:
        """Return the raw files as plain values."""
        return [asdict(one) for one in self.raw]

    def _below(self, path: str, digest: str, made: Mapping[str, str]) -> RawFiles:
        try:
            listing = self.cache.listing(path, digest)
            receipts = self._receipts(path, made)
            objects = self._objects_of(listing)
        except DataError as error:
            return RawFiles(path, digest, (), str(error))
        files = []
        for name, md5 in listing.items():
            place = f"{path}/{name}" if name else path
            receipt = receipts.get(place.removeprefix(f"{_RAW}/"))
            of = objects.get(name, ())
            if receipt is None:
                files.append(RawFile(place, md5, None, "", of))
            else:
                files.append(RawFile(place, receipt.sha256, receipt.bytes, receipt.url, of))
        return RawFiles(path, digest, tuple(files))

    def _receipts(self, path: str, made: Mapping[str, str]) -> Mapping[str, Receipt]:
        """Return the manifest's lines, where the folder is of an archive."""
        manifest = f"{_RAW}/{MANIFEST}"
        if manifest not in made or PurePosixPath(path).parent != PurePosixPath(_RAW):
            return {}
        return read_receipts(self.cache.file(manifest, made[manifest]))

    @cached_property
    def _objects(self) -> tuple[Mapping[str, tuple[str, str]], Mapping[str, Sequence[tuple[str, str]]]]:
        """Return id and split of each object by its id, and of those of each group."""
        by_id, of_group = dict[str, tuple[str, str]](), dict[str, list[tuple[str, str]]]()
        for row in self.rows():
            pair = by_id[row["id"]] = (row["id"], row["split"])
            of_group.setdefault(row["group"], []).append(pair)
        return by_id, of_group

    def _objects_of(self, names: Iterable[str]) -> dict[str, tuple[tuple[str, str], ...]]:
        """Return the objects that came from each file: of a frame those of its field, of a picture the one of its name.

        A file that holds a whole dataset names none of them.
        """
        by_id, of_field = self._objects
        reading, found = self.reading, dict[str, tuple[tuple[str, str], ...]]()
        for name in names:
            path = Path(name)
            known = identify_by_name(path, reading) if reading and is_frame(path) else None
            if known is not None:
                found[name] = tuple(of_field.get(known.field, ()))
            elif path.stem in by_id:
                found[name] = (by_id[path.stem],)
        return found

    @property
    def reading(self) -> Reading | None:
        """Return how stage render understood its frames; None where the dataset is of pictures."""
        for stage, entry in self.recorded["made_by"].items():
            if stage.partition("@")[0] == "render":
                settings, names = entry["settings"], {one.name for one in fields(Reading)}
                reading: Reading = build({k: v for k, v in settings.items() if k in names}, Reading, stage)
                return reading
        return None


def _read(path: Path) -> Iterator[dict[str, str]]:
    """Yield the lines of a table; pandas takes longer to import than this to read, and all at once cost more memory."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        for line in filter(None, lines):  # blank ones are none
            if len(line) != len(header):
                problem = f"line {lines.line_num} has {len(line)} columns, the first {len(header)}"
                raise DataError(path, problem, "run dvc repro to write it again")
            yield dict(zip(header, line, strict=True))
