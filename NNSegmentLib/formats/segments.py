"""Named segments of foreign files: one set of labels for all cases, and each case's segments on the grid of its image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import ImageError, some
from ..geometry import Geometry
from ..grids.regular import labels_on_grid, share_inside
from ..labels import LabelSet
from ..segments.names import SegmentRow, labels_from_rows, match_segments
from ..segments.overlaps import Combined, Layer, combined
from .source import SegmentLayer, SourceCase

_WHOLE = 0.999
"""A share of a layer's voxels from which on nothing is said about those outside the image."""


def common_labels(cases: Sequence[SourceCase], order: Sequence[str] | None = None) -> LabelSet:
    """The labels of all cases, in `order` if given, else as they first appear; raises TaskError."""
    known = [case for case in cases if case.segments]
    return labels_from_rows([case.segments.rows for case in known], order, [case.id for case in known])


def union_of_rows(cases: Sequence[SourceCase]) -> tuple[SegmentRow, ...]:
    """One row for every id of a segment in any case, sorted by name without regard to capital letters."""
    rows = {row.id: row for case in cases if case.segments for row in reversed(case.segments.rows)}
    return tuple(sorted(rows.values(), key=lambda row: (row.name.casefold(), row.name)))


def drawn_on(grid: Geometry, case: SourceCase, labels: LabelSet) -> tuple[Combined, tuple[str, ...]]:
    """The segments of a case on the grid of its image, and sentences about what lay outside it.

    Raises ImageError when they all lie outside, TaskError when two segments are the same label.
    """
    names = match_segments(case.segments.rows, labels, "skip")
    notes: list[str] = []
    inside: list[bool] = []

    def layers() -> Iterator[Layer]:
        for layer in case.segments.read():
            wanted = tuple((value, names[row_id]) for value, row_id in layer.ids if row_id in names)
            if wanted:
                array, share = _on_grid(layer, wanted, grid)
                inside.extend([share > 0] if share == share else ())
                notes.extend([_outside([name for _, name in wanted], share)] if share < _WHOLE else ())
                yield Layer(array, wanted)

    found = combined(grid.shape, layers())
    if inside and not any(inside):
        raise ImageError(
            f"The segments of {case.id} ({case.segments.files[0]}) lie outside its image; do they belong to another one?"
        )
    return found, tuple(notes)


def _on_grid(layer: SegmentLayer, wanted: Sequence[tuple[int, str]], grid: Geometry) -> tuple[np.ndarray, float]:
    """The layer on the grid, and the share of its segments that lies in it (NaN when they are empty)."""
    array = labels_on_grid(layer.array, layer.ijk_to_ras, grid)
    if array is layer.array:
        return array, 1.0 if array.any() else float("nan")
    marked = np.isin(layer.array, [value for value, _ in wanted])
    return array, share_inside(marked, layer.ijk_to_ras, grid)


def _outside(names: Sequence[str], share: float) -> str:
    return f"{100 * (1 - share):.1f} % of {some(names)} lies outside the image and was left out."
