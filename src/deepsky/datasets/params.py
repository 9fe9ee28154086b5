"""What params.yaml says of any dataset. Light: it is read before anything heavy is imported."""

from dataclasses import dataclass
from typing import Literal

Target = Literal["class", "fractions"]
Change = Literal["mirror", "turn"]
GroupBy = Literal["field", "objid", "sky", "neighbours", "group", "image", "given"]
"""What must stay in one split.

``field``: SDSS field by run, camcol and field, overlapping neighbours merged; ``objid``: the same, read out of SDSS
objIDs; ``sky``: square cells of the sky, for crowded fields; ``neighbours``: what lies close together on the sky, and
the neighbours of neighbours; ``group``: the dataset's own group column; ``image``: each distinct image by itself;
``given``: the dataset has published parts (``train``, ``val`` or ``test`` in its group column); those that
it lacks are drawn from its train part, each image by itself.
"""


@dataclass(frozen=True)
class SplitParams:
    """Section ``split`` of params.yaml.

    Attributes:
        seed: of the assignment of groups to splits.
        test_fraction: share of the rows wanted in test; 0: there is no test part, and networks are scored on val.
        val_fraction: share of the rows wanted in val.
        cell_arcmin: side of the sky cells of ``group_by: sky``.
        link_arcmin: under ``group_by: neighbours``, objects closer than this are neighbours.
    """

    seed: int = 1
    test_fraction: float = 0.2
    val_fraction: float = 0.2
    cell_arcmin: float = 2.0
    link_arcmin: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie between 0 and {2**32 - 1}, not {self.seed}")
        if not (self.test_fraction >= 0 < self.val_fraction and self.test_fraction + self.val_fraction <= 0.8):
            raise ValueError(
                "test_fraction and val_fraction must leave at least 0.2 for training; only test_fraction may be 0"
            )
        for name in ("cell_arcmin", "link_arcmin"):
            if not 0 < getattr(self, name) < 60:
                raise ValueError(f"{name} must lie between 0 and 60, not {getattr(self, name)}")
