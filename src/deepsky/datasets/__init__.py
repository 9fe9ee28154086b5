"""Images and labels ready to learn from; one file per published dataset, and one literal registry of them."""

from deepsky.datasets import cifar10, galaxy10, galaxy_zoo, galaxy_zoo1, mnist
from deepsky.datasets.collection import Collection

COLLECTIONS: dict[str, Collection] = {
    "galaxy_zoo_challenge": galaxy_zoo.COLLECTION,
    "galaxy_zoo1": galaxy_zoo1.COLLECTION,
    "galaxy10": galaxy10.COLLECTION,
    "mnist": mnist.COLLECTION,
    "cifar10": cifar10.COLLECTION,
}
