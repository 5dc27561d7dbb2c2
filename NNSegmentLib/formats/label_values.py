"""What the values in plain masks mean: which are one class, and when they look like something else than classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import TaskError, some

_MANY = 8
"""Classes that people draw by hand are seldom more; numbered objects and soft borders soon are."""


def is_one_class(per_mask: Sequence[frozenset[int]]) -> bool:
    """Whether some masks mark the only class with 1 and others with 255, as programs for drawing masks do."""
    marks = [values - {0} for values in per_mask]
    return frozenset().union(*marks) == {1, 255} and all(len(values) <= 1 for values in marks)


def require_same_colours(masks: Sequence[tuple[Path, Mapping[int, Sequence[int]]]]) -> None:
    """Raise TaskError where a number has different colours in the palettes of two masks: then nobody knows its meaning."""
    first: dict[int, tuple[Path, Sequence[int]]] = {}
    for path, colours in masks:
        for number, colour in colours.items():
            other, expected = first.setdefault(number, (path, colour))
            if colour != expected:
                raise TaskError(
                    f"The number {number} should mean the same in all masks, but it has the colour {_rgb(expected)} in "
                    f"{other.name} and {_rgb(colour)} in {path.name}: their palettes differ; save the masks as grey "
                    "values, 0 for the background and 1, 2, … for the labels."
                )


def _rgb(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{value:02x}" for value in colour)


def remarks(per_mask: Sequence[frozenset[int]], one_class: bool, named: bool) -> tuple[str, ...]:
    """Sentences about values that may mean something else than they become.

    `one_class` tells that 1 and 255 were taken for one class, `named` that values are meant as they are.
    """
    if one_class:
        return ("Some masks mark the foreground with 1 and others with 255; both are taken for one class.",)
    found = sorted(frozenset().union(*per_mask) - {0})
    has_gaps = bool(found) and found[-1] != len(found)
    differ = len({values - {0} for values in per_mask if values - {0}}) > 1
    if named or len(found) <= _MANY or not (has_gaps or differ):
        return ()
    return (
        f"The masks hold {len(found)} values ({some(found)}), each of which became a class of its own: if they number "
        "objects of one kind, give all of them 1; if they are soft borders of one mask, keep 0 and the highest value; "
        "then convert the folder again.",
    )
