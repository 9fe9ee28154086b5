"""What params.yaml says of one dataset. Light: it is read before anything heavy is imported."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import cast

from deepsky.datasets.params import Change, GroupBy, Target
from deepsky.errors import ConfigError
from deepsky.formats.registry import FORMATS
from deepsky.imaging.params import Denoise, Position, Reading, check_denoise, check_side

KINDS = ("frames", "rgb", "cutouts")  # what every frame gives: a picture folder and a packed dataset each


@dataclass(frozen=True)
class PicturesParams:
    """One entry of ``datasets.pictures`` in params.yaml: pictures with labels or vote fractions.

    Attributes:
        format: the layout of the source, a key of ``formats.registry.FORMATS``.
        source: the file or folder that holds it.
        size_px: side of the packed images; a picture that is not square is squeezed.
        crop_px: side of the middle square that is kept before resizing; None keeps all.
        denoise: how the noise is smoothed; denoise_strength: how much (see ``imaging.params``).
        gray: one channel of luminance instead of three of colour.
        target: what there is to learn: ``class``, or the 37 vote ``fractions``.
        group_by: what must stay together in a split; where it is left out, what suits the format.
        sha256: of the source, where the format is one file with a published digest: None takes that one, ``any``
            takes every file.
        labels: of formats with a table: its file name in the folder; where it is left out, labels.csv.
        id_column: of that table: names each picture, the file's name without its suffix.
        label_column: of that table: the class.
        classes: what is learned, in the order of the label encoding.
        other_classes: what may occur as well, and is left out.
        class_columns: of a table of votes or flags: the column of each of ``classes``.
        least_vote: what a galaxy of a class has there at least, and nowhere else.
        group_column: of that table: what must stay together in a split (``group_by: group``); None: no such column.
        mirrored: pairs [a, b] of classes that a mirror image turns into each other.
        refused: what must not be done to a picture (mirror, turn): it would no longer show what its label says.
        limit: take so many objects only, with the same share of each class; None takes all.
        limit_seed: of the draw.
    """

    format: str
    source: str
    size_px: int
    crop_px: int | None = None
    denoise: Denoise = "none"
    denoise_strength: float = 0.0
    gray: bool = False
    target: Target = "class"
    group_by: GroupBy | None = None
    sha256: str | None = None
    labels: str | None = None
    id_column: str | None = None
    label_column: str | None = None
    classes: tuple[str, ...] = ()
    other_classes: tuple[str, ...] = ()
    class_columns: tuple[str, ...] = ()
    least_vote: float = 0.8
    group_column: str | None = None
    mirrored: tuple[tuple[str, ...], ...] = ()
    refused: tuple[Change, ...] = ()
    limit: int | None = None
    limit_seed: int = 1

    def __post_init__(self) -> None:
        check_side("size_px", self.size_px)
        check_side("crop_px", self.crop_px)
        check_denoise(self.denoise, self.denoise_strength)
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, not {self.limit}")
        if not 0 <= self.limit_seed < 2**32:
            raise ValueError(f"limit_seed must lie between 0 and {2**32 - 1}, not {self.limit_seed}")
        if not self.source:
            raise ValueError("source is empty; name a file or folder")
        self._check_format()
        self._check_table()
        self._fill_in()

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The classes of ``mirrored``, two by two."""
        return tuple((first, second) for first, second in self.mirrored)

    @property
    def group(self) -> GroupBy:
        """What stays together in a split."""
        return cast(GroupBy, self.group_by)  # ``_fill_in`` leaves no None

    def check_crop(self, source: Path, side_px: int) -> None:
        """Refuse a middle square that no image has, where all are of one size.

        Args:
            source: names them in the error.
            side_px: of each image.

        Raises:
            ConfigError: ``crop_px`` is larger.
        """
        if self.crop_px is not None and self.crop_px > side_px:
            problem = f"is larger than the images of {source}, {side_px} x {side_px} px"
            raise ConfigError(f"crop_px {self.crop_px}", problem, f"lower it to {side_px} or less")

    def _check_format(self) -> None:
        """Refuse an unknown format, and what it does not have."""
        if self.format not in FORMATS:
            raise ValueError(f"format {self.format!r} is unknown; choose one of: {', '.join(FORMATS)}")
        facts = FORMATS[self.format]
        if self.target not in facts.targets:
            has = ", ".join(facts.targets)
            raise ValueError(f"target {self.target}: format {self.format} has no {self.target}, it has {has}")
        own = {key for each in FORMATS.values() for key in (*each.needs, *each.takes)}
        for key in fields(self):
            given = key.default is not MISSING and getattr(self, key.name) != key.default
            if given and key.name in own - {*facts.needs, *facts.takes}:
                raise ValueError(f"{key.name} is no key of format {self.format}; take it away")
            if not given and key.name in facts.needs:
                raise ValueError(f"{key.name} is missing, format {self.format} needs it")

    def _check_table(self) -> None:
        """Refuse what no table of labels can be like."""
        if self.labels is not None and (self.labels in ("", ".", "..") or "/" in self.labels):
            raise ValueError(f"labels {self.labels!r} is not the name of a file in the folder")
        names = (*self.classes, *self.other_classes)
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"classes and other_classes name {twice[0]} more than once")
        if "" in names:
            raise ValueError("classes must be names, none of them empty")
        if self.id_column is not None and self.id_column in (self.label_column, *self.class_columns):
            raise ValueError(f"column {self.id_column!r} is to be both id and class; name two columns")
        if self.class_columns and len(self.class_columns) != len(self.classes):
            raise ValueError("class_columns must name one column for each of classes")
        if not 0 < self.least_vote <= 1:
            raise ValueError(f"least_vote must lie above 0 and up to 1, not {self.least_vote:g}")
        named = [name for pair in self.mirrored for name in pair]
        if any(len(pair) != 2 for pair in self.mirrored) or len(set(named)) < len(named):
            raise ValueError("mirrored must be pairs [a, b] of different classes, each in one pair only")
        for name in named:
            if name not in self.classes:
                raise ValueError(f"mirrored names the unknown class {name!r}; classes are {', '.join(self.classes)}")

    def _fill_in(self) -> None:
        """Let what depends on the format be said, where it was left out."""
        facts = FORMATS[self.format]
        if self.group_by is None:
            object.__setattr__(self, "group_by", "group" if self.group_column else facts.group_by)
        if self.labels is None and "labels" in facts.takes:
            object.__setattr__(self, "labels", "labels.csv")


