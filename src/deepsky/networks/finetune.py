"""A pretrained network with a head of its own, of which as much trains as is wanted."""

import re
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from deepsky.errors import ConfigError
from deepsky.networks.backbone import Backbone, build_base, draw_kernels, freeze_statistics, load_weights
from deepsky.networks.convolutions import MOMENTUM, named_maps
from deepsky.networks.dropout import SeededDropout
from deepsky.networks.heads import Answer, build_head, layer_seed


def build_tail_of(
    backbone: Backbone,
    size_px: int,
    weights_file: Path | None,
    *,
    frozen_norm: bool,
    hidden_units: Sequence[int],
    dropout: float,
    seed: int,
    answer: Answer,
) -> keras.Model:
    """Build RGB pixels -> answer: scaling, the network, the layer "maps", average pooling, a dense head.

    Everything in it trains; ``unfreeze`` says what does.

    Args:
        backbone: the architecture.
        size_px: side of the pixels, (n, size_px, size_px, 3) in 0..255.
        weights_file: weights without top as ``.h5``; None draws them from the seed.
        frozen_norm: keep the moving statistics of batch normalisation and use them in training too, so that few
            images cannot spoil them; its scales and offsets may train. False: normalise by the batch.
        hidden_units: width of each hidden layer of the head, in order.
        dropout: share of each hidden layer's outputs left out in training; without such layers, of the pooled features.
        seed: of the head, its dropout and the weights without file.
        answer: what the network ends in.

    Raises:
        ConfigError: the input size is too small for the architecture.
        WeightsError: the weights cannot be read or do not fit.
    """
    base = build_base(backbone, size_px)
    if frozen_norm:
        base = freeze_statistics(base)
    if weights_file is None:
        draw_kernels(base, np.random.default_rng(seed))
    else:
        load_weights(base, weights_file)
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    pixels = keras.Input((size_px, size_px, 3), name="pixels")
    maps = base(backbone.scale(pixels))
    pooled = keras.layers.GlobalAveragePooling2D(name="average")(named_maps(maps))
    if dropout and not hidden_units:
        pooled = SeededDropout(dropout, layer_seed(seed, 0), name="dropout_0")(pooled)
    head = build_head(pooled.shape[-1], answer, hidden_units, "relu", dropout=dropout, seed=seed)
    return keras.Model(pixels, head(pooled), name=f"{base.name}_tail")


def unfreeze(tail: keras.Model, backbone: Backbone, n_blocks: int | None) -> None:
    """Set what trains of the network in a tail; the head always does. Compile anew afterwards.

    Args:
        tail: of ``build_tail_of``.
        backbone: its architecture.
        n_blocks: 0 nothing, N the last N blocks, None everything.

    Raises:
        ConfigError: there are fewer blocks.
    """
    base = base_of(tail)
    blocks = blocks_of(base, backbone)
    if n_blocks is not None and not 0 <= n_blocks <= len(blocks):
        problem = f"learn {n_blocks}, but {base.name} has {len(blocks)} blocks"
        raise ConfigError("params.yaml", problem, f"write 1 to {len(blocks)}, head or all")
    top = {layer.name for block in blocks[len(blocks) - (n_blocks or 0) :] for layer in block}
    for layer in base.layers:  # layer by layer: what a model already says of itself, it does not pass on
        layer.trainable = n_blocks is None or layer.name in top


def base_of(tail: keras.Model) -> keras.Model:
    """Return the network of a tail without its head."""
    return next(layer for layer in tail.layers if isinstance(layer, keras.Model))


def blocks_of(base: keras.Model, backbone: Backbone) -> list[list[keras.layers.Layer]]:
    """Return the layers of each block, from the first to the last; what stands before them, the stem, is left out."""
    blocks: dict[str, list[keras.layers.Layer]] = {}
    name = "stem"
    for layer in base.layers:
        match = re.match(backbone.block_pattern, layer.name)
        name = match[1] if match else name
        blocks.setdefault(name, []).append(layer)
    return [layers for block, layers in blocks.items() if block != "stem"]
