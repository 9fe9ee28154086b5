"""What a network looks at: feature maps of its layers, and Grad-CAM, with nothing but forward passes.

Keras has no gradients of its own that work under every backend, so the derivatives that Grad-CAM needs are central
differences of the small network behind the last convolutional maps: two forward passes per channel, in batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from deepsky.errors import DataError
from deepsky.networks.views import DihedralViews

FloatArray = npt.NDArray[np.float32]
MAPS = "maps"  # the layer of a tail that holds its last convolutional maps
_STEP = 0.05  # of a central difference, in units of the maps' root mean square
_BATCH_BYTES = 64 << 20  # of changed maps in memory at once
_SMALLEST_PROBABILITY, _SMALLEST_FRACTION = 1e-30, 1e-7  # whose logarithms are still taken


@dataclass(frozen=True)
class LayerMaps:
    """What one layer makes of some images.

    Attributes:
        name: of the layer.
        maps: (image, height, width, channel).
    """

    name: str
    maps: FloatArray


def plain_view(network: keras.Model) -> tuple[keras.Model | None, keras.Model]:
    """Cut a saved network, whatever test views it averages over, into the two parts that pictures are drawn from.

    Args:
        network: image -> answer, as ``heads.join`` and ``views.average_views`` make it.

    Returns:
        Front, image -> pixels, and tail, pixels -> answer to one view, with a layer "maps". Of a head on a frozen
        network the front is None, and the tail takes images.

    Raises:
        DataError: it holds no convolutional maps.
    """
    core = network
    if any(isinstance(layer, DihedralViews) for layer in network.layers):
        core = next(layer for layer in network.layers if isinstance(layer, keras.Model))
    *before, tail = core.layers  # in the order of the graph: the tail, one layer, is what the answer comes from
    if isinstance(tail, keras.Model):
        if MAPS in [layer.name for layer in tail.layers]:
            return keras.Model(core.inputs[0], before[-1].output), tail
        if "average" in [layer.name for layer in before]:
            return None, frozen_tail(core, tail)
    problem = f"has no layer {MAPS!r}, so that no picture can show what it looks at"
    raise DataError(f"network {network.name}", problem, "name its last convolutional maps so")


def frozen_tail(features: keras.Model, head: keras.Model) -> keras.Model:
    """Build image -> answer with the layer "maps", of a frozen backbone and the head on its features.

    Args:
        features: image -> features, of ``networks.backbone.build_features``, or that and more.
        head: features -> answer.
    """
    average = features.get_layer("average")
    maps = keras.layers.Activation("linear", name=MAPS)(average.input)
    return keras.Model(features.inputs[0], head(average(maps)), name="frozen_tail")


def feature_maps(tail: keras.Model, inputs: npt.NDArray[Any], n_layers: int = 3) -> list[LayerMaps]:
    """Return what the first, the last and layers in between see of some images.

    Args:
        tail: inputs -> answer; its convolutions stand in it or in one network inside it.
        inputs: what the tail takes, n first.
        n_layers: how many layers, spread evenly over those behind a nonlinearity.
    """
    base = next((layer for layer in tail.layers if isinstance(layer, keras.Model) and _has_maps(layer)), None)
    if base is not None:  # the layers inside are a graph of their own, which starts with what stands before it
        before = tail.layers[tail.layers.index(base) - 1]
        inputs = call_once(keras.Model(tail.inputs[0], before.output), inputs)
    network = base or tail
    layers = [layer for layer in network.layers if _has_maps(layer) and _is_nonlinear(layer)]
    places = np.unique(np.linspace(0, len(layers) - 1, n_layers).round().astype(int))
    outputs = {layers[place].name: layers[place].output for place in places}  # Keras would unpack a list of one
    found = keras.Model(network.inputs[0], outputs)(inputs, training=False)
    return [LayerMaps(name, keras.ops.convert_to_numpy(found[name])) for name in outputs]


def grad_cam(
    tail: keras.Model, inputs: npt.NDArray[Any], columns: Sequence[Sequence[int]], *, exclusive: bool
) -> list[list[FloatArray]]:
    """Return where in each image the answers come from.

    The score of an answer is its log-odds: the logarithm of its probability against that of all others (of a vote
    fraction: against 1 minus itself). Unlike the probability it does not flatten where a network is sure.

    Args:
        tail: inputs -> answer, in float32, with a layer "maps".
        inputs: what the tail takes, n first.
        columns: for each image the places of the answers to explain.
        exclusive: answers are probabilities that sum to 1; else each is a fraction by itself.

    Returns:
        For each image, for each of its answers: (height, width) of "maps", 0 where nothing speaks for the answer, else
        up to 1.

    Source:
        Selvaraju et al. 2017, ICCV, 618, equations 1 and 2.
    """
    to_maps, behind = split_at_maps(tail)
    every = []
    for maps, wanted in zip(call_once(to_maps, inputs), columns, strict=True):
        weights = channel_weights(behind, maps, exclusive=exclusive)
        heats = [np.maximum(maps @ weights[:, column], 0) for column in wanted]
        every.append([heat / heat.max() if heat.max() > 0 else heat for heat in heats])
    return every


def call_once(model: keras.Model, inputs: npt.NDArray[Any]) -> FloatArray:
    """Return what a model makes of one batch, without compiling it first as ``predict`` does."""
    outputs: FloatArray = keras.ops.convert_to_numpy(model(inputs, training=False))
    return outputs


def split_at_maps(tail: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Cut a tail in two: inputs -> maps, maps -> answer; both share its weights."""
    maps = tail.get_layer(MAPS).output
    return keras.Model(tail.inputs[0], maps), keras.Model(maps, tail.outputs[0])


