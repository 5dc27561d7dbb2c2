"""Label values that are not 0, 1, 2, …: which become which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..cases import ValueChange
from ..labels import Label, LabelSet


@dataclass(frozen=True)
class Renumbering:
    """New values for the label files and for dataset.json; empty where all is well."""

    files: tuple[ValueChange, ...]
    declared: tuple[ValueChange, ...]

    def of_labels(self, labels: LabelSet) -> LabelSet:
        """The label set with new values."""
        new = {change.before: change.after for change in self.declared}

        def moved(label: Label) -> Label:
            return replace(label, values=tuple(new.get(value, value) for value in label.values))

        return LabelSet(
            tuple(moved(label) for label in labels.labels),
            tuple(new.get(value, value) for value in labels.regions_class_order),
        )


def declared_values(labels: LabelSet) -> frozenset[int]:
    """All values a label file may hold, ignore included."""
    return frozenset(labels.values) | ({labels.ignore_value} - {None})


def find_renumbering(labels: LabelSet, found: frozenset[int]) -> Renumbering | None:
    """How to get from the values `found` in all files to 0, 1, 2, …; None when that would be guessing.

    Values that dataset.json does not declare are matched to the declared ones in ascending order, provided that
    there are as many of them: 0 and 255 for the labels 0 and 1.
    """
    declared = declared_values(labels)
    meaning = _meaning(found - {0}, declared - {0})
    if meaning is None:
        return None
    final = {value: n for n, value in enumerate(sorted(declared | {0}))}
    return Renumbering(
        files=_changes((value, final[meaning.get(value, value)]) for value in sorted(found)),
        declared=_changes(sorted(final.items())),
    )


def _meaning(found: frozenset[int], declared: frozenset[int]) -> dict[int, int] | None:
    if found <= declared:
        return {}
    if len(found) != len(declared) or min(found) < 0:
        return None
    return dict(zip(sorted(found), sorted(declared), strict=True))


def _changes(pairs: Iterable[tuple[int, int]]) -> tuple[ValueChange, ...]:
    return tuple(ValueChange(before, after) for before, after in pairs if before != after)