@dataclass(frozen=True)
class FramesParams:
    """One entry of ``datasets.frames`` in params.yaml: a folder of FITS frames and its catalogue.

    Attributes:
        folder: where the frames lie, at any depth; catalogue: the table of their objects.
        id_column: names each object; None numbers the rows.
        label_column: holds the class; classes: those that may occur, in the order of the label encoding.
        position: ``radec``, columns ra and dec; ``xy``, columns x and y, 0-based pixels.
        position_band: the band of x and y, of containment, and on whose pixels composites are aligned.
        bands: the bands read, in the order of the cutouts' last axis.
        frame_bands: of the whole-frame plots' dataset; of several, it holds each object once in each.
        rgb_bands: red, green, blue of the whole-frame composite.
        colour_bands: red, green, blue of the cutouts' colour pictures.
        cutout_size_px: side of the cutouts, native pixels.
        group_by: what must stay together in a split of the three datasets.
        position_columns, filters, zero_points: see ``imaging.params.Reading``.
    """

    folder: str
    catalogue: str
    id_column: str | None
    label_column: str
    classes: tuple[str, ...]
    position: Position
    position_band: str
    bands: tuple[str, ...]
    frame_bands: tuple[str, ...]
    rgb_bands: tuple[str, ...]
    colour_bands: tuple[str, ...]
    cutout_size_px: int
    group_by: GroupBy = "field"
    position_columns: tuple[str, ...] = ()
    filters: Mapping[str, str] = field(default_factory=dict)
    zero_points: Mapping[str, float] = field(default_factory=dict)

    @property
    def reading(self) -> Reading:
        """How the frames and the catalogue are to be understood."""
        names = [each.name for each in fields(Reading)]
        return Reading(**{name: getattr(self, name) for name in names})

    def __post_init__(self) -> None:
        self.reading  # noqa: B018  # it checks itself
        for key in ("rgb_bands", "colour_bands"):
            if len(getattr(self, key)) != 3:
                raise ValueError(f"{key} must name three bands: red, green, blue")
        used = (*self.frame_bands, *self.rgb_bands, *self.colour_bands)
        unknown = [band for band in used if band not in self.bands]
        if unknown:
            raise ValueError(f"band {unknown[0]!r} is not among bands {', '.join(self.bands)}")
        if any(not band.replace("_", "a").isalnum() for band in self.bands):
            raise ValueError(f"bands {list(self.bands)} must be of letters, digits and _: they name folders")
        if len(self.frame_bands) > 1 and self.group_by in ("image", "objid"):
            raise ValueError(
                f"group_by {self.group_by} tears an object's plots of several frame_bands apart; take field"
            )
        for key in ("bands", "frame_bands"):
            if not getattr(self, key):
                raise ValueError(f"{key} names no band")
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"{key} names a band twice")
        if any("/" in label or label.startswith(".") for label in self.classes):
            raise ValueError("a class names a folder of pictures: no slashes, no leading dot")
        if not 8 <= self.cutout_size_px <= 1024:
            raise ValueError(f"cutout_size_px must lie between 8 and 1024, not {self.cutout_size_px}")


def datasets_of(frames: str) -> tuple[str, ...]:
    """Name the datasets that an entry of ``datasets.frames`` gives."""
    return tuple(f"{frames}_{kind}" for kind in KINDS)
