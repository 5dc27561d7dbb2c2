"""Reading torch files without running anything in them: torch's restricted unpickler with a short allow-list.

nnU-Net's checkpoints hold numpy scalars, which the restricted unpickler refuses. The stand-ins below read them as plain
Python numbers, so that nothing of numpy is called with values from the file.
"""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelError
from ..model.archive import ZipOnDisk
from ..packages import OLDEST_TORCH, release_of

REFUSED_BY_TORCH = (
    *(pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError, TypeError, ValueError),
    *(AttributeError, AssertionError, ArithmeticError, ImportError, MemoryError, struct.error, zipfile.BadZipFile),
)
"""What torch's reader raises for damaged files: its restricted unpickler meets whatever the bytes say."""
_NUMBER_FORMATS = {
    **{"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b"},
    **{"u8": "Q", "u4": "I", "u2": "H", "u1": "B", "b1": "?"},
}
_SLACK_BYTES = 1 << 20
"""How much more than its size on disk a torch file may claim to hold; torch stores without compression."""


class _StoredType:
    """Stands in for numpy.dtype while unpickling; remembers the code of the number type and its byte order."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        self.code = code
        self.order = "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _stored_number(kind: _StoredType, data: bytes = b"") -> float | int | bool:
    """Stands in for numpy's scalar reconstruction."""
    if not isinstance(kind, _StoredType) or kind.code not in _NUMBER_FORMATS:
        raise pickle.UnpicklingError("a numpy value that is no number")
    data = data.encode("latin1") if isinstance(data, str) else data
    return struct.unpack(kind.order + _NUMBER_FORMATS[kind.code], data)[0]


_ALLOWED = [
    (_StoredType, "numpy.dtype"),
    (_stored_number, "numpy._core.multiarray.scalar"),
    (_stored_number, "numpy.core.multiarray.scalar"),
    torch.device,
    _StoredType,
    _stored_number,
]


def load_without_running(path: Path, mapped: bool = False) -> Any:
    """The content of a torch file, tensors on the CPU.

    `mapped` leaves the tensors in the file until they are used; for reading weights once, not for a file that is
    going to be replaced. Raises ModelError when the file is missing, damaged, or wants anything but data, and with
    versions of torch that cannot be kept from running it.
    """
    path = Path(path)
    if release_of(torch.__version__) < OLDEST_TORCH:
        raise ModelError(
            f"{path} was not opened, because torch {torch.__version__} may run code that a file of weights holds; install "
            "torch 2.6 or newer."
        )
    if not path.is_file():
        raise ModelError(f"Expected the checkpoint {path}, found nothing there; copy the whole model or train it.")
    try:
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            _require_honest_sizes(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_ALLOWED):
            warnings.simplefilter("ignore")  # old storage types announce their retirement
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_zip)
    except REFUSED_BY_TORCH as error:
        raise ModelError(_refusal(path, error)) from error


def _require_honest_sizes(path: Path) -> None:
    with ZipOnDisk(path) as file, file.listed() as archive:
        claimed = sum(member.file_size for member in archive.infolist())
    if claimed > path.stat().st_size + _SLACK_BYTES:
        raise ModelError(
            f"{path} claims to hold {claimed} bytes in a file of {path.stat().st_size}; "
            "it is no checkpoint, get the model again from a source you trust."
        )


def _refusal(path: Path, error: BaseException) -> str:
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) and ("Unsupported" in text or "GLOBAL" in text):
        return (
            f"{path} holds more than numbers and text (it asks to run code or load unknown objects) and was not opened; "
            "get the model again from a source you trust."
        )
    return f"{path} cannot be read as a checkpoint; it may be damaged or incomplete, copy or train it again."
