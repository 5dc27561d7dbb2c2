"""Post-processing as a record, and nnU-Net's two files for it: postprocessing.json and postprocessing.pkl.

nnU-Net applies only the pickle, so we write one, opcode by opcode, that names nnU-Net's function without importing
it; a pickle is read by an unpickler that knows that one name and numpy's integers and calls nothing else.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import ModelError
from .labels import LabelSet, Region, region_key
from .pickled_values import Named, read_pickle
from .records import read_json, write_json, written_whole
from .scores import Scores, averages_json

FUNCTION = "remove_all_but_largest_component_from_segmentation"
MODULE = "nnunetv2.postprocessing.remove_connected_components"
ARGUMENT = "labels_or_regions"
JSON_FILE, PICKLE_FILE = "postprocessing.json", "postprocessing.pkl"
_CLASSES, _SIZES = "for_which_classes", "min_valid_object_sizes"
_LARGEST_FILE = 1 << 20
_ADVICE = "find the rules anew with 'nnsegment postprocess --references', or copy the file again"


@dataclass(frozen=True)
class KeepLargest:
    """One step: of all voxels of these targets taken together, only the largest component stays."""

    targets: tuple[Region, ...]
    by_faces: bool = False
    """Only voxels that share a face belong together (nnU-Net v1); else those that touch at a corner do too."""
    is_list: bool = field(default=False, compare=False)
    """Whether nnU-Net's argument is a list, of all labels or of a region's, even if of one; else it is a single label."""

    @property
    def values(self) -> Region:
        """The label values of the joint mask."""
        return tuple(sorted({value for target in self.targets for value in target}))


@dataclass(frozen=True)
class PostProcessing:
    """Steps applied to a label map, in order."""

    steps: tuple[KeepLargest, ...] = ()

    def describe(self, label_set: LabelSet | None = None) -> str:
        """What is done, for people; with the labels' names, or their values when these are not known."""
        if not self.steps:
            return "nothing is removed"
        name_of = label_set.name_of if label_set else lambda target: f"label {region_key(target)}"
        said = [" + ".join(map(name_of, step.targets)) for step in self.steps]
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
    if path.suffix == ".pkl":
        return _steps(*_from_pickle(path), path)
    values = read_json(path, ModelError)
    if isinstance(values, Mapping) and _CLASSES in values:
        return _from_version_1(values, path)
    return _steps(*_from_json(values, path), path)


def _steps(functions: object, arguments: object, path: Path) -> PostProcessing:
    if not isinstance(functions, list) or not isinstance(arguments, list) or len(functions) != len(arguments):
        raise ModelError(f"{path} should hold as many functions as arguments, found other numbers; {_ADVICE}.")
    return PostProcessing(tuple(_step(f, a, path) for f, a in zip(functions, arguments, strict=True)))


def _argument(step: KeepLargest) -> int | Region | list[int]:
    """nnU-Net's value: the list of all labels, a region, or a single label."""
    if len(step.targets) > 1:
        return list(step.values)
    target = step.targets[0]
    return target if len(target) > 1 or step.is_list else target[0]


def _step(function: object, arguments: object, path: Path) -> KeepLargest:
    if function != FUNCTION or not isinstance(arguments, Mapping) or set(arguments) != {ARGUMENT}:
        raise ModelError(f"{path} holds a step unknown here, expected only {FUNCTION} with {ARGUMENT}; {_ADVICE}.")
    value = arguments[ARGUMENT]
    return KeepLargest(_targets(value, path), is_list=isinstance(value, (list, tuple)))


def _targets(value: object, path: Path) -> tuple[Region, ...]:
    targets = tuple(_target(part, path) for part in (value if isinstance(value, list) else [value]))
    if not targets:
        raise ModelError(f"{path} holds a step without labels; {_ADVICE}.")
    return targets


def _target(part: object, path: Path) -> Region:
    values = part if isinstance(part, (list, tuple)) else [part]
    if not values or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values):
        raise ModelError(f"{path} should name labels by whole numbers above 0, found {str(part)[:60]!r}; {_ADVICE}.")
    return tuple(values)


def _from_version_1(values: Mapping, path: Path) -> PostProcessing:
    """Each entry is a label, or several that are one piece; smallest sizes are an option that nobody uses by default."""
    classes = values[_CLASSES]
    if not isinstance(classes, list):
        raise ModelError(f"{path} should list the labels it applies to, found {str(classes)[:60]!r}; {_ADVICE}.")
    if values.get(_SIZES) not in (None, "None"):
        raise ModelError(f"{path} asks for smallest object sizes, which are not supported; set {_SIZES} to None.")
    return PostProcessing(tuple(KeepLargest(_targets(entry, path), by_faces=True) for entry in classes))


def _from_json(values: object, path: Path) -> tuple[object, object]:
    if not isinstance(values, Mapping) or not {"postprocessing_fns", "postprocessing_kwargs"} <= set(values):
        raise ModelError(
            f"{path} is no postprocessing.json of nnU-Net: expected postprocessing_fns and postprocessing_kwargs; {_ADVICE}."
        )
    return values["postprocessing_fns"], values["postprocessing_kwargs"]


def _from_pickle(path: Path) -> tuple[object, object]:
    content = read_pickle(path, _LARGEST_FILE, {(MODULE, FUNCTION)})
    if not isinstance(content, tuple) or len(content) != 2 or not isinstance(content[0], list):
        raise ModelError(
            f"{path} is no postprocessing.pkl of nnU-Net: expected a list of functions and of arguments; {_ADVICE}."
        )
    functions, arguments = content
    return [_function_name(f, path) for f in functions], arguments


def _function_name(value: object, path: Path) -> str:
    if not isinstance(value, Named) or value.name != (MODULE, FUNCTION):
        raise ModelError(f"{path} holds a step unknown here, expected only {FUNCTION}; {_ADVICE}.")
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
