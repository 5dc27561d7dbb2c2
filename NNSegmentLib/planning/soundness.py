"""What a plans file must hold for its configurations to be trained and predicted with, and the sentences where it does not."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import PlanError
from .architecture import NetworkSpec, require_sound_network
from .topology import output_size

_LIST = (list, tuple)
_ENTRIES = {
    **dict.fromkeys(("dataset_name", "plans_name", "image_reader_writer"), (str, "a text")),
    **{"transpose_forward": (_LIST, "a list"), "configurations": (Mapping, "a JSON object")},
}
_ONLY_FOR_TRAINING = ("data_identifier", "batch_size", "median_image_size_in_voxels")
"""Entries that a model may lack which was stripped to what prediction needs."""
_CONFIGURATION_ENTRIES = {
    **{"data_identifier": (str, "a text"), "batch_size": ((int, float), "a number")},
    **dict.fromkeys(("patch_size", "median_image_size_in_voxels", "spacing"), (_LIST, "a list")),
    **dict.fromkeys(("normalization_schemes", "use_mask_for_norm"), (_LIST, "a list")),
}
"""What cannot be done without: entry → its kinds, and what to call them."""
_ANEW = "copy it again, or make it anew with 'nnsegment plan'"
_ADVICE = "correct it, or copy the file again"


def require_plan_entries(values: Any, where: str) -> None:
    """Raises PlanError for the first entry of a plans file that is missing or cannot be used."""
    require_mapping(values, where, "the file")
    _require_kinds(values, _ENTRIES, where, "the file")
    _require_plain(values, "plans_name", where)
    axes = values["transpose_forward"]
    if sorted(map(str, axes)) != ["0", "1", "2"]:
        why = f"the entry transpose_forward of the file should be 0, 1 and 2 in some order, found {str(axes)[:60]!r}"
        raise PlanError(no_plan(where, why))


def require_configuration_entries(values: Mapping, name: str, where: str) -> None:
    """Raises PlanError for the first entry that is missing where prediction needs it, or of another kind."""
    _require_kinds(values, _CONFIGURATION_ENTRIES, where, f"the configuration {name}")
    _require_plain(values, "data_identifier", where)


def require_mapping(values: Any, where: str, what: str) -> None:
    """Raises PlanError unless what was read is a JSON object."""
    if not isinstance(values, Mapping):
        raise PlanError(no_plan(where, f"{what} should be a JSON object, found {str(values)[:60]!r}"))


def unreadable(where: str, what: str, wrong: Exception) -> PlanError:
    """What to raise for an entry deeper inside."""
    if isinstance(wrong, KeyError):
        return PlanError(no_plan(where, f"the entry {str(wrong.args[0])[:60]} of {what} is missing"))
    return PlanError(no_plan(where, f"an entry of {what} is of another kind than it should be"))


def no_plan(where: str, why: str) -> str:
    """The sentence about a file that cannot be used as a plan at all."""
    return f"{where} is no nnU-Net v2 plans file: {why}; {_ANEW}."


def require_sound_entries(values: Mapping, name: str, where: str) -> None:
    """Raises PlanError for the first entry of a configuration whose numbers nothing can be done with.

    Entries that only training needs may be missing.
    """
    patch = values["patch_size"]
    axes = "3 numbers" if len(patch) == 3 else "2 numbers"
    checks = (
        ("patch_size", "2 or 3 whole numbers from 1 on", len(patch) in (2, 3) and all(map(_is_whole, patch))),
        ("spacing", f"{axes} above 0, one for each axis of the patch", _are_sizes(values["spacing"], len(patch))),
        ("normalization_schemes", "texts", all(isinstance(n, str) for n in values["normalization_schemes"])),
        ("batch_size", "a whole number from 1 on", _is_whole(values.get("batch_size", 1))),
        (
            "median_image_size_in_voxels",
            f"{axes} above 0, one for each axis of the patch",
            _are_sizes(values.get("median_image_size_in_voxels", patch), len(patch)),
        ),
    )
    for key, expected, is_sound in checks:
        if not is_sound:
            raise _unsound(where, name, key, expected, values[key])


def require_fitting_network(network: NetworkSpec, patch_size: tuple[int, ...], name: str, where: str) -> None:
    """Raises PlanError unless the network answers a patch with one of the same size."""
    require_sound_network(network, patch_size, f"The network of the configuration {name} in {where}")
    try:
        answer, why = output_size(network, patch_size), ""
    except ValueError as wrong:
        answer, why = None, f" ({wrong})"
    if answer == patch_size:
        return
    divisor = [math.prod(axis) for axis in zip(*network.strides, strict=True)]
    if any(n % d for n, d in zip(patch_size, divisor, strict=True)):
        expected = f"divisible by the product of the strides, {' × '.join(map(str, divisor))}"
        raise _unsound(where, name, "patch_size", expected, list(patch_size))
    if any(n % 2 == 0 for kernel in (*network.kernel_sizes, *network.decoder_kernels) for n in kernel):
        kernels = [list(kernel) for kernel in network.kernel_sizes]
        raise _unsound(
            where, name, "kernel_sizes", "odd numbers, which keep the size of what they are applied to", kernels
        )
    raise PlanError(
        f"{where}: the network of the configuration {name} should answer a patch of {patch_size} voxels with as many, "
        f"but cannot{why}; {_ADVICE}."
    )


def _unsound(where: str, name: str, key: str, expected: str, found: Any) -> PlanError:
    return PlanError(
        f"{where}: the entry {key} of the configuration {name} should be {expected}, found {str(found)[:60]}; {_ADVICE}."
    )


def _are_sizes(numbers: Sequence, n: int) -> bool:
    return len(numbers) == n and all(_is_number(number) and 0 < number < math.inf for number in numbers)


def _is_whole(number: Any) -> bool:
    return _is_number(number) and 1 <= number < math.inf and number == int(number)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _require_kinds(values: Mapping, expected: Mapping, where: str, what: str) -> None:
    for key, (kinds, words) in expected.items():
        is_there = key in values or key not in _ONLY_FOR_TRAINING
        if is_there and not isinstance(values.get(key), kinds):
            found = repr(str(values[key])[:60]) if key in values else "none"
            raise PlanError(no_plan(where, f"the entry {key} of {what} should be {words}, found {found}"))


def _require_plain(values: Mapping, key: str, where: str) -> None:
    """Raises PlanError when a text that names folders of the task would lead out of them."""
    text = values.get(key, "")
    if re.search(r"[/\\:]", text) or text in (".", ".."):
        raise PlanError(no_plan(where, f"the entry {key} should have no '/', '\\' or ':', found {text[:60]!r}"))
