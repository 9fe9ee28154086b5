"""Reads the arrays of a legacy PyTorch archive, without PyTorch.

Such a file is a few pickles, of which the fourth is the state dict (each tensor as the key of a storage, an offset, a
shape and strides) and the fifth the order of the storages; then, for each of them, the number of values as a
little-endian int64, and the values. A pickle may call whatever it names: this reader knows four names, none of which
does anything, and reads only a file whose SHA-256 is expected.

Source:
    torch.serialization, ``_legacy_save``.
"""

import hashlib
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from deepsky.errors import WeightsError

_STATE, _ORDER = 3, 4  # which pickle; before them magic number, protocol and byte order
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


def read_archive(content: bytes, sha256: str, where: object) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a state dict, by name.

    Args:
        content: the file.
        sha256: of the file that is meant; no other is read.
        where: names the file in an error.

    Raises:
        WeightsError: it is another file.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise WeightsError(
            where, f"has SHA-256 {found}, not {sha256}", "take it away, or install its package again: make clean setup"
        )
    file = BytesIO(content)
    pickles = [_Reader(file).load() for _ in range(_ORDER + 1)]
    storages: dict[str, npt.NDArray[Any]] = {}
    kinds = {tensor.storage: tensor.dtype for tensor in pickles[_STATE].values()}
    for key in pickles[_ORDER]:
        n_values = int.from_bytes(file.read(8), "little")
        storages[key] = np.frombuffer(file.read(n_values * kinds[key].itemsize), kinds[key])
    return {name: tensor.array(storages[tensor.storage]) for name, tensor in pickles[_STATE].items()}


@dataclass(frozen=True)
class _Tensor:
    """Where the values of a tensor stand; offset and strides count values."""

    storage: str
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, storage: npt.NDArray[Any]) -> npt.NDArray[Any]:
        strides = tuple(one * self.dtype.itemsize for one in self.strides)
        return np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, strides, writeable=False)


def _rebuild(storage: tuple[str, np.dtype[Any]], offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(*storage, offset, tuple(shape), tuple(strides))


_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


class _Reader(pickle.Unpickler):
    """An unpickler that knows the names that stand in a state dict, and no other."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a state dict") from None

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype[Any]]:
        _, dtype, key, *_ = pid
        return key, dtype
