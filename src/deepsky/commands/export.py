"""Write a trained network in a format of other programs, and run what was written."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import click
import keras
import numpy as np
import numpy.typing as npt

from deepsky.commands.models import find_model
from deepsky.errors import DeepSkyError
from deepsky.files import whole_file
from deepsky.networks.portable import portable
from deepsky.training.saved import ModelCard, load_network

Format = Literal["keras", "onnx", "litert"]
_Images = npt.NDArray[Any]
_CLOSE = 1e-4  # how far answers may lie apart: every runtime orders its sums in its own way
_INSTALL = 'install it: pip install "deepsky[export]"'


@dataclass(frozen=True)
class _Writer:
    """A format.

    Attributes:
        suffix: of its files.
        needs: packages to write it.
        runtime: package that runs it.
        answers: (file, images) -> what the runtime answers.
    """

    suffix: str
    needs: tuple[str, ...]
    runtime: str
    answers: Callable[[Path, _Images], _Images]


def run(model: str, kind: Format, out: Path | None) -> None:
    """Write a network, and compare what the written file answers.

    Args:
        model: a run, or the ``.h5`` of one.
        kind: the format.
        out: the file; None: DATASET-NETWORK with the format's suffix, in the current folder.

    Raises:
        DeepSkyError: a package is missing, the exporter fails, or the written file answers something else; nothing is
            left then.
        DataError: there is no such network.
    """
    writer = _WRITERS[kind]
    for package in writer.needs:
        if find_spec(package) is None:
            raise DeepSkyError(f"--format {kind}", f"needs the package {package}", _INSTALL)
    network, card = load_network(find_model(model))
    out = out or Path(f"{card.dataset}-{card.network}{writer.suffix}")
    if out.suffix != writer.suffix:
        raise DeepSkyError(out, f"is no name of a {kind} file", f"let it end in {writer.suffix}")
    with whole_file(out) as path:
        with _one_line_errors(out):
            _write(network, kind, path)
        checked = _checked(writer, path, network, card)
    click.echo(f"{out}: {_inputs(card)} -> {', '.join(card.outputs[:12])}{', ...' * (len(card.outputs) > 12)}")
    click.echo(checked)


def _write(network: keras.Model, kind: Format, path: Path) -> None:
    if kind == "keras":
        portable(network, "keras").save(path)
    else:
        plain = portable(network, "graph")
        plain(np.zeros((1, *plain.input_shape[1:]), plain.inputs[0].dtype))  # Keras exports what was called once
        plain.export(path, format=kind, verbose=False)


def _checked(writer: _Writer, path: Path, network: keras.Model, card: ModelCard) -> str:
    """Compare the answers about some noise; return what to say of it."""
    if find_spec(writer.runtime.partition(".")[0]) is None:
        return f"not checked: {writer.runtime} is missing, which would run it; {_INSTALL}"
    rng = np.random.default_rng(0)
    shape = (3, *card.image_shape)
    is_flux = card.kind == "flux"
    images = rng.normal(0.1, 0.3, shape).astype(np.float32) if is_flux else rng.integers(0, 256, shape, np.uint8)
    wanted = network.predict_on_batch(images)
    with _one_line_errors(path):
        apart = float(np.abs(writer.answers(path, images) - wanted).max())
    if not apart <= _CLOSE:
        problem = f"what was written answers something else (by {apart:.2g})"
        raise DeepSkyError(path.name, problem, "report it, with the network; nothing was kept")
    return f"checked by {writer.runtime}: its answers are at most {apart:.1g} apart"


def _inputs(card: ModelCard) -> str:
    height, width, n_channels = card.image_shape
    what = (
        f"flux in nanomaggies ({', '.join(card.bands)})" if card.kind == "flux" else f"uint8, {', '.join(card.bands)}"
    )
    return f"(n, {height}, {width}, {n_channels}) {what}"


def _by_keras(path: Path, images: _Images) -> _Images:
    answers: _Images = keras.models.load_model(path, compile=False).predict_on_batch(images)
    return answers


def _by_onnxruntime(path: Path, images: _Images) -> _Images:
    from onnxruntime import InferenceSession

    session = InferenceSession(path)
    answers: _Images = session.run(None, {session.get_inputs()[0].name: images})[0]
    return answers


def _by_litert(path: Path, images: _Images) -> _Images:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    (first,), (last,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(first["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(first["index"], images)
    interpreter.invoke()
    answers: _Images = interpreter.get_tensor(last["index"])
    return answers


_WRITERS: dict[Format, _Writer] = {
    "keras": _Writer(".keras", (), "keras", _by_keras),
    "onnx": _Writer(".onnx", ("tf2onnx",), "onnxruntime", _by_onnxruntime),
    "litert": _Writer(".tflite", (), "ai_edge_litert", _by_litert),
}


@contextlib.contextmanager
def _one_line_errors(where: Path) -> Iterator[None]:
    """Hold back what exporters print, and say their errors in a line."""
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # whatever Keras, TensorFlow or a runtime trips over
        problem = " ".join(str(error).split())[:300] or type(error).__name__
        raise DeepSkyError(where, f"cannot be written or run ({problem})", "try another --format") from error
