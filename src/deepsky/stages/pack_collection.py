"""Stage pack_collection: a published dataset, in its own layout, becomes one packed dataset."""

from pathlib import Path

from deepsky.errors import ConfigError
from deepsky.formats.collection import Collection, CollectionParams
from deepsky.formats.packing import pack_objects, picture_card
from deepsky.formats.registry import COLLECTIONS
from deepsky.imaging.badfiles import BadFiles, OnBadFile


def run(name: str, params: CollectionParams, on_bad_file: OnBadFile, *, source: Path, out: Path) -> None:
    """Pack what a collection's source holds.

    Args:
        name: of the dataset.
        params: the entry of ``collections``.
        on_bad_file: ``stop`` at the first absent or bad image, or ``skip`` and list them.
        source: the file or folder in its published layout.
        out: the packed dataset to write.

    Raises:
        DataError: a source that cannot be used; an absent or bad image under ``stop``; only one class, or nothing, is
            left.
        ConfigError: an unknown format, a target that it does not have, or a crop larger than all of its images.
    """
    collection, bad = choose(name, params), BadFiles(on_bad_file)
    objects = collection.read(source, params)
    card = picture_card(
        objects,
        params.preparation,
        gray=collection.gray,
        target=params.target,
        mirrored=collection.mirrored,
        refused=collection.refused,
    )
    pack_objects(name, objects, card, params.preparation.shape_px, bad, source=source, out=out)


def choose(name: str, params: CollectionParams) -> Collection:
    """Find the format of an entry of ``collections``, and check that it has what the entry asks of it.

    Raises:
        ConfigError: an unknown format, a target that it does not have, or a hash where none is published.
    """
    where = f"params.yaml: collections.{name}"
    if params.format not in COLLECTIONS:
        known = ", ".join(COLLECTIONS)
        raise ConfigError(f"{where}.format", f"{params.format!r} is unknown", f"choose one of: {known}")
    collection = COLLECTIONS[params.format]
    if params.target not in collection.targets:
        known = ", ".join(collection.targets)
        raise ConfigError(f"{where}.target", f"{params.format} has no {params.target}", f"choose one of: {known}")
    if params.sha256 is not None and collection.sha256 is None:
        raise ConfigError(f"{where}.sha256", f"{params.format} has no published digest", "take the key away")
    return collection
