"""The literal registry of formats: what each takes from params.yaml, and the module that reads it.

A format's module is imported on demand, so that its code concerns only the datasets that have it.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from deepsky.datasets.params import GroupBy, Target

if TYPE_CHECKING:
    from deepsky.formats.format import Format


@dataclass(frozen=True)
class FormatFacts:
    """What is known of a format before its module is imported.

    Attributes:
        module: that holds it, and its name there.
        label: what it is, in a few words.
        group_by: what stays together in a split unless the dataset's entry says something else.
        targets: what can be learned from it.
        needs: keys that an entry of this format must have, beside those of every format.
        takes: keys that it may have; an entry of another format must not.
    """

    module: str
    label: str
    group_by: GroupBy = "image"
    targets: tuple[Target, ...] = ("class",)
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


FORMATS: dict[str, FormatFacts] = {
    "images": FormatFacts(
        "deepsky.formats.images:FORMAT",
        "a folder of pictures with a table of labels",
        needs=("id_column", "label_column", "classes"),
        takes=("labels", "other_classes", "group_column", "mirrored", "refused"),
    ),
    "class_folders": FormatFacts(
        "deepsky.formats.class_folders:FORMAT",
        "a folder of pictures per class",
        needs=("classes",),
        takes=("other_classes", "mirrored", "refused"),
    ),
    "galaxy_zoo_votes": FormatFacts(
        "deepsky.formats.galaxy_zoo_votes:FORMAT",
        "a data release of Galaxy Zoo: pictures and a table of votes or flags",
        needs=("id_column", "classes", "class_columns"),
        takes=("labels", "least_vote", "mirrored", "refused"),
    ),
    "galaxy_zoo_challenge": FormatFacts(
        "deepsky.formats.galaxy_zoo_challenge:FORMAT",
        "the Galaxy Zoo challenge: solutions and pictures",
        targets=("class", "fractions"),
    ),
    "galaxy_zoo1": FormatFacts(
        "deepsky.formats.galaxy_zoo1:FORMAT", "Galaxy Zoo 1: a folder of pictures per class", group_by="objid"
    ),
    "galaxy10": FormatFacts(
        "deepsky.formats.galaxy10:FORMAT", "Galaxy10 DECaLS: one HDF5 file", group_by="neighbours", takes=("sha256",)
    ),
    "mnist": FormatFacts("deepsky.formats.mnist:FORMAT", "MNIST: handwritten digits", group_by="given"),
    "cifar10": FormatFacts("deepsky.formats.cifar10:FORMAT", "CIFAR-10: small photographs", group_by="given"),
}


OWN = ("images", "class_folders", "galaxy_zoo_votes")  # of a person's own pictures; the others were published so


def find(name: str) -> "Format":
    """Import a format.

    Args:
        name: a key of FORMATS.
    """
    module, _, attribute = FORMATS[name].module.partition(":")
    found: Format = getattr(import_module(module), attribute)
    return found
