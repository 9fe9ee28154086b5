"""What a backbone starts from: published weights, or random ones."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from deepsky.errors import WeightsError
from deepsky.networks.backbone import Backbone, draw_kernels, is_depthwise, load_weights
from deepsky.networks.params import WeightsParams
from deepsky.networks.published import digest_of, find_file, remedy
from deepsky.networks.registry import find_backbone
from deepsky.networks.saving import save_h5
from deepsky.networks.weights_card import WeightsCard

CALIBRATION_SIZE_PX = 96
N_CALIBRATION_IMAGES = 16
# Mean of what random layers give to their activation, in standard deviations. With 0, fifty ReLU scramble every
# picture; from 1 on they let almost all pass, and pictures hardly differ behind them.
RANDOM_MEAN = 0.5
_ACTIVATIONS = (keras.layers.Activation, keras.layers.ReLU)


def write_weights(network: str, params: WeightsParams, folder: Path) -> tuple[WeightsCard, str]:
    """Write ``weights.h5`` and ``weights.json`` of one backbone into an empty folder.

    Args:
        network: a backbone of the registry.
        params: where to look.
        folder: where to write.

    Returns:
        The card, and for people where the file was found, or why weights are random and what mends that.

    Raises:
        WeightsError: the named folder is missing, the file does not fit, or ``imagenet`` found none.
    """
    backbone, target = find_backbone(network), folder / "weights.h5"
    found, note = (
        (None, "weights.source is random") if params.source == "random" else find_file(backbone, params.folder)
    )
    if found:
        card, note = _copy_published(backbone, found, target), str(found)
    elif params.source == "imagenet":
        raise WeightsError(f"weights of {network}", f"no {backbone.weights_file} in {note}", remedy(backbone))
    else:
        save_h5(draw_weights(backbone, params.seed), target)
        card = WeightsCard("random", f"seed {params.seed}", digest_of(target, "sha256"))
        note = note if params.source == "random" else f"none in {note}; {remedy(backbone)}"
    (folder / "weights.json").write_text(json.dumps(asdict(card), indent=2) + "\n")
    return card, note


def draw_weights(backbone: Backbone, seed: int) -> keras.Model:
    """Build a backbone with random weights whose features are usable.

    He's initialisation alone lets the features of a deep network fade to nothing, or to nearly the same for every
    picture. So layer by layer the outputs of convolutions are measured on noise pictures and brought to unit variance,
    by the moving statistics of the batch normalisation behind them or, where there is none, by kernel and bias. What
    the last activation gets is brought to a mean of zero, so that it parts the pictures. Depthwise kernels are made to
    smooth: with random signs they amplify pixel noise layer after layer.

    Args:
        backbone: the architecture.
        seed: of weights and noise.

    Returns:
        The network without top.

    Source:
        Mishkin & Matas 2016, arXiv:1511.06422: layer-sequential unit-variance initialisation.
    """
    rng = np.random.default_rng(seed)
    base = backbone.build(CALIBRATION_SIZE_PX)
    draw_kernels(base, rng)
    for kernel in base.trainable_variables:
        if kernel.name.endswith("kernel") and is_depthwise(kernel.path):
            kernel.assign(keras.ops.abs(kernel))
    rgb = keras.Input(base.input_shape[1:])
    outputs = {id(base.inputs[0]): keras.Model(rgb, backbone.scale(rgb))(_noise_pictures(rng))}
    has_norms = any(isinstance(layer, keras.layers.BatchNormalization) for layer in base.layers)
    for layer in base.layers[1:]:  # in the order of the graph, after the input
        inputs = (
            outputs[id(layer.input)] if not isinstance(layer.input, list) else [outputs[id(x)] for x in layer.input]
        )
        if isinstance(layer, keras.layers.BatchNormalization):
            mean, variance = _channel_statistics(inputs)
            layer.set_weights([*layer.get_weights()[:-3], np.full_like(mean, RANDOM_MEAN), mean, variance])
        elif isinstance(layer, keras.layers.Conv2D) and not has_norms:
            mean, variance = _channel_statistics(_before_activation(layer, inputs))
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel / np.sqrt(variance), RANDOM_MEAN + (bias - mean) / np.sqrt(variance)])
        outputs[id(layer.output)] = layer(inputs)
    return _centred(base, outputs)


def _centred(base: keras.Model, outputs: dict[int, Any]) -> keras.Model:
    """Bring what the last activation gets to a mean of zero, channel by channel."""
    own = [layer for layer in base.layers if isinstance(layer, keras.layers.BatchNormalization)]
    own = own or [layer for layer in base.layers if isinstance(layer, keras.layers.Conv2D)]
    last, before = own[-1], [layer for layer in base.layers if isinstance(layer, _ACTIVATIONS)]
    if before:
        mean, _ = _channel_statistics(outputs[id(before[-1].input)])
        last.beta.assign(last.beta - mean)
    else:
        last.bias.assign(last.bias - RANDOM_MEAN)
    return base


def _before_activation(convolution: keras.layers.Conv2D, inputs: Any) -> Any:
    activation, convolution.activation = convolution.activation, keras.activations.linear
    try:
        return convolution(inputs)
    finally:
        convolution.activation = activation


def _channel_statistics(maps: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return mean and variance of each channel; one that is the same everywhere counts as of unit variance."""
    values = np.asarray(keras.ops.convert_to_numpy(maps))
    variance = values.var(axis=(0, 1, 2))
    return values.mean(axis=(0, 1, 2)), np.where(variance > 0, variance, 1.0).astype(np.float32)


def _copy_published(backbone: Backbone, found: Path, target: Path) -> WeightsCard:
    """Write published weights as Keras' ``.h5``; one that is there was meant to be used, so it must fit."""
    base = backbone.build(backbone.min_size_px)
    if backbone.set_published:
        backbone.set_published(base, found.read_bytes(), found)
        save_h5(base, target)
        return WeightsCard("imagenet", backbone.weights_file, digest_of(target, "sha256"))
    load_weights(base, found)
    shutil.copyfile(found, target)
    sha256 = digest_of(target, "sha256")
    # Only Keras' own file is sure to be ImageNet weights: any other of that name may hold anything.
    if digest_of(target, backbone.weights_algorithm) == backbone.weights_digest:
        return WeightsCard("imagenet", backbone.weights_file, sha256)
    return WeightsCard("custom", f"{backbone.weights_file} (not Keras' own file: its hash differs)", sha256)


def _noise_pictures(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draw smooth RGB noise in 0..255, (n, height, width, 3): neighbours agree, and half of the pictures are dark.

    Dark, because the sky is: statistics of bright noise alone would put every picture of the sky into one corner.
    """
    coarse = rng.uniform(0.0, 1.0, (N_CALIBRATION_IMAGES, 12, 12, 3)).astype(np.float32)
    size = (CALIBRATION_SIZE_PX, CALIBRATION_SIZE_PX)
    smooth = np.asarray(keras.ops.convert_to_numpy(keras.ops.image.resize(coarse, size, interpolation="bilinear")))
    darkness = np.geomspace(0.5, 8.0, N_CALIBRATION_IMAGES, dtype=np.float32)
    return 255.0 * smooth ** darkness[:, None, None, None]
