"""Pickles of PyTorch, read without executing anything in them.

Checkpoints of PyTorch are pickles, and a pickle can name any function of the machine and call it. Here a pickle is read by an
unpickler that knows tensors, ordered dictionaries and the values of Python itself; every other name in it stands for a
placeholder that takes whatever is done to it and does nothing. So a Lightning checkpoint full of callbacks and settings
loads without the packages it was written with, and a malicious one only yields placeholders. `torch.load` is not called.
"""

import functools
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, Self

import torch
from torch import Tensor

_STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in (
        *(("Float", torch.float32), ("Double", torch.float64), ("Half", torch.float16), ("BFloat16", torch.bfloat16)),
        *(("Long", torch.int64), ("Int", torch.int32), ("Short", torch.int16), ("Char", torch.int8)),
        *(("Byte", torch.uint8), ("Bool", torch.bool)),
        *(("ComplexFloat", torch.complex64), ("ComplexDouble", torch.complex128)),
    )
}


class LazyTensor(NamedTuple):
    """A tensor of a file that has not been read yet.

    Attributes:
        shape: its sizes.
        read: reads and returns it.
    """

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


class _Storage(NamedTuple):
    """The numbers of one or more tensors."""

    dtype: torch.dtype
    read: Callable[[], bytes]


class _Ignored:
    """Stands for every class and function that a pickle names and that is not needed: takes anything, does nothing.

    `__setstate__` is what keeps a pickle from setting attributes, on the class as well as on its instances.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__new__(cls)

    def _nothing(self, *args: object, **kwargs: object) -> Self:
        return self

    __call__ = __setstate__ = __setitem__ = append = extend = add = _nothing


class _RebuildTensor(_Ignored):
    """Called as PyTorch's function of this name is, gives a tensor that lies in a storage, to be read later."""

    def __new__(cls, storage: _Storage, offset: int, size: Any, stride: Any, *_: object) -> LazyTensor:
        return LazyTensor(tuple(int(n) for n in size), functools.partial(_read_tensor, storage, offset, size, stride))


class _RebuildParameter(_Ignored):
    """Called as PyTorch's function of this name is, gives the tensor of a parameter."""

    def __new__(cls, tensor: LazyTensor, *_: object) -> LazyTensor:
        return tensor


def _read_tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    data = bytearray(storage.read())
    numbers = torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)
    return torch.as_strided(numbers, size, stride, offset)  # refuses to leave the storage


_KNOWN = {
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor,
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter,
    ("collections", "OrderedDict"): OrderedDict,
    **{(module, name): dtype for name, dtype in _STORAGES.items() for module in ("torch", "torch.cuda")},
}


class Unpickler(pickle.Unpickler):
    """Reads tensors, containers and plain values; whatever else a pickle names becomes `_Ignored`.

    What `find_class` returns is all that a pickle can call or alter: the values of `_KNOWN` and the placeholder. None of them
    reaches further.

    Args:
        file: the pickle.
        read_storage: returns the bytes of the storage of a key.
    """

    def __init__(self, file: BinaryIO, read_storage: Callable[[str], bytes]) -> None:
        super().__init__(file, encoding="latin1")  # text of Python 2; no byte of it is invalid
        self.read_storage = read_storage
        self.dtypes: dict[str, torch.dtype] = {}  # one of each storage that was named

    def find_class(self, module: str, name: str) -> object:
        return _KNOWN.get((module, name), _Ignored)

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, _length, *view = pid
        if kind != "storage" or (view and view[0] is not None):
            raise pickle.UnpicklingError(f"a {kind} with a view {view} is older than PyTorch 0.4, and not supported")
        self.dtypes[key] = dtype
        return _Storage(dtype, functools.partial(self.read_storage, key))
