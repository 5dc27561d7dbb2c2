"""Label files of segments that may overlap: written one case at a time, their values settled when all are known.

Which segments overlap, and so which values the labels need, is known only after the last case. Until then single
segments have their value in the labels, and combinations of segments the values after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cases import ValueChange
from ..errors import require_choice
from ..geometry import Geometry
from ..image import read_labels, write_labels
from ..labels import LabelSet
from .overlaps import Combined, Names, painted_value, require_no_overlap, value_table, with_overlaps

OVERLAPS = ("order", "regions", "refuse")
"""What becomes of segments that overlap: the later label wins, they become regions, or the case is refused."""


@dataclass(frozen=True)
class LabelFile:
    """A label file, and the value that each combination of segments has in it."""

    case_id: str
    path: Path
    values: tuple[tuple[Names, int, int], ...]
    """(segments, value, voxels) of what occurs."""


def write_provisional(path: Path, case_id: str, segments: Combined, geometry: Geometry, labels: LabelSet) -> LabelFile:
    """Write a label file with values that `settle_values` makes final; raises StorageError."""
    known = {frozenset(): 0} | {frozenset([label.name]): label.values[0] for label in labels.labels[1:]}
    for names in segments.combinations:
        known.setdefault(names, len(known))
    write_coded(path, segments, [known[names] for names in segments.combinations], geometry)
    return LabelFile(case_id, path, tuple((s, known[s], n) for s, n in segments.counts.items()))


def write_coded(path: Path, segments: Combined, values: Sequence[int], geometry: Geometry) -> None:
    """Write a label file with `values[i]` for combination number i; raises StorageError."""
    write_labels(path, np.asarray(values, np.uint16)[segments.codes], geometry)


def settle_values(
    written: Sequence[LabelFile], labels: LabelSet, overlap: str
) -> tuple[LabelSet, list[tuple[str, ...]]]:
    """Give label files their final values, now that it is known which segments overlap in any case.

    With "order" every voxel gets the last of its segments in the order of the labels; with "regions" segments that
    overlap become regions; with "refuse" TaskError names them. Returns the labels, and for each file sentences about
    overlaps in which the later label was kept. Raises TaskError, SettingsError, StorageError.
    """
    require_choice("overlaps", overlap, OVERLAPS)
    totals: dict[Names, int] = {}
    for file in written:
        for names, _, voxels in file.values:
            totals[names] = totals.get(names, 0) + voxels
        if overlap == "refuse":
            require_no_overlap(file.case_id, {names: voxels for names, _, voxels in file.values})
    if overlap != "order":
        labels = with_overlaps(labels, totals)
    table = value_table(labels)
    return labels, [_settle(file, labels, table) for file in written]


def renumbered(labels: np.ndarray, changes: tuple[ValueChange, ...]) -> np.ndarray:
    """Labels (Z, Y, X) with every `before` value replaced by its `after` value; others stay."""
    if not changes:
        return labels
    highest = max(int(labels.max()), *(change.before for change in changes))
    new_values = np.arange(highest + 1, dtype=np.int32)
    for change in changes:
        new_values[change.before] = change.after
    return new_values[labels]


def kept_later(names: Names, voxels: int) -> str:
    """The sentence about an overlap that was painted over."""
    return f"{' and '.join(sorted(names))} overlap in {voxels} voxels, of which the later label was kept."


def _settle(file: LabelFile, labels: LabelSet, table: dict[Names, int]) -> tuple[str, ...]:
    changes, notes = [], []
    for names, before, voxels in file.values:
        after = table.get(names)
        if after is None:
            after = painted_value(labels, names)
            notes.append(kept_later(names, voxels))
        if after != before:
            changes.append(ValueChange(before, after))
    if changes:
        found = read_labels(file.path)
        write_labels(file.path, renumbered(found.array, tuple(changes)), found.geometry)
    return tuple(notes)