def channel_weights(behind: keras.Model, maps: FloatArray, *, exclusive: bool) -> FloatArray:
    """Return Grad-CAM's alpha: the derivative of every answer's score by each channel, averaged over its places.

    The sum of the derivatives by all places of a channel is the derivative along a constant that is added to it.

    Args:
        behind: maps -> answer, (n, answers).
        maps: of one image, (height, width, channel).
        exclusive: as for ``grad_cam``.

    Returns:
        (channel, answer).
    """
    height, width, n_channels = maps.shape
    step = _STEP * float(np.sqrt((maps.astype(np.float64) ** 2).mean())) or _STEP
    n_at_once = max(1, min(n_channels, _BATCH_BYTES // (2 * maps.nbytes)))
    weights = []
    for first in range(0, n_channels, n_at_once):
        # The last slice begins early enough to be as long as the others: JAX would compile for another shape.
        start = min(first, n_channels - n_at_once)
        channels = np.arange(start, start + n_at_once)
        changed = np.repeat(maps[np.newaxis], 2 * n_at_once, axis=0)
        changed[np.arange(n_at_once), :, :, channels] += step
        changed[np.arange(n_at_once) + n_at_once, :, :, channels] -= step
        scores = log_odds(call_once(behind, changed), exclusive=exclusive)
        slopes = (scores[:n_at_once] - scores[n_at_once:]) / (2 * step * height * width)
        weights.append(slopes[first - start :])
    return np.concatenate(weights).astype(np.float32)


def log_odds(answers: npt.NDArray[np.floating], *, exclusive: bool) -> npt.NDArray[np.float64]:
    """Return the logarithm of each answer against the rest, (n, answers)."""
    values = answers.astype(np.float64)
    n_answers = values.shape[1]
    # The sum of the others keeps its digits where 1 minus a probability near 1 has none left.
    rest = values @ (1 - np.eye(n_answers)) if exclusive else 1 - values
    smallest = _SMALLEST_PROBABILITY if exclusive else _SMALLEST_FRACTION
    return np.log(np.maximum(values, smallest)) - np.log(np.maximum(rest, smallest))


def _has_maps(layer: keras.layers.Layer) -> bool:
    return not isinstance(layer, keras.layers.InputLayer) and len(layer.output.shape) == 4


def _is_nonlinear(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.ReLU):
        return True
    return getattr(layer, "activation", keras.activations.linear) is not keras.activations.linear
