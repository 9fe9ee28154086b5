"""Stage pack: a folder of images and a label table become one packed dataset."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from deepsky.catalogue.tables import read_objects
from deepsky.datasets.packed import Change
from deepsky.errors import ConfigError
from deepsky.formats.collection import UNNAMED
from deepsky.formats.packing import objects_of, pack_objects, picture_card
from deepsky.imaging.badfiles import BadFiles, OnBadFile, read_missing
from deepsky.imaging.picture_files import PictureFiles
from deepsky.imaging.preparation import Denoise, Preparation, check_denoise, check_side

_CARRIED = {"run": "run", "camcol": "camcol", "field": "field", "ra": "ra_deg", "dec": "dec_deg"}


@dataclass(frozen=True)
class ImagesParams:
    """One entry of ``images`` in params.yaml: a folder of images and its label table.

    Attributes:
        folder: where the images lie, at any depth; labels: their CSV. Both reach ``run`` through dvc.yaml.
        id_column: names each image: the file's name without its suffix.
        label_column: holds the class; classes: those that may occur, in the order of the label encoding.
        size_px: side of the packed images; a picture that is not square is squeezed.
        crop_px: side of the middle square that is kept before resizing; None keeps all.
        group_column: what must stay together in a split (``group_by: group``); None where there is none.
        denoise: how the noise is smoothed; denoise_strength: how much (see ``imaging.preparation``).
        gray: one channel of luminance instead of three of colour.
        mirrored: pairs [a, b] of classes that a mirror image turns into each other.
        refused: what must not be done to an image (mirror, turn): it would no longer show what its label says.
    """

    folder: str
    labels: str
    id_column: str
    label_column: str
    classes: tuple[str, ...]
    size_px: int
    crop_px: int | None = None
    group_column: str | None = None
    denoise: Denoise = "none"
    denoise_strength: float = 0.0
    gray: bool = False
    mirrored: tuple[tuple[str, ...], ...] = ()
    refused: tuple[Change, ...] = ()

    def __post_init__(self) -> None:
        check_side("size_px", self.size_px)
        check_side("crop_px", self.crop_px)
        check_denoise(self.denoise, self.denoise_strength)
        named = [name for pair in self.mirrored for name in pair]
        if any(len(pair) != 2 for pair in self.mirrored) or len(set(named)) < len(named):
            raise ValueError("mirrored must be pairs [a, b] of different classes, each in one pair only")
        for name in named:
            if name not in self.classes:
                raise ValueError(f"mirrored names the unknown class {name!r}; classes are {', '.join(self.classes)}")

    @property
    def preparation(self) -> Preparation:
        """How each picture is prepared."""
        return Preparation((self.size_px, self.size_px), self.crop_px, self.denoise, self.denoise_strength, self.gray)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The classes of ``mirrored``, two by two."""
        return tuple((first, second) for first, second in self.mirrored)


def run(name: str, params: ImagesParams, on_bad_file: OnBadFile, *, folder: Path, labels: Path, out: Path) -> None:
    """Pack the images that a label table names, in its order; images that it does not name are left alone.

    Images that the folder's missing.csv lists are left out: the archive has none.

    Args:
        name: of the dataset, for the progress bar.
        params: which columns and what size.
        on_bad_file: ``stop`` at the first absent or bad image, or ``skip`` and list them.
        folder: ID.jpg, .jpeg, .png, .tif or .tiff, at any depth.
        labels: CSV.
        out: the packed dataset to write.

    Raises:
        DataError: a bad label table or missing.csv; an absent or bad image under ``stop``; nothing left under ``skip``.
        ConfigError: ``group_column`` is not in the table.
    """
    bad, files = BadFiles(on_bad_file), PictureFiles(folder)
    rows = read_objects(labels, id_column=params.id_column, label_column=params.label_column, classes=params.classes)
    rows = _carry_over(rows, params, labels)
    found = files.by_stem(rows["id"])
    rows["picture"] = rows["id"].map(found)
    rows = _without_missing(rows, name, bad, folder)
    n_dropped = {UNNAMED: len(files.names) - len(found)}
    objects = objects_of(rows, params.classes, files, params.preparation, n_dropped=n_dropped)
    card = picture_card(objects, params.preparation, mirrored=params.pairs, refused=params.refused)
    pack_objects(name, objects, card, params.preparation.shape_px, bad, source=labels, out=out)


def _carry_over(rows: pd.DataFrame, params: ImagesParams, labels: Path) -> pd.DataFrame:
    """Keep id, label and whatever the splits can use."""
    known = [column for column in _CARRIED if column in rows.columns]
    carried = rows[["id", "label", *known]].rename(columns=_CARRIED)
    if params.group_column is not None:
        if params.group_column not in rows.columns:
            problem = f"group_column {params.group_column!r} is not a column of {labels}"
            raise ConfigError("params.yaml: images", problem, f"its columns are {', '.join(rows.columns)}")
        carried["group"] = rows[params.group_column]
    return carried


def _without_missing(rows: pd.DataFrame, name: str, bad: BadFiles, folder: Path) -> pd.DataFrame:
    missing = {path.stem: (str(path), reason) for path, reason in read_missing(folder).items()}
    lost = rows["picture"].isna() & rows["id"].isin(missing)
    bad.leave_out([missing[identity] for identity in rows.loc[lost, "id"]], name)
    return rows[~lost]
