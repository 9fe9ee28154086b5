"""Import Keras without the packages that it only looks for on the side: they are half the time of its import.

Keras and TensorFlow offer wrappers for scikit-learn, plots of networks, conversions from JAX and the like wherever such
a package is installed, and import it for that. Nobody here asks for any of it. Whoever needs one of these packages
imports it as ever, before or after.

On a GPU, memory is taken as it is needed: by themselves TensorFlow and JAX take all of it, or most, and a second stage
on the card finds none.
"""

import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_NOT_NEEDED = frozenset({"sklearn", "matplotlib", "scipy", "pandas", "PIL", "jax"})
_STDERR = 2
_GREETINGS = (b"I0000 ", b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR")
_SAME_BYTES = "--xla_gpu_deterministic_ops=true"
_OF_JAX = frozenset({"jax", "scipy"})  # what Keras does need where JAX computes


class _KerasFinder(MetaPathFinder):
    """Finds Keras; while that is imported, its thread does not find the packages above."""

    def __init__(self) -> None:
        self.refused: frozenset[str] = frozenset()
        self.thread = 0

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if threading.get_ident() == self.thread and name.partition(".")[0] in self.refused:
            raise ModuleNotFoundError(f"{name} is left out while Keras is imported", name=name)
        if name != "keras" or (spec := PathFinder.find_spec(name)) is None or spec.loader is None:
            return None
        spec.loader = _KerasLoader(spec.loader, self)
        return spec


class _KerasLoader(Loader):
    """Loads Keras as its own loader does."""

    def __init__(self, own: Loader, finder: _KerasFinder) -> None:
        self._own, self._finder = own, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__
        module.__spec__.loader = module.__loader__ = self._own  # whom those see who look for its files
        self._finder.refused = _NOT_NEEDED - _OF_JAX if backend() == "jax" else _NOT_NEEDED
        self._finder.thread = threading.get_ident()
        try:
            with _without_greetings():
                self._own.exec_module(module)
        finally:
            self._finder.thread = 0


@contextmanager
def _without_greetings() -> Iterator[None]:
    """Leave out what TensorFlow's libraries write to stderr about themselves while they load, whatever their level.

    All else that is written meanwhile goes there afterwards. Whoever asks for these lines by TF_CPP_MIN_LOG_LEVEL=0
    gets them.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") == "0":
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(_STDERR)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, _STDERR)
            os.close(stderr)
            said.seek(0)
            os.write(_STDERR, b"".join(line for line in said if not line.startswith(_GREETINGS)))


def backend() -> str:
    """Return the backend that Keras will choose: as the environment says, else as a person's keras.json does."""
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"]
    file = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras", "keras.json")
    with suppress(OSError, ValueError, AttributeError):
        return str(json.loads(file.read_text()).get("backend", "tensorflow"))
    return "tensorflow"


def compute_deterministically(wanted: bool) -> None:
    """Let a GPU give the same bytes each time, at a cost; a CPU always does.

    Of this process and those that it starts from now on, as long as Keras has computed nothing in it yet.

    Args:
        wanted: what params.yaml says; False: nothing changes.
    """
    if wanted:
        os.environ["TF_DETERMINISTIC_OPS"] = "1"
        flags = os.environ.get("XLA_FLAGS", "").split()  # JAX computes by XLA, and TensorFlow where it compiles
        os.environ["XLA_FLAGS"] = " ".join([*(flag for flag in flags if flag != _SAME_BYTES), _SAME_BYTES])


def computes_deterministically() -> bool:
    """Tell whether a GPU was asked to give the same bytes each time."""
    return os.environ.get("TF_DETERMINISTIC_OPS") == "1" and _SAME_BYTES in os.environ.get("XLA_FLAGS", "").split()


sys.meta_path.insert(0, _KerasFinder())
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
