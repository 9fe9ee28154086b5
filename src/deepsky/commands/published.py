"""Get published datasets from where they are published."""

import hashlib
from pathlib import Path

import click
import numpy as np

from deepsky.archives.params import DownloadParams
from deepsky.archives.releases import download_release
from deepsky.errors import ConfigError, DataError
from deepsky.files import whole_file
from deepsky.formats import galaxy10

_BY_HAND = {
    "galaxy_zoo_challenge": (
        "download training_solutions_rev1.zip and images_training_rev1.zip of Kaggle's competition "
        "galaxy-zoo-the-galaxy-challenge (it needs an account) into one folder, unpack the first there, and name that"
    ),
    "galaxy_zoo1": "name a folder of CLASS/OBJID.jpg",
}


def get_published(kind: str, folder: Path, params: DownloadParams) -> Path:
    """Bring the published file of a format into a folder, unless it is there already and whole.

    Args:
        kind: a key of ``formats.registry.FORMATS``.
        folder: where to write it.
        params: section ``download`` of params.yaml; of Galaxy10, as Keras downloads its datasets in its own way.

    Returns:
        The file.

    Raises:
        ConfigError: the format has no file that anybody may download; says where its files are.
        DataError: the download failed.
    """
    if kind == "galaxy10":
        target = folder / Path(galaxy10.URL).name
        if not _is_release(target):
            download_release(galaxy10.URL, target, galaxy10.SHA256, params)
    elif kind in ("mnist", "cifar10"):
        target = folder / f"{kind}.npz"
        if not target.exists():  # it appeared whole, and no digest of it is published
            _store_keras_arrays(kind, target)
    else:
        raise ConfigError(f"format {kind}", "SOURCE is missing", _BY_HAND[kind])
    return target


def _is_release(target: Path) -> bool:
    """Compare a file of an earlier download with what is published."""
    if not target.exists():
        return False
    with target.open("rb") as file:
        whole = hashlib.file_digest(file, "sha256").hexdigest() == galaxy10.SHA256
    if not whole:
        click.echo(f"{target}: is not the release; downloading it again", err=True)
    return whole


def _store_keras_arrays(kind: str, target: Path) -> None:
    """Let Keras download a dataset into its cache, and write its arrays into one file."""
    import keras  # takes seconds

    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, kind).load_data()
    except Exception as error:  # Keras raises the bare class when a server does not answer
        remedy = "check the network, or name a file of your own as SOURCE"
        raise DataError(f"keras.datasets.{kind}", f"cannot be downloaded ({error})", remedy) from error
    with whole_file(target) as path:
        np.savez_compressed(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
