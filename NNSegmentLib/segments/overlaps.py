"""Segments that overlap, written as one label map: a value for each combination, regions for the segments.

A voxel that belongs to liver and tumor gets another value than one of the liver alone; the label "liver" then covers
both values. nnU-Net finds each label as a region and paints the regions in turn, so that later ones win. Where painting
alone cannot tell that two segments overlap, their intersection is made a label of its own, named "liver & tumor".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import TaskError
from ..labels import BACKGROUND, IGNORE, Label, LabelSet

Names = frozenset[str]
AND = " & "
TOLERANCE = 0.01
"""Overlaps of up to this share of the smaller segment are slips of the brush: the later label wins."""


@dataclass(frozen=True)
class Layer:
    """Segments that do not overlap, in one array."""

    array: np.ndarray
    """(Z, Y, X) integers."""
    names: tuple[tuple[int, str], ...]
    """(value in the array, segment name); other values are nothing."""


@dataclass(frozen=True)
class Combined:
    """All segments in one array: each voxel says which combination of segments it belongs to."""

    codes: np.ndarray
    """(Z, Y, X) uint16, positions in `combinations`."""
    combinations: tuple[Names, ...]
    """The first is the empty one."""
    voxels: tuple[int, ...]
    """How many voxels have each combination."""

    @property
    def counts(self) -> dict[Names, int]:
        """Voxels of each combination that occurs, the empty one left out."""
        return {names: n for names, n in zip(self.combinations, self.voxels, strict=True) if names and n}

    def has(self, name: str) -> bool:
        """Whether any voxel belongs to this segment."""
        return any(name in names for names in self.counts)


def combined(shape: tuple[int, int, int], layers: Iterable[Layer]) -> Combined:
    """Lay layers over each other; where the segment "ignore" is, nothing else counts."""
    codes, table = np.zeros(shape, np.uint16), [frozenset()]
    for layer in layers:
        codes, table = _added(codes, table, layer)
    ignored = frozenset([IGNORE])
    unique = list(dict.fromkeys(ignored if IGNORE in names else names for names in table))
    new_codes = np.array([unique.index(ignored if IGNORE in names else names) for names in table], np.uint16)
    codes = new_codes[codes]
    return Combined(codes, tuple(unique), tuple(np.bincount(codes.ravel(), minlength=len(unique)).tolist()))


def with_overlaps(labels: LabelSet, counts: Mapping[Names, int], tolerance: float = TOLERANCE) -> LabelSet:
    """The labels of a task whose segments occur in these combinations (voxels over all cases).

    `labels` has one value per name. It comes back unchanged when nothing overlaps by more than the tolerance.
    """
    names = [label.name for label in labels.foreground]
    sizes = {name: sum(n for found, n in counts.items() if name in found) for name in names}
    overlaps = [s for s, n in counts.items() if len(s) > 1 and n > tolerance * min(sizes[name] for name in s)]
    if not overlaps:
        return labels
    overlaps.sort(key=lambda s: (len(s), sorted(names.index(name) for name in s)))
    values = _values(names, counts, overlaps)
    order = sorted(names, key=lambda name: -sizes[name])
    base = {name: _base_value(name, order, values, counts, tolerance * sizes[name]) for name in order}
    regions = _with_intersections(order, base, values, overlaps)
    return _region_labels(labels, regions, values)


def require_no_overlap(case_id: str, counts: Mapping[Names, int]) -> None:
    """Raise TaskError naming the segments that have voxels in common."""
    for names, voxels in counts.items():
        if len(names) > 1:
            raise TaskError(
                f"{case_id}: the segments {' and '.join(sorted(names))} overlap in {voxels} voxels; separate them in the "
                "Segment Editor, or let overlapping segments become regions."
            )


def value_of(labels: LabelSet, names: Names) -> int | None:
    """The value of voxels that belong to exactly these segments; None when the labels have none."""
    return value_table(labels).get(names)


def value_table(labels: LabelSet) -> dict[Names, int]:
    """The value of each combination of segments that the labels know."""
    table = {frozenset(): 0}
    if labels.ignore_value is not None:
        table[frozenset([IGNORE])] = labels.ignore_value
    segments = segment_labels(labels)
    for value in labels.foreground_values:
        table[frozenset(label.name for label in segments if value in label.values)] = value
    return table


def painted_value(labels: LabelSet, names: Names) -> int:
    """The value nnU-Net's painting gives to voxels of these segments: that of the last label in order."""
    painted = labels.regions_class_order or tuple(label.values[0] for label in labels.foreground)
    pairs = zip(labels.foreground, painted, strict=True)
    active = [value for label, value in pairs if members(label, labels) <= names]
    return active[-1] if active else 0


