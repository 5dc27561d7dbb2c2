"""Pickles of numbers and text, read without importing or calling anything that the file names.

A pickle is a program. This reader knows the few names that nnU-Net's files need and puts a harmless stand-in behind
each of them; every other name, and every instruction that could make the reader take endless memory, is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import struct
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from .errors import ModelError

Name = tuple[str, str]
"""(module, name) as a pickle gives it."""
REFUSED = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(MemoryError, RecursionError, struct.error),
)
"""What a damaged or hostile pickle makes the reader raise."""
_NUMBER = re.compile(r"^([iu][1248]|f[248]|b1|[US]\d{1,4})$")
_MOST_AXES = 8
_FORBIDDEN = {
    *("NEXT_BUFFER", "READONLY_BUFFER", "PERSID", "BINPERSID", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"),
    *("EXT1", "EXT2", "EXT4"),
}
_PLACES = {"BINPUT", "LONG_BINPUT", "PUT"}


class PickledArray(Sequence):
    """A numpy array in a pickle: its rows as plain Python numbers, texts or lists."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        object.__setattr__(self, "_rows", ())

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("an array in a pickle cannot be changed")

    def __setstate__(self, state: object) -> None:
        _version, shape, kind, by_column, content = state
        object.__setattr__(self, "_rows", _rows(shape, kind, "F" if by_column else "C", content))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, k: int) -> object:
        return self._rows[k].tolist() if isinstance(self._rows, np.ndarray) else self._rows[k]

    def __iter__(self) -> Iterator[object]:
        return (self[k] for k in range(len(self)))


class Named:
    """Stands for a name in a pickle; calling it gives its harmless equivalent, if it has one. It cannot be changed."""

    __slots__ = ("name",)

    def __init__(self, name: Name) -> None:
        object.__setattr__(self, "name", name)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a name in a pickle cannot be changed")

    def __call__(self, *arguments: object) -> object:
        if self.name not in _CALLS:
            raise pickle.UnpicklingError(f"it calls {'.'.join(self.name)}")
        return _CALLS[self.name](*arguments)


def read_pickle(path: Path, largest_bytes: int, names: Collection[Name] = ()) -> object:
    """The content of a pickle of plain Python containers, numbers, texts and numpy arrays (as `PickledArray`).

    `names` may occur too and stand for themselves as `Named`. Raises ModelError when the file is missing, larger than
    `largest_bytes`, damaged, or names or calls anything else; nothing of it was run then.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"Expected the file {path}, found nothing there.")
    if path.stat().st_size > largest_bytes:
        raise ModelError(f"{path} is too large for a {path.name}; it was not read.")
    try:
        content = path.read_bytes()
        _require_plain_instructions(content)
        return _Reader(content, names).load()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror or error}); check its permissions.") from error
    except REFUSED as error:
        raise ModelError(
            f"{path} is no {path.name} of nnU-Net and was not read ({_line(error)}); get it from a source you trust."
        ) from error


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


class _NumberType:
    """Stands for a numpy number type; its pickled state tells only the byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, *_flags: object) -> None:
        self.code, self.order = code, "="
        if not isinstance(code, str) or not (_NUMBER.match(code) or self.is_object):
            raise pickle.UnpicklingError("expected numbers or texts, found another type")

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    @property
    def is_object(self) -> bool:
        return self.code in ("O", "O4", "O8")

    @property
    def type(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder(self.order)


class _Reader(pickle.Unpickler):
    def __init__(self, content: bytes, names: Collection[Name]) -> None:
        super().__init__(io.BytesIO(content))
        self._names = names

    def find_class(self, module: str, name: str) -> Named:
        if (module, name) not in _CALLS and (module, name) not in self._names:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return Named((module, name))


def _require_plain_instructions(content: bytes) -> None:
    """Refuses what no pickle of data has; a place far beyond the file's size would make the reader fill the memory."""
    for instruction, argument, _position in pickletools.genops(content):
        is_far = instruction.name in _PLACES and int(argument) > len(content)
        if instruction.name in _FORBIDDEN or is_far:
            raise pickle.UnpicklingError(f"it holds the instruction {instruction.name}")


def _number(kind: object, content: object = b"") -> object:
    values = np.frombuffer(_bytes(content), _type(kind))
    if len(values) != 1:
        raise pickle.UnpicklingError("expected one number")
    return values[0].item()


def _rows(shape: object, kind: object, order: str, content: object) -> np.ndarray | tuple:
    sizes = [shape] if isinstance(shape, int) else list(shape)
    if len(sizes) > _MOST_AXES or not all(type(n) is int and n >= 0 for n in sizes):
        raise pickle.UnpicklingError("expected an array's shape")
    if isinstance(kind, _NumberType) and kind.is_object:
        return _objects(sizes, content)
    values = np.frombuffer(_bytes(content), _type(kind))
    return values.reshape(sizes or (1,), order=order)


def _objects(sizes: list[int], content: object) -> tuple:
    if not isinstance(content, list) or len(sizes) != 1 or len(content) != math.prod(sizes):
        raise pickle.UnpicklingError("expected one row of values")
    return tuple(content)


def _empty_array(*_arguments: object) -> PickledArray:
    return PickledArray()


def _array_of_buffer(content: object, kind: object, shape: object, order: object) -> PickledArray:
    array = PickledArray()
    array.__setstate__((1, shape, kind, order == "F", content))
    return array


def _type(kind: object) -> np.dtype:
    if not isinstance(kind, _NumberType) or kind.is_object:
        raise pickle.UnpicklingError("expected a type of numbers or texts")
    return kind.type


def _bytes(content: object) -> bytes:
    if not isinstance(content, (bytes, bytearray, str)):
        raise pickle.UnpicklingError("expected bytes")
    return content.encode("latin1") if isinstance(content, str) else content


def _latin(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("expected bytes written as text")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


def _mapping(pairs: object = ()) -> dict:
    if not isinstance(pairs, (list, tuple)):
        raise pickle.UnpicklingError("expected pairs of keys and values")
    return {key: value for key, value in pairs}


_CALLS = {
    ("numpy", "dtype"): _NumberType,
    ("numpy", "ndarray"): _empty_array,
    ("_codecs", "encode"): _latin,
    **{
        (module, name): function
        for module in ("builtins", "__builtin__")
        for name, function in (("bytes", _empty_bytes), ("set", set), ("frozenset", frozenset))
    },
    ("collections", "OrderedDict"): _mapping,
    **{(f"{core}.multiarray", "scalar"): _number for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.multiarray", "_reconstruct"): _empty_array for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.numeric", "_frombuffer"): _array_of_buffer for core in ("numpy.core", "numpy._core")},
}
