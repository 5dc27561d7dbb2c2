"""Which loaded volumes belong to a segmentation when a task has several channels, and which segments there are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class SegmentChoice:
    """A segment that occurs in the pairs."""

    name: str
    color: tuple[int, int, int] | None
    count: int
    """In how many pairs it is."""
    is_known: bool = True
    """Whether the open task has a label for it; true without a task."""


def channel_names(text: str) -> tuple[str, ...]:
    """ "T1, T2" → ("T1", "T2")."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def with_channels(pair, channels: Sequence[str], volumes: Sequence):
    """The pair with one volume per channel, or None: P1_T1 has P1_T2 as its companion for the channels T1 and T2."""
    if len(channels) == len(pair.volumes):
        return pair
    name = pair.volumes[0].GetName()
    own = next((channel for channel in channels if _token(channel).search(name)), None)
    if own is None:
        return None
    wanted = [_token(own).sub(channel, name).casefold() for channel in channels]
    by_name = {volume.GetName().casefold(): volume for volume in volumes}
    found = [by_name.get(name) for name in wanted]
    return None if None in found else replace(pair, volumes=tuple(found))


def segment_choices(tables: Sequence[Sequence], task=None) -> list[SegmentChoice]:
    """All segments of the pairs, in the order of their first appearance; raises TaskError for two of one name."""
    from NNSegmentLib.segment_names import labels_from_rows, match_segments

    if not tables:
        return []
    labels = labels_from_rows(tables)
    shown = [label for label in labels.labels if not label.is_background]
    known = {
        row.name for rows in tables for row in rows if task and row.id in match_segments(rows, task.labels, "skip")
    }
    matched = [set(match_segments(rows, labels, "skip").values()) for rows in tables]
    return [
        SegmentChoice(
            label.name, label.color, sum(label.name in names for names in matched), task is None or label.name in known
        )
        for label in shown
    ]


def _token(channel: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_]){re.escape(channel)}(?![^\W_])", re.IGNORECASE)