def members(label: Label, labels: LabelSet) -> Names:
    """The segments a label stands for: itself, or those it is the intersection of."""
    parts = label.name.split(AND)
    known = {other.name for other in labels.labels} - {label.name}
    return frozenset(parts) if known.issuperset(parts) else frozenset([label.name])


def segment_labels(labels: LabelSet) -> tuple[Label, ...]:
    """The labels that are segments: all but background, ignore and intersections."""
    return tuple(label for label in labels.foreground if len(members(label, labels)) == 1)


def layers_of(labels: LabelSet) -> tuple[tuple[Label, ...], ...]:
    """The segments in as few groups as possible of which no two share a value."""
    groups: list[list[Label]] = []
    for label in segment_labels(labels):
        free = [g for g in groups if all(set(label.values).isdisjoint(other.values) for other in g)]
        if free:
            free[0].append(label)
        else:
            groups.append([label])
    return tuple(tuple(group) for group in groups)


def _added(codes: np.ndarray, table: Sequence[Names], layer: Layer) -> tuple[np.ndarray, list[Names]]:
    """The codes and combinations after one more layer."""
    named = dict(layer.names)
    highest = max([int(layer.array.max()), *named])
    number = np.zeros(highest + 1, np.uint16)
    number[list(named)] = np.arange(1, len(named) + 1)
    inside = np.flatnonzero(number[layer.array])
    width = len(named) + 1
    pairs = codes.ravel()[inside].astype(np.int64) * width + number[layer.array.ravel()[inside]]
    present = np.flatnonzero(np.bincount(pairs, minlength=1))
    table, in_order = list(table), list(named.values())
    new_code = np.zeros(len(table) * width, np.uint16)
    for pair in present:
        joined = table[pair // width] | {in_order[pair % width - 1]}
        if joined not in table:
            table.append(joined)
        new_code[pair] = table.index(joined)
    codes = codes.copy()
    codes.ravel()[inside] = new_code[pairs]
    return codes, table


def _values(names: Sequence[str], counts: Mapping[Names, int], overlaps: Sequence[Names]) -> dict[Names, int]:
    """A value for each combination that occurs, single segments first; consecutive from 1."""
    covered = frozenset().union(*overlaps)
    alone = [frozenset([name]) for name in names]
    singles = [s for s in alone if counts.get(s) or not s <= covered]
    if all(sum(name in s for s in (*singles, *overlaps)) == 1 for name in names):
        singles = alone  # regions need a label of several values
    return {s: n for n, s in enumerate([*singles, *overlaps], 1)}


def _base_value(name: str, order: Sequence[str], values: Mapping, counts: Mapping, negligible: float) -> int:
    """The value painted for a segment: its own, or that of the combination in which it mostly comes last."""
    alone = frozenset([name])
    if counts.get(alone, 0) > negligible:
        return values[alone]
    having = [s for s in values if name in s]
    last = [s for s in having if order[max(order.index(other) for other in s)] == name]
    return values[max(last or having, key=lambda s: counts.get(s, 0))]


def _with_intersections(order, base: Mapping[str, int], values: Mapping[Names, int], overlaps) -> list:
    """(segments, painted value) of every region in painting order; intersections where painting needs them."""
    regions = [(frozenset([name]), base[name]) for name in order]
    for names in overlaps:
        painted = [value for region, value in regions if region <= names][-1]
        if painted != values[names]:
            regions.append((names, values[names]))
    return regions


def _region_labels(labels: LabelSet, regions, values: Mapping[Names, int]) -> LabelSet:
    known = {label.name: label for label in labels.labels}
    names = [label.name for label in labels.foreground]
    found = [Label(BACKGROUND, (0,))]
    for region, _ in regions:
        name = AND.join(sorted(region, key=names.index))
        covered = tuple(value for s, value in values.items() if region <= s)
        found.append(replace(known[name], values=covered) if name in known else Label(name, covered))
    if labels.ignore_value is not None:
        found.append(replace(known[IGNORE], values=(len(values) + 1,)))
    return LabelSet(tuple(found), tuple(value for _, value in regions))
