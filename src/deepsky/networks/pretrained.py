"""Where a backbone's weights come from: a folder, Keras' cache, a download, or a seed."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from deepsky.archives.http import download
from deepsky.errors import DataError, WeightsError
from deepsky.networks.backbone import Backbone, draw_kernels, is_depthwise, load_weights
from deepsky.networks.params import WeightsParams
from deepsky.networks.registry import find_backbone
from deepsky.networks.saving import save_h5
from deepsky.networks.weights_card import WeightsCard

FOLDER_VARIABLE = "DEEPSKY_WEIGHTS"
URL_VARIABLE = "DEEPSKY_WEIGHTS_URL"
KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
CALIBRATION_SIZE_PX = 96
N_CALIBRATION_IMAGES = 16
# Keeps most units of random layers in the linear part of ReLU: with 0, fifty such layers scramble every picture.
RANDOM_BETA = 1.0


def write_weights(network: str, params: WeightsParams, folder: Path) -> tuple[WeightsCard, str]:
    """Write ``weights.h5`` and ``weights.json`` of one backbone into an empty folder.

    Args:
        network: a backbone of the registry.
        params: where to look.
        folder: where to write.

    Returns:
        The card, and for people where the file was found or where it was looked for in vain.

    Raises:
        WeightsError: the named folder is missing, the file does not fit, or ``imagenet`` found none.
    """
    backbone, target = find_backbone(network), folder / "weights.h5"
    note = "source is random"
    if params.source != "random":
        note = _fetch_official(backbone, params, target)
        if not target.exists() and params.source == "imagenet":
            raise WeightsError(f"weights of {network}", f"not found: {note}", _remedy(backbone))
    if target.exists():
        card = _file_card(backbone, target)
    else:
        save_h5(draw_weights(backbone, params.seed), target)
        card = WeightsCard("random", f"seed {params.seed}", _digest(target, "sha256"))
        note = f"{note}; {_remedy(backbone)}"
    (folder / "weights.json").write_text(json.dumps(asdict(card), indent=2) + "\n")
    return card, note


def draw_weights(backbone: Backbone, seed: int) -> keras.Model:
    """Build a backbone with random weights whose features are usable.

    He's initialisation alone lets the features of a deep network with untrained batch normalisation fade to nothing,
    so the moving statistics are measured once on noise pictures. Depthwise kernels are made to smooth: with random
    signs they amplify pixel noise layer after layer. A network without batch normalisation is homogeneous
    (ReLU, no bias), so scaling its first kernel scales its features to a root mean square of one.

    Args:
        backbone: the architecture.
        seed: of weights and noise.

    Returns:
        The network without top.
    """
    rng = np.random.default_rng(seed)
    base = backbone.build(CALIBRATION_SIZE_PX)
    draw_kernels(base, rng)
    kernels = [variable for variable in base.trainable_variables if variable.name.endswith("kernel")]
    for kernel in kernels:
        if is_depthwise(kernel.path):
            kernel.assign(keras.ops.abs(kernel))
    rgb = keras.Input(base.input_shape[1:])
    pixels = keras.Model(rgb, backbone.scale(rgb))(_noise_pictures(rng))
    norms = [layer for layer in base.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.beta.assign(np.full(norm.beta.shape, RANDOM_BETA, np.float32))
        norm.momentum = 0.0  # the moving statistics become those of this one batch
    base(pixels, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    if not norms:
        features = np.asarray(keras.ops.convert_to_numpy(base(pixels, training=False))).mean(axis=(1, 2))
        kernels[0].assign(kernels[0] / float(np.sqrt(np.mean(features**2))))
    return base


def _fetch_official(backbone: Backbone, params: WeightsParams, target: Path) -> str:
    """Copy or download Keras' file to ``target`` and check that it fits; return where from, or where in vain."""
    places = _places(params)
    found = next((place / backbone.weights_file for place in places if (place / backbone.weights_file).is_file()), None)
    looked_in = f"no {backbone.weights_file} in {', '.join(map(str, places))}"
    if found is None:
        if params.source != "imagenet" and not params.download:
            return f"{looked_in}; weights.download is off"
        base = os.environ.get(URL_VARIABLE) or KERAS_URL
        url = f"{base.rstrip('/')}/{backbone.weights_folder}/{backbone.weights_file}"
        try:
            download(url, target, digest=backbone.weights_digest, algorithm=backbone.weights_algorithm)
        except DataError as error:
            return f"{looked_in}; {error.where} {error.problem}"
        found = target
        looked_in = url
    # A file that is there was meant to be used: one that does not fit is an error, never a reason for random weights.
    load_weights(backbone.build(backbone.min_size_px), found)
    if found == target:
        return looked_in
    shutil.copyfile(found, target)
    return str(found)


def _file_card(backbone: Backbone, file: Path) -> WeightsCard:
    """Call only Keras' own file ImageNet weights: any other of that name may hold anything."""
    sha256 = _digest(file, "sha256")
    if _digest(file, backbone.weights_algorithm) == backbone.weights_digest:
        return WeightsCard("imagenet", backbone.weights_file, sha256)
    return WeightsCard("custom", f"{backbone.weights_file} (not Keras' own file: its hash differs)", sha256)


def _places(params: WeightsParams) -> list[Path]:
    """Return the named folder, if any, then Keras' cache."""
    named = os.environ.get(FOLDER_VARIABLE) or params.folder
    if named and not Path(named).is_dir():
        key = FOLDER_VARIABLE if os.environ.get(FOLDER_VARIABLE) else "params.yaml: weights.folder"
        raise WeightsError(key, f"{named} is not a folder", "name a folder with Keras' no-top .h5 files, or unset it")
    keras_home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return [*([Path(named)] if named else []), keras_home / "models"]


def _remedy(backbone: Backbone) -> str:
    file = backbone.weights_file
    return f"put {file} into a folder, name it in {FOLDER_VARIABLE} or weights.folder, and run the stage by force"


def _noise_pictures(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draw smooth RGB noise in 0..255, (n, height, width, 3): neighbours agree, and half of the pictures are dark.

    Dark, because the sky is: statistics of bright noise alone would put every picture of the sky into one corner.
    """
    coarse = rng.uniform(0.0, 1.0, (N_CALIBRATION_IMAGES, 12, 12, 3)).astype(np.float32)
    size = (CALIBRATION_SIZE_PX, CALIBRATION_SIZE_PX)
    smooth = np.asarray(keras.ops.convert_to_numpy(keras.ops.image.resize(coarse, size, interpolation="bilinear")))
    darkness = np.geomspace(0.5, 8.0, N_CALIBRATION_IMAGES, dtype=np.float32)
    return 255.0 * smooth ** darkness[:, None, None, None]


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
