"""Post-processing as a record, and nnU-Net's two files for it: postprocessing.json and postprocessing.pkl.

nnU-Net applies only the pickle, so we write one, opcode by opcode, that names nnU-Net's function without importing
it; a pickle is read by an unpickler that knows that one name and numpy's integers and calls nothing else.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import ModelError
from .labels import LabelSet, Region
from .records import read_json, write_json, written_whole
from .scores import Scores, averages_json

FUNCTION = "remove_all_but_largest_component_from_segmentation"
MODULE = "nnunetv2.postprocessing.remove_connected_components"
ARGUMENT = "labels_or_regions"
JSON_FILE, PICKLE_FILE = "postprocessing.json", "postprocessing.pkl"
_LARGEST_FILE = 1 << 20
_INTEGERS = {f"{sign}{size}" for sign in "iu" for size in (1, 2, 4, 8)}


@dataclass(frozen=True)
class KeepLargest:
    """One step: of all voxels of these targets taken together, only the largest component stays."""

    targets: tuple[Region, ...]

    @property
    def values(self) -> Region:
        """The label values of the joint mask."""
        return tuple(sorted({value for target in self.targets for value in target}))


@dataclass(frozen=True)
class PostProcessing:
    """Steps applied to a label map, in order."""

    steps: tuple[KeepLargest, ...] = ()

    def describe(self, label_set: LabelSet) -> str:
        """What is done, for people."""
        if not self.steps:
            return "nothing is removed"
        said = [" + ".join(label_set.name_of(target) for target in step.targets) for step in self.steps]
        return "keep only the largest component of " + ", then of ".join(said)


def save_postprocessing(postprocessing: PostProcessing, folder: Path, before: Scores, after: Scores) -> Path:
    """Write nnU-Net's JSON and pickle into a folder; returns the pickle's path. Raises StorageError."""
    arguments = [{ARGUMENT: _argument(step)} for step in postprocessing.steps]
    write_json(
        folder / JSON_FILE,
        {
            "input_folder": averages_json(before),
            "postprocessed": averages_json(after),
            "postprocessing_fns": [FUNCTION] * len(arguments),
            "postprocessing_kwargs": arguments,
        },
        sort_keys=True,
    )
    with written_whole(folder / PICKLE_FILE) as temporary:
        temporary.write_bytes(_pickled(arguments))
    return folder / PICKLE_FILE


def load_postprocessing(path: Path) -> PostProcessing:
    """Read postprocessing.json or .pkl, ours or nnU-Net's, or the one in a folder.

    Nothing in a file is run. Raises ModelError for a missing or foreign file and for steps unknown here.
    """
    path = Path(path)
    if path.is_dir():
        path = next((path / name for name in (JSON_FILE, PICKLE_FILE) if (path / name).is_file()), path / JSON_FILE)
    functions, arguments = _from_pickle(path) if path.suffix == ".pkl" else _from_json(path)
    if not isinstance(functions, list) or not isinstance(arguments, list) or len(functions) != len(arguments):
        raise ModelError(f"{path} should hold as many functions as arguments; determine the post-processing again.")
    return PostProcessing(tuple(_step(f, a, path) for f, a in zip(functions, arguments, strict=True)))


def _argument(step: KeepLargest) -> int | Region | list[int | Region]:
    """nnU-Net's value: a list of labels or regions, or a single one."""
    plain = [target[0] if len(target) == 1 else target for target in step.targets]
    return plain[0] if len(plain) == 1 else plain


def _step(function: object, arguments: object, path: Path) -> KeepLargest:
    if function != FUNCTION or not isinstance(arguments, Mapping) or set(arguments) != {ARGUMENT}:
        raise ModelError(f"{path} holds a step unknown here; expected only {FUNCTION} with {ARGUMENT}.")
    value = arguments[ARGUMENT]
    targets = [_target(part, path) for part in (value if isinstance(value, list) else [value])]
    if not targets:
        raise ModelError(f"{path} holds a step without labels; determine the post-processing again.")
    return KeepLargest(tuple(targets))


