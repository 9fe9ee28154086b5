"""A trained network in Keras' own layers, so that whoever has Keras can load it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, cast

import keras
import numpy as np

from deepsky.networks.views import VIEWS, DihedralViews, MeanOfViews, average_views

BACK, MEAN = "mirror_back", "mean_of_views"  # names of layers
Form = Literal["h5", "keras", "graph"]
_PACKAGE = __name__.partition(".")[0]


def portable(model: keras.Model, form: Form = "h5") -> keras.Model:
    """Copy a network without the layers that only deepsky knows, as far as that can be said; the answers are the same.

    The copy shares its weights with the network.

    Args:
        model: image -> answer, as ``heads.join`` and ``views.average_views`` make it.
        form: ``h5`` keeps what no layer of Keras does: the stretch of flux, the decision tree. ``keras`` writes them as
            operations, which only ``.keras`` can hold. ``graph`` also does by simpler means what no exporter can
            translate, as TensorFlow's antialiased resizing.
    """
    if form == "graph":
        return _copied(portable(model, "keras"), lambda layer: _GRAPH.get(type(layer).__name__))
    views = next((layer for layer in model.layers if isinstance(layer, DihedralViews)), None)
    if views is not None:
        core = next(layer for layer in model.layers if isinstance(layer, keras.Model))
        mean = next(layer for layer in model.layers if isinstance(layer, MeanOfViews))
        return spelled_out(portable(core, form), views.n_views, mean.swaps, model.name)
    return _copied(model, _stock if form == "h5" else _stock_or_operations)


def spelled_out(core: keras.Model, n_views: int, swaps: Sequence[int], name: str) -> keras.Model:
    """Build what ``views.average_views`` builds, of Keras' own layers: each view goes through the core by itself.

    Views are made of transposing and mirroring left-right. Keras has no layer that mirrors; the product with a matrix
    of ones and zeros does it, exactly for the whole numbers of pictures.

    Args:
        core: image -> answer.
        n_views: 2, 4 or 8.
        swaps: as for ``average_views``.
        name: of the model.
    """
    image = keras.Input(core.input_shape[1:], dtype=core.inputs[0].dtype, name="image")
    mirror = keras.layers.EinsumDense("nrcb,cd->nrdb", image.shape[1:], trainable=False, name="mirror")
    transpose = keras.layers.Permute((2, 1, 3), name="transpose")
    back = keras.layers.Dense(len(swaps), use_bias=False, trainable=False, dtype="float32", name=BACK)
    pixels, answers = keras.layers.Rescaling(1.0, name="to_float")(image), []
    for turns, mirrored in VIEWS[n_views]:
        view = pixels
        for step in ("m" * mirrored + ("", "mt", "mtmt", "tm")[turns]).replace("mm", ""):
            view = mirror(view) if step == "m" else transpose(view)
        answers.append(back(core(view)) if mirrored and list(swaps) != sorted(swaps) else core(view))
    mirror.kernel.assign(np.eye(image.shape[2])[::-1])
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


def _copied(model: keras.Model, stand_in: Callable[[Any], Callable[..., Any] | None]) -> keras.Model:
    """Copy a network with other layers or operations in the place of some; the others it shares.

    Args:
        model: functional; networks in it are copied likewise.
        stand_in: one of its layers or operations -> what is called in its place, first with it; None: it stays.
    """
    if not any(map(stand_in, _operations(model))):
        return model

    def copied(one: Any) -> Any:
        return _copied(one, stand_in) if isinstance(one, keras.Model) else one

    def called(one: Any, *inputs: Any, **options: Any) -> Any:
        other = stand_in(one)
        return one(*inputs, **options) if other is None else other(one, *inputs)

    return keras.models.clone_model(model, clone_function=copied, call_function=called)


def _operations(model: keras.Model) -> Iterator[Any]:
    for one in model.operations:
        if isinstance(one, keras.Model):
            yield from _operations(one)
        else:
            yield one


def _stock(layer: Any) -> Callable[..., Any] | None:
    return (lambda own, *inputs: own.stock()(*inputs)) if hasattr(layer, "stock") else None


def _stock_or_operations(layer: Any) -> Callable[..., Any] | None:
    is_own = type(layer).__module__.partition(".")[0] == _PACKAGE
    return _stock(layer) or ((lambda own, *inputs: own.call(*inputs)) if is_own else None)


def _resized(layer: keras.layers.Resizing, pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Resize as a layer does, by a product for the rows and one for the columns: resizing is linear."""
    for axis, size_px, equation in ((1, layer.height, "nrcb,rs->nscb"), (2, layer.width, "nrcb,cs->nrsb")):
        n_before, shape = pixels.shape[axis], list(pixels.shape[1:])
        shape[axis - 1] = size_px
        product = keras.layers.EinsumDense(equation, tuple(shape), trainable=False, name=f"{layer.name}_{axis}")
        pixels = product(pixels)
        # What becomes of each single bright row: those of the product's matrix.
        single = np.eye(n_before, dtype=np.float32)[np.newaxis, :, :, np.newaxis]
        options = {"interpolation": layer.interpolation, "antialias": layer.antialias}
        matrix = keras.ops.image.resize(single, (n_before, size_px), **options)
        product.kernel.assign(matrix[0, :, :, 0])
    return pixels


def _log1p(_: Any, value: Any) -> Any:
    """Return log(1 + value) as exactly, of values that are not negative: the rounding of the sum cancels.

    Source:
        W. Kahan, as in Goldberg 1991, ACM Computing Surveys 23, 5, theorem 4.
    """
    rounded = 1.0 + value
    is_small = keras.ops.equal(rounded, 1.0)
    exact = value * keras.ops.log(rounded) / keras.ops.where(is_small, 1.0, rounded - 1.0)
    return keras.ops.where(is_small, value, exact)


# What other programs do not know of TensorFlow, by Keras' name for it.
_GRAPH: dict[str, Callable[..., Any]] = {"Resizing": _resized, "Log1p": _log1p}
