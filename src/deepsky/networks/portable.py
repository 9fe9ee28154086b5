"""A trained network in Keras' own layers, so that whoever has Keras can load it."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import keras
import numpy as np

from deepsky.networks.views import VIEWS, DihedralViews, MeanOfViews, average_views

BACK, MEAN = "mirror_back", "mean_of_views"  # names of layers
_PACKAGE = __name__.partition(".")[0]


def portable(model: keras.Model, *, operations: bool = False) -> keras.Model:
    """Copy a network without the layers that only deepsky knows, as far as that can be said; the answers are the same.

    The copy shares its weights with the network.

    Args:
        model: image -> answer, as ``heads.join`` and ``views.average_views`` make it.
        operations: write what no layer of Keras does (the stretch of flux, the decision tree) as operations: ``.keras``
            holds them. ``.h5`` does not, and keeps these layers.
    """
    if not _has_own(model):
        return model
    views = next((layer for layer in model.layers if isinstance(layer, DihedralViews)), None)
    if views is not None:
        core = next(layer for layer in model.layers if isinstance(layer, keras.Model))
        mean = next(layer for layer in model.layers if isinstance(layer, MeanOfViews))
        return spelled_out(portable(core, operations=operations), views.n_views, mean.swaps, model.name)

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Model):
            return portable(layer, operations=operations)
        return layer.stock() if hasattr(layer, "stock") else layer

    def called(layer: keras.layers.Layer, *inputs: Any, **options: Any) -> Any:
        return (layer.call if operations and _is_own(layer) else layer)(*inputs, **options)

    return keras.models.clone_model(model, clone_function=copied, call_function=called)


def spelled_out(core: keras.Model, n_views: int, swaps: Sequence[int], name: str) -> keras.Model:
    """Build what ``views.average_views`` builds, of Keras' own layers: each view goes through the core by itself.

    Views are made of transposing and mirroring left-right. Keras has no layer that mirrors; the product with a matrix
    of ones and zeros does it exactly.

    Args:
        core: image -> answer.
        n_views: 2, 4 or 8.
        swaps: as for ``average_views``.
        name: of the model.
    """
    image = keras.Input(core.input_shape[1:], dtype=core.inputs[0].dtype, name="image")
    _, width, n_channels = image.shape[1:]
    mirror = keras.layers.EinsumDense("nrcb,cd->nrdb", (None, width, n_channels), trainable=False, name="mirror")
    transpose = keras.layers.Permute((2, 1, 3), name="transpose")
    back = keras.layers.Dense(len(swaps), use_bias=False, trainable=False, dtype="float32", name=BACK)
    pixels, answers = keras.layers.Rescaling(1.0, name="to_float")(image), []
    for turns, mirrored in VIEWS[n_views]:
        view = pixels
        for step in ("m" * mirrored + ("", "mt", "mtmt", "tm")[turns]).replace("mm", ""):
            view = mirror(view) if step == "m" else transpose(view)
        answers.append(back(core(view)) if mirrored and list(swaps) != sorted(swaps) else core(view))
    mirror.kernel.assign(np.eye(width)[::-1])
    if back.built:
        back.kernel.assign(np.eye(len(swaps))[list(swaps)])
    return keras.Model(image, keras.layers.Average(dtype="float32", name=MEAN)(answers), name=name)


def fused(model: keras.Model) -> keras.Model:
    """Undo ``spelled_out``: all views go through the core together, which compiles it once instead of once per view.

    Args:
        model: a saved network; one that does not average over views comes back as it is.
    """
    mean = next((layer for layer in model.layers if layer.name == MEAN), None)
    if mean is None:
        return model
    core = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    back = next((layer for layer in model.layers if layer.name == BACK), None)
    swaps = range(core.output_shape[1]) if back is None else np.argmax(back.get_weights()[0], axis=1)
    n_views = cast(Literal[2, 4, 8], len(mean.input))
    return average_views(core, n_views, [int(place) for place in swaps], model.name)


def _has_own(model: keras.Model) -> bool:
    return any(_has_own(layer) if isinstance(layer, keras.Model) else _is_own(layer) for layer in model.layers)


def _is_own(layer: keras.layers.Layer) -> bool:
    return type(layer).__module__.partition(".")[0] == _PACKAGE
