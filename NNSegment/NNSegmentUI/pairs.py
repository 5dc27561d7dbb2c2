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


@dataclass(frozen=True)
class ListedPair:
    """A pair in the list, and the channels that its volumes were chosen for."""

    pair: object
    channels: tuple[str, ...]

    def in_order(self, channels: Sequence[str]):
        """The pair with its volumes in the order of these channels; None when they were chosen for others."""
        if len(channels) == len(self.channels) == 1:  # a volume stays the only one, whatever its channel is called
            return self.pair
        left = list(zip(map(str.casefold, self.channels), self.pair.volumes, strict=True))
        volumes = []
        for channel in map(str.casefold, channels):
            found = next((entry for entry in left if entry[0] == channel), None)
            if found is None:
                return None
            left.remove(found)
            volumes.append(found[1])
        return None if left else replace(self.pair, volumes=tuple(volumes))


def with_channels(pair, channels: Sequence[str], volumes: Sequence):
    """The pair with one volume per channel, or None: P1_T1 has P1_T2 as its companion for the channels T1 and T2.

    A name that several volumes have tells nothing: the companion may be another patient's.
    """
    if len(channels) == len(pair.volumes):
        return pair
    name = pair.volumes[0].GetName()
    own = next((channel for channel in channels if _token(channel).search(name)), None)
    if own is None:
        return None
    wanted = [channel.join(_token(own).split(name)).casefold() for channel in channels]
    names = [volume.GetName().casefold() for volume in volumes]
    if any(names.count(name) != 1 for name in wanted):
        return None
    return replace(pair, volumes=tuple(volumes[names.index(name)] for name in wanted))


def companions(volume, channels: Sequence[str], volumes: Sequence) -> list:
    """The volumes of the other channels beside the first one's, each None where the names do not tell them."""
    from NNSegmentLib.scene_tasks import Pair

    pair = None if volume is None else with_channels(Pair((volume,), None), channels, volumes)
    is_right = pair is not None and pair.volumes[0] is volume
    return list(pair.volumes[1:]) if is_right else [None] * (len(channels) - 1)


def segment_choices(tables: Sequence[Sequence], owners: Sequence[str], task=None) -> list[SegmentChoice]:
    """All segments of the pairs, in the order of their first appearance; `owners` are names of the segmentations.

    Raises TaskError for two segments of one name.
    """
    from NNSegmentLib.segments.names import labels_from_rows, match_segments

    if not tables:
        return []
    labels = labels_from_rows(tables, owners=owners)
    shown = [label for label in labels.labels if not label.is_background]
    known = {
        row.name
        for rows, owner in zip(tables, owners, strict=True)
        for row in rows
        if task and row.id in match_segments(rows, task.labels, "skip", owner=owner)
    }
    matched = [set(match_segments(rows, labels, "skip", by_terminology=False).values()) for rows in tables]
    return [
        SegmentChoice(
            label.name, label.color, sum(label.name in names for names in matched), task is None or label.name in known
        )
        for label in shown
    ]


def _token(channel: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_]){re.escape(channel)}(?![^\W_])", re.IGNORECASE)
