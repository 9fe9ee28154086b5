"""Stage pack: pictures in the layout of their format become one packed dataset."""

from pathlib import Path

from deepsky.formats.format import preparation_of
from deepsky.formats.packing import pack_objects, picture_card
from deepsky.formats.params import PicturesParams
from deepsky.formats.reading import read_dataset
from deepsky.formats.registry import find
from deepsky.imaging.badfiles import BadFiles, OnBadFile


def run(name: str, params: PicturesParams, on_bad_file: OnBadFile, *, out: Path) -> None:
    """Pack what the source of a dataset holds.

    Args:
        name: of the dataset.
        params: its entry of ``datasets.pictures``.
        on_bad_file: ``stop`` at the first absent or bad picture, or ``skip`` and list them.
        out: the packed dataset to write.

    Raises:
        DataError: a source that cannot be used; an absent or bad picture under ``stop``; only one class, or nothing,
            is left.
        ConfigError: the source does not have what the entry asks of it.
    """
    format_, bad, source = find(params.format), BadFiles(on_bad_file), Path(params.source)
    objects, preparation = read_dataset(source, params), preparation_of(params)
    card = picture_card(
        objects,
        preparation,
        gray=format_.gray,
        target=params.target,
        mirrored=(*format_.mirrored, *params.pairs),
        refused=(*format_.refused, *params.refused),
    )
    pack_objects(name, objects, card, preparation.shape_px, bad, source=source, out=out)
