"""Which segment is which label: by name, else by terminology."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ..errors import TaskError
from ..labels import BACKGROUND, IGNORE, Label, LabelSet
from .overlaps import AND, members, segment_labels

_UNSPECIFIC = ("", "85756007")
"""Type codes that say nothing: none, and "Tissue", which Slicer gives to every new segment."""


@dataclass(frozen=True)
class SegmentRow:
    """One segment as a table shows it."""

    id: str
    name: str
    color: tuple[int, int, int] | None
    """RGB, 0 to 255; None when it has none of its own."""
    terminology: str
    """Slicer's terminology entry as a string; empty when there is none."""
    is_empty: bool | None
    """None where nobody looked; it takes a pass over all voxels."""
    value: int = 0
    """Its value in the label map it shares with others."""


def labels_from_rows(
    tables: Iterable[Sequence[SegmentRow]], chosen: Sequence[str] | None = None, owners: Sequence[str] = ()
) -> LabelSet:
    """The labels of all segments of several segmentations, values 1, 2, … in the order of their first appearance.

    `chosen` names those that count and gives the order. A segment "ignore" becomes nnU-Net's ignore label, one named
    "background" is left out. `owners` are the names of the segmentations, to tell which one cannot be used.
    Raises TaskError for two segments of one name, and for chosen names that are nowhere.
    """
    found = LabelSet((Label(BACKGROUND, (0,)),))
    for rows, owner in zip_longest(tables, owners, fillvalue=""):
        names = match_segments(rows, found, "skip", by_terminology=False, owner=owner)
        fresh = [row for row in rows if row.id not in names and _plain(row.name) != BACKGROUND]
        times = Counter(_plain(row.name) for row in fresh)
        if twice := [row.name for row in fresh if times[_plain(row.name)] > 1]:
            raise _two_segments(twice[-1], owner)
        labels = [Label(_label_name(row), (0,), row.color, row.terminology) for row in fresh]
        found = _numbered((*found.labels, *labels))
    by_name = {_plain(label.name): label for label in found.labels}
    for name in chosen or ():
        if _plain(name) not in by_name:
            raise TaskError(f"No segment is named {name}; the segments are {_listed(found)}.")
    labels = found.labels if chosen is None else [by_name[_plain(name)] for name in dict.fromkeys(chosen)]
    found = _numbered(labels)
    if not found.foreground:
        raise TaskError(
            "A task needs at least one segment besides the background, found none; draw one in the Segment Editor."
        )
    return found


def match_segments(
    rows: Sequence[SegmentRow],
    labels: LabelSet,
    others: str = "refuse",
    by_terminology: bool = True,
    owner: str = "",
) -> dict[str, str]:
    """Segment id → label name, by name (small and capital letters alike), else by terminology.

    Segments that are no label are left out with `others="skip"`. Raises TaskError naming them otherwise, and when two
    segments are the same label; `owner` is the name of their segmentation.
    """
    candidates = [*segment_labels(labels), *(label for label in labels.labels if label.name == IGNORE)]
    taken: dict[str, str] = {}
    for find in (_by_name, _by_terminology) if by_terminology else (_by_name,):
        for row in (row for row in rows if row.id not in taken):
            label = find(row, [c for c in candidates if find is _by_name or c.name not in taken.values()])
            if label and label in taken.values():
                raise _two_segments(label, owner)
            if label:
                taken[row.id] = label
    unknown = [row.name for row in rows if row.id not in taken and _plain(row.name) != BACKGROUND]
    if unknown and others != "skip":
        raise TaskError(
            f"The task has no label for the segments {', '.join(unknown)}; its labels are {_listed(labels)}. "
            "Rename the segments, or leave them out."
        )
    return taken


def renamed(rows: Sequence[SegmentRow], names: dict[str, str]) -> tuple[str, ...]:
    """Sentences about segments that were matched by terminology, not by name."""
    return tuple(
        f"The segment {row.name} was taken for {names[row.id]} because of its terminology."
        for row in rows
        if row.id in names and _plain(row.name) != _plain(names[row.id])
    )


def _label_name(row: SegmentRow) -> str:
    return IGNORE if _plain(row.name) == IGNORE else " ".join(row.name.split())


def _two_segments(name: str, owner: str) -> TaskError:
    of = f" of {owner}" if owner else ""
    return TaskError(f"Two segments{of} are named {name}; rename or join them in the Segment Editor.")


def _by_name(row: SegmentRow, labels: Sequence[Label]) -> str:
    exact = [label.name for label in labels if label.name == row.name]
    return next(iter(exact or [label.name for label in labels if _plain(label.name) == _plain(row.name)]), "")


def _by_terminology(row: SegmentRow, labels: Sequence[Label]) -> str:
    code = _code(row.terminology)
    same = [label.name for label in labels if code and _code(label.terminology) == code]
    return same[0] if len(same) == 1 else ""


def _code(terminology: str) -> tuple[str, ...]:
    """Coding scheme and value of type, modifier, region and its modifier; empty when it says nothing."""
    parts = (terminology.split("~") + [""] * 7)[:7]
    codes = [part.split("^")[:2] for part in (parts[2], parts[3], parts[5], parts[6])]
    return () if codes[0][-1] in _UNSPECIFIC else tuple("^".join(code) for code in codes)


def _numbered(labels: Iterable[Label]) -> LabelSet:
    """The labels with consecutive values in their order, ignore last; background is added where it lacks."""
    named = [label for label in labels if label.name not in (BACKGROUND, IGNORE)]
    ignored = [label for label in labels if label.name == IGNORE]
    numbered = [
        Label(label.name, (n,), label.color, label.terminology) for n, label in enumerate([*named, *ignored[:1]], 1)
    ]
    made = LabelSet((Label(BACKGROUND, (0,)), *numbered))
    for label in made.labels:
        if len(members(label, made)) > 1:
            raise TaskError(
                f'The segment name "{label.name}" is kept for the overlap of {label.name.replace(AND, " and ")}; '
                "rename it."
            )
    return made


def _listed(labels: LabelSet) -> str:
    return ", ".join(label.name for label in labels.labels if not label.is_background) or "none yet"


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()