def _target(part: object, path: Path) -> Region:
    values = part if isinstance(part, (list, tuple)) else [part]
    if not values or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values):
        raise ModelError(f"{path} should name labels by whole numbers above 0, found something else.")
    return tuple(values)


def _from_json(path: Path) -> tuple[object, object]:
    values = read_json(path, ModelError)
    if not isinstance(values, Mapping) or not {"postprocessing_fns", "postprocessing_kwargs"} <= set(values):
        raise ModelError(f"{path} is no postprocessing.json of nnU-Net v2: expected postprocessing_fns and _kwargs.")
    return values["postprocessing_fns"], values["postprocessing_kwargs"]


def _from_pickle(path: Path) -> tuple[object, object]:
    if not path.is_file():
        raise ModelError(f"Expected the file {path}, found nothing there.")
    if path.stat().st_size > _LARGEST_FILE:
        raise ModelError(f"{path} is too large for a postprocessing.pkl; it was not read.")
    try:
        functions, arguments = _Reader(io.BytesIO(path.read_bytes())).load()
        return [_function_name(f) for f in functions], arguments
    except _PICKLE_ERRORS as error:
        raise ModelError(f"{path} is no postprocessing.pkl of nnU-Net and was not read ({error}).") from error


def _function_name(value: object) -> str:
    if not isinstance(value, _Named) or value.name != (MODULE, FUNCTION):
        raise pickle.UnpicklingError(f"expected the function {FUNCTION}, found a {type(value).__name__}")
    return FUNCTION


def _pickled(arguments: list[dict]) -> bytes:
    """Protocol 2 bytes of ([function, …], [{'labels_or_regions': …}, …])."""
    named = pickle.GLOBAL + f"{MODULE}\n{FUNCTION}\n".encode()
    functions = pickle.MARK + named * len(arguments) + pickle.LIST
    return pickle.PROTO + b"\x02" + pickle.MARK + functions + _opcodes(arguments) + pickle.TUPLE + pickle.STOP


def _opcodes(value: int | str | list | tuple | dict) -> bytes:
    if isinstance(value, int):
        return pickle.BININT + struct.pack("<i", value)
    if isinstance(value, str):
        return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, dict):
        return pickle.MARK + b"".join(_opcodes(k) + _opcodes(v) for k, v in value.items()) + pickle.DICT
    return pickle.MARK + b"".join(map(_opcodes, value)) + (pickle.LIST if isinstance(value, list) else pickle.TUPLE)


_PICKLE_ERRORS = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
    MemoryError, struct.error,
)  # fmt: skip
"""What a damaged or hostile pickle makes the unpickler raise."""


class _Named:
    """Stands for a name in a pickle. Calling it computes what numpy would for integers; it cannot be changed."""

    __slots__ = ("name",)

    def __init__(self, module: str, name: str) -> None:
        object.__setattr__(self, "name", (module, name))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a name in a pickle cannot be changed")

    def __call__(self, *arguments: object) -> object:
        function = _CALLS.get(self.name)
        if function is None:
            raise pickle.UnpicklingError(f"it calls {'.'.join(self.name)}")
        return function(*arguments)


class _IntegerType:
    """Stands for a numpy integer type; its pickled state (the byte order) is not needed."""

    __slots__ = ("code",)

    def __init__(self, code: str, *_flags: object) -> None:
        if code not in _INTEGERS:
            raise pickle.UnpicklingError("expected whole numbers, found another type")
        self.code = code

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in ("<", "|"):
            raise pickle.UnpicklingError("expected numbers in little-endian order")


def _integer(kind: object, data: object) -> int:
    if not isinstance(kind, _IntegerType) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("expected a whole number")
    return int.from_bytes(data, "little", signed=kind.code.startswith("i"))


def _latin(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("expected bytes written as text")
    return text.encode("latin1")


_CALLS = {
    ("numpy", "dtype"): _IntegerType,
    ("numpy.core.multiarray", "scalar"): _integer,
    ("numpy._core.multiarray", "scalar"): _integer,
    ("_codecs", "encode"): _latin,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _Named:
        if (module, name) != (MODULE, FUNCTION) and (module, name) not in _CALLS:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _Named(module, name)
