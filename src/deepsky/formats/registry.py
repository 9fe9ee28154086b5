"""The literal registry of published datasets: a format's name in params.yaml -> how it is read.

Only what packs collections imports it, so that a change of one format makes no other stage run again.
"""

from deepsky.formats import cifar10, galaxy10, galaxy_zoo1, galaxy_zoo_challenge, mnist
from deepsky.formats.collection import Collection

COLLECTIONS: dict[str, Collection] = {
    "galaxy_zoo_challenge": galaxy_zoo_challenge.COLLECTION,
    "galaxy_zoo1": galaxy_zoo1.COLLECTION,
    "galaxy10": galaxy10.COLLECTION,
    "mnist": mnist.COLLECTION,
    "cifar10": cifar10.COLLECTION,
}
